"""Reading training data, mining negatives from it, and drawing groups: what is used, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.training import mining
from langchain_crossrerank.training.bm25 import BM25
from langchain_crossrerank.training.data import TrainingData, TrainingExample, read_training_data
from langchain_crossrerank.training.groups import GroupSampler, check_shares
from langchain_crossrerank.training.mining import Mined, mine
from langchain_crossrerank.training.validation import hold_apart, is_held_apart
from langchain_crossrerank.training.windows import sentences, window

PASSAGES = [
    "The heron is a bird that waits in shallow water.",
    "The heron hunts fish in shallow water at dawn.",
    "A ferry crosses the water to the island at nine.",
    "Bread needs flour, water, salt and time.",
    "The stork is a bird that nests on roofs.",
]


def write_lines(file: Path, *rows: Any) -> Path:
    """A JSONL file; a row that is a text is written as it is."""
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return file


def write_beir(folder: Path, grades: dict[str, dict[str, int]]) -> Path:
    """A BEIR folder over `PASSAGES`, with queries `q0`, `q1`, ..."""
    folder.mkdir()
    write_lines(folder / "corpus.jsonl", *({"_id": f"d{i}", "text": text} for i, text in enumerate(PASSAGES)))
    write_lines(folder / "queries.jsonl", *({"_id": key, "text": f"what is {key}"} for key in grades))
    rows = [f"{query}\t{key}\t{grade}" for query, found in grades.items() for key, grade in found.items()]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]), encoding="utf-8")
    return folder


def test_lines_of_one_query_are_one_example(tmp_path: Path) -> None:
    """A query that stands in several lines has all their positives, and everything a line may bring is read."""
    file = write_lines(
        tmp_path / "birds.jsonl",
        {"query": "heron", "positive": PASSAGES[0], "title": "Heron"},
        "",
        {"query": "heron", "positives": [PASSAGES[1]], "negatives": [PASSAGES[3], PASSAGES[0]], "answers": ["fish"]},
    )
    data = read_training_data([file])
    assert data.examples == [
        TrainingExample("heron", (PASSAGES[0], PASSAGES[1]), (PASSAGES[3],), ("fish",), "birds", "Heron")
    ]
    assert data.passages == {"birds": [PASSAGES[0], PASSAGES[1], PASSAGES[3]]}


def test_packed_files_are_read(tmp_path: Path) -> None:
    """A `.jsonl.gz` file gives what the plain one gives."""
    line = json.dumps({"query": "heron", "positive": PASSAGES[0]})
    (tmp_path / "birds.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    assert read_training_data([tmp_path / "birds.jsonl.gz"]).examples[0].source == "birds"


def test_beir_folders_are_read(tmp_path: Path) -> None:
    """Documents above zero are positives, those at zero negatives, and the whole corpus is mined from."""
    data = read_training_data([write_beir(tmp_path / "birds", {"q0": {"d0": 2, "d2": 0}})])
    assert data.examples == [TrainingExample("what is q0", (PASSAGES[0],), (PASSAGES[2],), source="birds")]
    assert sorted(data.passages["birds"]) == sorted(PASSAGES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"birds.jsonl, line 2: '\{oops' is not JSON"),
        ("[1]", r"line 2: '\[1\]' is not an object"),
        ({"query": "heron"}, "line 2: the query 'heron' has no positive"),
        ({"query": "heron", "positives": []}, "line 2: the query 'heron' has no positive"),
        ({"query": "heron", "positive": "  "}, "line 2: positive is '  ', not a text"),
        ({"query": 3, "positive": "x"}, "line 2: query is 3, not a text"),
        ({"positive": "x"}, "line 2: query is None, not a text"),
        ({"query": "q", "positive": "x", "negatives": "y"}, "line 2: negatives is 'y', not a list of texts"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    """A line that cannot be used stops the reading, with its number and what a line should be."""
    file = write_lines(tmp_path / "birds.jsonl", {"query": "stork", "positive": PASSAGES[4]}, line)
    with pytest.raises(InvalidInputError, match=message):
        read_training_data([file])


def test_files_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    """No path, a missing path, an empty file, a broken archive and bytes that are no text each have their error."""
    with pytest.raises(InvalidInputError, match="nothing to train on"):
        read_training_data([])
    with pytest.raises(InvalidInputError, match="no file or folder"):
        read_training_data([tmp_path / "missing.jsonl"])
    with pytest.raises(InvalidInputError, match="is empty; a line is"):
        read_training_data([write_lines(tmp_path / "empty.jsonl", "")])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 100)[:20])
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_training_data([tmp_path / "cut.jsonl.gz"])
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_training_data([tmp_path / "bytes.jsonl"])


def test_a_judged_query_without_a_positive_is_refused(tmp_path: Path) -> None:
    """A BEIR query whose judgements are all zero has nothing to learn from."""
    with pytest.raises(InvalidInputError, match="'q0' has no document judged above 0"):
        read_training_data([write_beir(tmp_path / "birds", {"q0": {"d0": 0}})])


def test_bm25_ranks_by_rare_shared_words() -> None:
    """The passage with the rarer words of the query comes first; one that shares none is not found."""
    index = BM25(PASSAGES)
    places, scores = index.search("herons in shallow water", 10)
    assert set(places.tolist()[:2]) == {0, 1}
    assert 4 not in places
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert index.search("zeppelin", 10)[0].tolist() == []
    assert index.idf("water") < index.idf("heron") < index.idf("zeppelin") + 1e-9


def test_bm25_agrees_with_the_formula() -> None:
    """A score is the sum over words of idf times saturated count, written out."""
    index = BM25(["a b b", "b c"], k1=0.9, b=0.4)
    _, scores = index.search("b", 2)
    idf = 0.1823215567939546  # ln(1 + 0.5 / 2.5)
    expected = [idf * tf * 1.9 / (tf + 0.9 * (0.6 + 0.4 * length / 2.5)) for tf, length in ((2, 3), (1, 2))]
    assert scores.tolist() == pytest.approx(expected)


def mined_birds(**options: Any) -> Mined:
    """One query on herons, mined from `PASSAGES` and a near-copy of its positive."""
    example = TrainingExample("heron bird in shallow water", (PASSAGES[0],), answers=options.pop("answers", ()))
    copy = PASSAGES[0].replace("waits", "stands")
    return mine(TrainingData([example], {"": [*PASSAGES, copy]}), **options)[""]


def test_near_copies_and_answers_are_no_negatives() -> None:
    """Neither the positive, nor a near-copy, nor a passage with the answer is mined; the rest comes hardest first."""
    (found,) = mined_birds().examples
    assert found.positives == (0,)
    assert found.negatives[0] == 1
    assert {0, 5}.isdisjoint(found.negatives)
    assert {0, 5} <= set(found.candidates)
    (answered,) = mined_birds(answers=("dawn",)).examples
    assert 1 not in answered.negatives
    (partly,) = mined_birds(answers=("daw",)).examples
    assert 1 in partly.negatives


class Placed(Embeddings):
    """Gives each known text the vector it was made with, and the query the first axis."""

    def __init__(self, cosines: dict[str, float]) -> None:
        self.cosines = cosines

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[c := self.cosines.get(text, 0.1), (1 - c * c) ** 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]


def test_a_bi_encoder_adds_negatives_and_drops_likely_answers() -> None:
    """What only the bi-encoder finds is mined too; what it likes far better than the positive is not."""
    embeddings = Placed({PASSAGES[0]: 0.7, PASSAGES[4]: 0.75, PASSAGES[1]: 0.95})
    (found,) = mined_birds(embeddings=embeddings, k=3).examples
    assert 4 in found.negatives
    assert 1 not in found.negatives


class Counting(Placed):
    """Counts the passages it was given; its public settings are those of `Placed`."""

    _embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        Counting._embedded += len(texts)
        return super().embed_documents(texts)


@pytest.mark.parametrize("damage", [None, "not JSON", '{"key": 3}', "[]"])
def test_what_was_mined_is_kept(tmp_path: Path, damage: str | None) -> None:
    """Mining the same again reads the file; other data, another `k` or a damaged file is mined anew, alike."""
    Counting._embedded = 0
    options: dict[str, Any] = {"embeddings": Counting({PASSAGES[0]: 0.7}), "file": tmp_path / "mined.json"}
    first = mined_birds(**options)
    every = Counting._embedded
    assert every == len(first.passages)
    if damage is not None:
        options["file"].write_text(damage)
    assert mined_birds(**options).examples == first.examples
    assert Counting._embedded == every * (1 if damage is None else 2)
    assert mined_birds(**options, answers=("dawn",)).examples != first.examples
    mined_birds(**options, k=3)
    assert Counting._embedded == every * (3 if damage is None else 4)


def test_a_full_disk_under_what_was_mined_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what was mined cannot be kept, the error names the file and what to do."""

    def full(path: Any, content: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(mining, "write_whole", full)
    with pytest.raises(TrainingError, match=r"mined.json could not be written .*No space left.*free some space"):
        mined_birds(file=tmp_path / "mined.json")


def test_nothing_to_mine_is_an_error() -> None:
    """Where every query is left without a negative, training would teach nothing."""
    example = TrainingExample("heron", (PASSAGES[0],))
    with pytest.raises(InvalidInputError, match="no negatives were found for any of 1 queries"):
        mine(TrainingData([example], {"": [PASSAGES[0]]}))


def test_windows_hold_the_sentence_that_matters() -> None:
    """A window has its number of neighbouring sentences, the one nearest to the query among them."""
    passage = "One. Two birds sing. Three. A heron waits. Five."
    assert sentences(passage) == ("One.", "Two birds sing.", "Three.", "A heron waits.", "Five.")
    for seed in range(20):
        text = window("heron", passage, 2, lambda word: 1.0, random.Random(seed))
        assert "A heron waits." in text
        assert len(sentences(text)) == 2
    assert window("heron", passage, 0, lambda word: 1.0, random.Random(0)) == passage
    assert window("heron", passage, 9, lambda word: 1.0, random.Random(0)) == passage


def sampler(**options: Any) -> GroupSampler:
    """Groups of one query on herons."""
    return GroupSampler({"": mined_birds()}, {"": 1.0}, **{"negatives": 3, "window_sizes": (0,), **options})


def test_groups_are_a_function_of_their_place() -> None:
    """The same place gives the same group, another seed another; the positive comes first, no passage twice."""
    groups = [sampler().group(place) for place in range(30)]
    assert groups == [sampler().group(place) for place in range(30)]
    assert groups != [sampler(seed=1).group(place) for place in range(30)]
    assert len({str(group) for group in groups}) > 1
    for group in groups:
        texts = [passage for _, passage in group]
        assert texts[0] == PASSAGES[0]
        assert len(set(texts)) == len(texts) == 4


def test_a_group_is_full_where_passages_are_few() -> None:
    """A source with fewer passages than a group needs repeats some rather than failing."""
    assert len(sampler(negatives=12).group(0)) == 13


def test_shares_are_checked() -> None:
    """Shares name known sources and are positive; without any, the square root of the queries decides."""
    mined = {"a": mined_birds(), "b": mined_birds()}
    assert check_shares(None, mined) == {"a": 1.0, "b": 1.0}
    assert check_shares({"a": 2}, mined) == {"a": 2.0}
    with pytest.raises(InvalidInputError, match=r"shares names \['c'\]"):
        check_shares({"c": 1}, mined)
    with pytest.raises(InvalidInputError, match="at least 0"):
        check_shares({"a": -1}, mined)
    with pytest.raises(InvalidInputError, match="one must be above it"):
        check_shares({"a": 0}, mined)


def test_examples_of_one_unit_are_held_apart_together() -> None:
    """Which side an example is on depends on its title, where it has one, so that no passage is on both."""
    first, second = (TrainingExample(query, ("p",), source="s", unit="Heron") for query in ("a", "b"))
    sides = {is_held_apart(first, share / 10) for share in range(11)}
    assert sides == {True, False}
    assert all(is_held_apart(first, share / 10) == is_held_apart(second, share / 10) for share in range(11))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_both_sides_need_queries(share: float) -> None:
    """Nothing left to train or to validate on is an error that names the share."""
    with pytest.raises(InvalidInputError, match=f"held_apart={share}"):
        hold_apart({"": mined_birds()}, share=share, most=10)
