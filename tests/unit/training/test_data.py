"""Reading training data: which lines are examples, and which are refused."""

from __future__ import annotations

import gzip
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training import TrainingData, TrainingExample, read_training_data


def write_lines(file: Path, *rows: Any) -> Path:
    """Write a JSONL file; a row that is a text is written unchanged."""
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def write_beir(folder: Path, passages: list[str], grades: dict[str, dict[str, int]], **queries: str) -> Path:
    """Write a BEIR folder with the queries `q0`, `q1`, ... and documents `d0`, `d1`, ..."""
    folder.mkdir()
    write_lines(folder / "corpus.jsonl", *({"_id": f"d{i}", "text": text} for i, text in enumerate(passages)))
    write_lines(folder / "queries.jsonl", *({"_id": key, "text": queries.get(key, f"what is {key}")} for key in grades))
    rows = [f"{query}\t{key}\t{grade}" for query, found in grades.items() for key, grade in found.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]), encoding="utf-8")
    return folder


def test_lines_of_one_query_are_one_example(tmp_path: Path, passages: list[str]) -> None:
    """A query on several lines has all their positives, and everything a line may contain is read."""
    file = write_lines(
        tmp_path / "birds.jsonl",
        {"query": "heron", "positive": passages[0], "title": "Heron"},
        "",
        {"query": "Heron ", "positives": [passages[1]], "negatives": [passages[3], passages[0]], "answers": ["fish"]},
    )
    data = read_training_data([file])
    assert data.examples == [
        TrainingExample("heron", (passages[0], passages[1]), (passages[3],), ("fish",), "birds", "Heron")
    ]
    assert data.passages == {"birds": [passages[0], passages[1], passages[3]]}


@pytest.mark.parametrize(
    ("line", "positives", "negatives"),
    [
        ({"anchor": "q", "positive": "a"}, ("a",), ()),
        ({"question": "q", "answer": "a"}, ("a",), ()),
        ({"query": "q", "answer": "a", "answers": ["short"]}, ("a",), ()),
        ({"query": "q", "positive": "a", "negative": "b"}, ("a",), ("b",)),
        ({"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "c"}, ("a",), ("b", "c")),
        ({"query": "q", "positive": "a", "negative": "b", "negatives": ["c", " "]}, ("a",), ("b", "c")),
        ({"query": "q", "positive": "a", "negative_1": "b", "negative_2": None, "title": math.nan}, ("a",), ("b",)),
        ({"query": "q", "docs": ["a", "b", "c", " "], "labels": [1, 0, True, 0]}, ("a", "c"), ("b",)),
        ({"query": "q", "documents": ["a", "b"], "scores": [0.0, 1.0]}, ("b",), ("a",)),
        ({"query": "q", "passage": "a", "label": 1}, ("a",), ()),
        ({"query": "q", "text": "a", "score": True}, ("a",), ()),
        ({"question": "q", "answer": "a", "label": 1.0}, ("a",), ()),
    ],
)
def test_shapes_of_sentence_transformers_are_read(
    tmp_path: Path, line: Any, positives: tuple[str, ...], negatives: tuple[str, ...]
) -> None:
    """Pairs, triplets, numbered negatives, labelled pairs and labelled lists become examples; null is nothing."""
    (example,) = read_training_data([write_lines(tmp_path / "birds.jsonl", line)]).examples
    assert (example.query, example.positives, example.negatives) == ("q", positives, negatives)


def test_labelled_pairs_of_a_query_are_merged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Relevant and irrelevant pairs of a query become one example; a query without a relevant one is left out."""
    rows = [("q", "a", 1), ("q", "b", 0), ("other", "c", 0)]
    lines = [{"query": query, "passage": passage, "label": label} for query, passage, label in rows]
    with caplog.at_level(logging.WARNING):
        data = read_training_data([write_lines(tmp_path / "birds.jsonl", *lines)])
    assert data.examples == [TrainingExample("q", ("a",), ("b",), source="birds")]
    assert "1 of 2 queries have no passage labelled as relevant and are left out, for example 'other'" in caplog.text
    with pytest.raises(InvalidInputError, match="none of 1 queries has a positive"):
        read_training_data([write_lines(tmp_path / "birds.jsonl", lines[2])])


def test_the_source_of_a_line_is_used(tmp_path: Path) -> None:
    """A line's `source` counts; without one, the source is the name of the file."""
    rows = [{"query": "a", "positive": "x", "source": "wiki"}, {"query": "b", "positive": "y"}]
    data = read_training_data([write_lines(tmp_path / "birds.jsonl", *rows)])
    assert [example.source for example in data.examples] == ["wiki", "birds"]
    assert data.passages == {"wiki": ["x"], "birds": ["y"]}


def test_positives_of_a_query_are_merged_across_files(tmp_path: Path) -> None:
    """A query in two files is one example of the first, whose passages then include all its positives."""
    first = write_lines(tmp_path / "one.jsonl", {"query": "Heron?", "positive": "a", "negative": "b"})
    second = write_lines(tmp_path / "two.jsonl", {"query": "heron?", "positives": ["b", "c"], "title": "Birds"})
    data = read_training_data([first, second])
    assert data.examples == [TrainingExample("Heron?", ("a", "b", "c"), (), source="one", unit="Birds")]
    assert data.passages == {"one": ["a", "b", "c"], "two": ["b", "c"]}


def test_packed_files_are_read(tmp_path: Path, passages: list[str]) -> None:
    """A `.jsonl.gz` file is read like the plain file, with or without a byte order mark."""
    line = json.dumps({"query": "heron", "positive": passages[0]})
    (tmp_path / "birds.jsonl.gz").write_bytes(gzip.compress(line.encode("utf-8-sig")))
    assert read_training_data([tmp_path / "birds.jsonl.gz"]).examples[0].source == "birds"


def test_a_collection_with_splits_trains_on_its_training_judgements(tmp_path: Path, passages: list[str]) -> None:
    """Of a collection as published, only the queries of the training split are learned from."""
    grades = {"q0": {"d0": 1}, "q1": {"d1": 1}}
    folder = write_beir(tmp_path / "birds", passages, grades, q0="heron", q1="ferry")
    head, *rows = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    for split, row in zip(("train", "test"), rows, strict=True):
        (folder / "qrels" / f"{split}.tsv").write_text(f"{head}\n{row}\n", encoding="utf-8")
    assert [example.query for example in read_training_data([folder]).examples] == ["heron"]


def test_a_collection_without_training_judgements_says_where_to_put_them(tmp_path: Path, passages: list[str]) -> None:
    """Judgements of other splits are for evaluating; the error says where those to train on belong."""
    folder = write_beir(tmp_path / "birds", passages, {"q0": {"d0": 1}})
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    with pytest.raises(InvalidInputError, match=r"birds has no .* only those of 'test'; save them as qrels/train.tsv"):
        read_training_data([folder])


def test_half_an_emoji_becomes_the_replacement_character(tmp_path: Path, passages: list[str]) -> None:
    """A lone surrogate in any text, which no tokenizer accepts, is replaced when the text is read."""
    cut = "heron \ud83d"
    line = {"query": cut, "positive": cut, "negatives": [cut + "!"], "answers": [cut], "title": cut, "source": "lines"}
    folder = write_beir(tmp_path / "beir", [cut, *passages], {"q0": {"d0": 1}}, q0=cut + "?")
    data = read_training_data([write_lines(tmp_path / "birds.jsonl", line), folder])
    assert "heron \ufffd" in str(data)
    str(data).encode()


def test_one_path_is_read_like_a_list_of_it(tmp_path: Path) -> None:
    """A text or a `Path` is one path, and not a sequence of letters."""
    file = write_lines(tmp_path / "birds.jsonl", {"query": "q", "positive": "a"})
    assert read_training_data(file) == read_training_data(str(file)) == read_training_data([file])


def test_beir_folders_are_read(tmp_path: Path, passages: list[str]) -> None:
    """Documents judged above 0 are positives, those at 0 negatives, and the whole corpus is mined from."""
    data = read_training_data([write_beir(tmp_path / "birds", passages, {"q0": {"d0": 2, "d2": 0}})])
    assert data.examples == [TrainingExample("what is q0", (passages[0],), (passages[2],), source="birds")]
    assert sorted(data.passages["birds"]) == sorted(passages)


def test_judged_documents_that_the_corpus_lacks_are_left_out(
    tmp_path: Path, passages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Judgements of missing documents are counted and left out, and so is a query that has no other positive."""
    grades = {"q0": {"d0": 1, "lost": 1, "gone": 0}, "q1": {"lost": 1}}
    data = read_training_data([write_beir(tmp_path / "birds", passages, grades)])
    assert data.examples == [TrainingExample("what is q0", (passages[0],), source="birds")]
    assert "2 judged documents are not in the corpus and are left out, for example 'gone'" in caplog.text
    assert "1 of 2 queries have no passage labelled as relevant and are left out" in caplog.text


def test_one_query_under_two_ids_is_one_example(tmp_path: Path, passages: list[str]) -> None:
    """Judgements of the same query text under two ids are merged."""
    grades = {"q0": {"d0": 1, "d1": 0}, "q1": {"d1": 1}}
    folder = write_beir(tmp_path / "birds", passages, grades, q0="heron", q1="Heron")
    assert read_training_data([folder]).examples == [
        TrainingExample("heron", (passages[0], passages[1]), source="birds")
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"birds.jsonl, line 2: '\{oops' is not JSON .*; a line is .*positive"),
        ("[1]", r"line 2: '\[1\]' is not an object"),
        ("[" * 100_000, r"line 2: .* is not JSON"),
        ({"query": "heron"}, "line 2: the query 'heron' has no positive"),
        ({"query": "heron", "positives": []}, "line 2: the query 'heron' has no positive"),
        ({"query": "heron", "positive": "  "}, "line 2: positive is '  ', not a text"),
        ({"query": 3, "positive": "x"}, "line 2: query is 3, not a text"),
        ({"positive": "x", "Query": "q"}, r"line 2: no query; the keys are \['positive', 'Query'\]"),
        ({"query": "q", "positive": "x", "negatives": "y"}, "line 2: negatives is 'y', not a list of texts"),
        ({"query": "q", "positive": "x", "negative": ["y"]}, r"negative is \['y'\], .* put a list under \"negatives\""),
        ({"query": "q", "answer": ["x"]}, r"line 2: answer is \['x'\], not a text; put a list under \"positives\""),
        ({"query": "q", "positive": "x", "source": 3}, "line 2: source is 3, not a text"),
        ({"query": "q", "positve": "x"}, r"line 2: unknown keys \['positve'\]"),
        ({"query": "q", "positive": "x", "hard_negative": "y"}, r"unknown keys \['hard_negative'\]"),
        ({"query": "q", "anchor": "q", "positive": "x"}, r"unknown keys \['anchor'\]"),
        ({"query": "q", "positive": "x", "label": 1, "weight": 2}, r"unknown keys \['weight'\]"),
        ({"query": "q", "passage": "x"}, r"unknown keys \['passage'\]"),
        ({"query": "q", "passage": "x", "label": 0.7}, r"label is 0.7; a label must be 1 \(relevant\) or 0"),
        ({"query": "q", "passage": "x", "label": "1"}, "label is '1'; a label must be 1"),
        ({"query": "q", "docs": ["x"], "labels": [2]}, r"labels\[0\] is 2; a label must be 1"),
        ({"query": "q", "docs": ["x"], "labels": [1, 0]}, r"labels is \[1, 0\], not a list of 1 labels"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, passages: list[str], line: Any, message: str) -> None:
    """A line that cannot be used is an error with its number and what a line should be."""
    file = write_lines(tmp_path / "birds.jsonl", {"query": "stork", "positive": passages[4]}, line)
    with pytest.raises(InvalidInputError, match=message):
        read_training_data([file])


def test_files_without_content_are_refused(tmp_path: Path) -> None:
    """No path, a missing path, an empty file, a broken archive and bytes that are not text are errors."""
    with pytest.raises(InvalidInputError, match="nothing to train on"):
        read_training_data([])
    with pytest.raises(InvalidInputError, match="no file or folder"):
        read_training_data([tmp_path / "missing.jsonl"])
    with pytest.raises(InvalidInputError, match="is empty; a line is"):
        read_training_data([write_lines(tmp_path / "empty.jsonl", "")])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 100)[:20])
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_training_data([tmp_path / "cut.jsonl.gz"])
    damaged = bytearray(gzip.compress(b"x" * 100))
    damaged[10] |= 0b110
    (tmp_path / "damaged.jsonl.gz").write_bytes(damaged)
    with pytest.raises(InvalidInputError, match=r"cannot read .*damaged"):
        read_training_data([tmp_path / "damaged.jsonl.gz"])
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_training_data([tmp_path / "bytes.jsonl"])


def test_a_judged_query_without_a_positive_is_left_out(
    tmp_path: Path, passages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A BEIR query whose judgements are all 0 has nothing to learn from; it does not cost the others."""
    grades = {"q0": {"d0": 0}, "q1": {"d1": 1}}
    data = read_training_data([write_beir(tmp_path / "birds", passages, grades)])
    assert [example.query for example in data.examples] == ["what is q1"]
    assert "1 of 2 queries have no passage labelled as relevant and are left out" in caplog.text
    with pytest.raises(InvalidInputError, match="none of 1 queries has a positive"):
        read_training_data([write_beir(tmp_path / "none", passages, {"q0": {"d0": 0}})])


def test_an_empty_folder_of_splits_does_not_hide_the_judgements(tmp_path: Path, passages: list[str]) -> None:
    """With nothing in `qrels/`, `qrels.tsv` is read."""
    folder = write_beir(tmp_path / "birds", passages, {"q0": {"d0": 1}})
    (folder / "qrels").mkdir()
    assert read_training_data([folder]).examples[0].positives == (passages[0],)


def test_white_space_does_not_make_a_positive_a_negative(tmp_path: Path) -> None:
    """The same passage with other white space is not learned as its opposite."""
    lines = [{"query": "q", "positive": "at nine", "negatives": ["at  nine\n", "at ten"]}]
    (example,) = read_training_data([write_lines(tmp_path / "birds.jsonl", *lines)]).examples
    assert (example.positives, example.negatives) == (("at nine",), ("at ten",))


def test_merging_changes_nothing_that_is_merged() -> None:
    """Data without repeated queries stays equal when it is merged."""
    data = TrainingData([TrainingExample("a", ("x",), source="s")], {"s": ["x", "y"]})
    assert data.merged() == data
