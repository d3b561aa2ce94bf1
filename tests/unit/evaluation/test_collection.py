"""Collections read from BEIR folders, and first stages made of fixed runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import Collection, load_beir, load_qrels, load_run, run_retriever
from langchain_crossrerank.testing import ScriptedCrossEncoder

CORPUS = [
    {"_id": "d1", "title": "LoRA", "text": "Low-rank adaptation.", "metadata": {"page": 3}},
    {"_id": "d2", "title": "", "text": "A ferry leaves at nine."},
    {"_id": "d3", "text": "Straße, 東京, 🙂"},
    {"_id": "d4", "title": "Only a title"},
]
QUERIES = [
    {"_id": "q1", "text": "What is LoRA?", "metadata": {"origin": "drafted"}},
    {"_id": "q2", "text": "When does the ferry leave?"},
    {"_id": "q3", "text": "nobody judged this"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\n"


def json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_beir(folder: Path, **files: str | bytes | None) -> Path:
    """Write a good folder, with some files given otherwise, or left out where they are `None`."""
    contents: dict[str, str | bytes | None] = {
        "corpus": json_lines(CORPUS),
        "queries": json_lines(QUERIES),
        "qrels": QRELS,
        **files,
    }
    for name, content in contents.items():
        file = folder / ("qrels.tsv" if name == "qrels" else f"{name}.jsonl")
        if content is not None:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write(folder: Path, text: str) -> Path:
    file = folder / "lines.tsv"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def collection() -> Collection:
    """Three documents, one query with a run and one without."""
    documents = [Document(f"text {key}", id=key, metadata={"source": f"{key}.txt"}) for key in ("d1", "d2", "d3")]
    return Collection(documents, {"q1": "first", "q2": "second"}, {"q1": {"d1": 1}, "q2": {"d2": 1}})


def test_a_good_folder_is_read_whole(tmp_path: Path) -> None:
    """Documents keep ids, order and metadata, the title stands before the text, and queries without grades go."""
    collection = load_beir(write_beir(tmp_path))
    assert collection.documents == [
        Document("LoRA\nLow-rank adaptation.", id="d1", metadata={"page": 3}),
        Document("A ferry leaves at nine.", id="d2"),
        Document("Straße, 東京, 🙂", id="d3"),
        Document("Only a title", id="d4"),
    ]
    assert collection.queries == {"q1": "What is LoRA?", "q2": "When does the ferry leave?"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_the_folder_may_be_a_string_and_the_judgements_another_file(tmp_path: Path) -> None:
    """`qrels` names the file of judgements inside the folder, for example `qrels/test.tsv`."""
    write_beir(tmp_path, qrels=None)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    assert load_beir(str(tmp_path), qrels="qrels/test.tsv").qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_line_ends_blank_lines_and_numeric_ids_do_not_matter(tmp_path: Path) -> None:
    """Windows line ends and blank lines are read over, and ids written as numbers are the same ids."""
    folder = write_beir(
        tmp_path,
        corpus='{"_id": 1, "text": "one"}\r\n\r\n{"_id": "2", "text": "two"}',
        queries='\n{"_id": 7, "text": "which?"}\r\n',
        qrels="query-id\tcorpus-id\tscore\r\n7\t1\t1\r\n\r\n7\t2\t0\r\n",
    )
    collection = load_beir(folder)
    assert [document.id for document in collection.documents] == ["1", "2"]
    assert (collection.queries, collection.qrels) == ({"7": "which?"}, {"7": {"1": 1, "2": 0}})


@pytest.mark.parametrize("name", ["corpus", "queries", "qrels"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """The error says which file is not there and what a BEIR folder holds."""
    folder = write_beir(tmp_path, **{name: None})
    with pytest.raises(InvalidInputError, match=rf"there is no file .*{name}\.(jsonl|tsv).*a BEIR folder has"):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus", "queries"])
@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ('{"_id": "x", "text": ', "is not JSON"),
        ("plain text", "is not JSON"),
        ('["_id", "x"]', "is not an object with an _id"),
        ("3", "is not an object with an _id"),
        ('{"id": "x", "text": "no underscore"}', "is not an object with an _id"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, name: str, second_line: str, complaint: str) -> None:
    """The error names the file, the line's number and the line."""
    folder = write_beir(tmp_path, **{name: f'{{"_id": "a", "text": "good"}}\n{second_line}\n'})
    with pytest.raises(InvalidInputError) as caught:
        load_beir(folder)
    assert f"{folder / name}.jsonl, line 2: {second_line!r} {complaint}" in str(caught.value)


@pytest.mark.parametrize("name", ["corpus", "queries"])
@pytest.mark.parametrize(
    "row",
    ['{"_id": "x", "text": 5}', '{"_id": "x", "text": ["a"]}', '{"_id": null, "text": "a"}'],
    ids=["number", "list", "no id"],
)
def test_a_field_of_another_type_is_named_with_its_line(tmp_path: Path, name: str, row: str) -> None:
    """A text that is no string and an id that is null are refused with file and line, not taken as some text."""
    folder = write_beir(tmp_path, **{name: f'{{"_id": "a", "text": "good"}}\n{row}\n'})
    with pytest.raises(InvalidInputError, match=rf"{name}\.jsonl, line 2: "):
        load_beir(folder)


def test_metadata_that_is_no_object_is_named_with_its_line(tmp_path: Path) -> None:
    """Metadata of another type is refused with file and line."""
    folder = write_beir(tmp_path, corpus='{"_id": "d1", "text": "a", "metadata": "notes.txt"}\n')
    with pytest.raises(InvalidInputError, match=r"corpus\.jsonl, line 1: "):
        load_beir(folder)


@pytest.mark.parametrize("name", ["corpus", "queries", "qrels"])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, name: str) -> None:
    """Bytes that are not UTF-8 give an error that names the file and the encoding."""
    good = QRELS if name == "qrels" else '{"_id": "a", "text": "good"}\n'
    folder = write_beir(tmp_path, **{name: good.encode() + '{"_id": "b", "text": "café"}\n'.encode("latin-1")})
    with pytest.raises(InvalidInputError, match=rf"{name}\.(jsonl|tsv).*UTF-8"):
        load_beir(folder)


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    """The number in an error is the one that an editor shows, with blank lines counted."""
    with pytest.raises(InvalidInputError, match=r"corpus\.jsonl, line 4: "):
        load_beir(write_beir(tmp_path, corpus='{"_id": "d1", "text": "a"}\n\n \n{broken\n'))
    with pytest.raises(InvalidInputError, match=r"lines\.tsv, line 3: "):
        load_qrels(write(tmp_path, "query-id\tcorpus-id\tscore\n\nq1 d1 1\n"))
    with pytest.raises(InvalidInputError, match=r"lines\.tsv, line 3: "):
        load_run(write(tmp_path, "q1\td1\t1\n\nq1 d1 1\n"))


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_ids_must_be_unique(tmp_path: Path, name: str) -> None:
    """An id that comes twice is named with its second line, also where one of the two is written as a number."""
    folder = write_beir(tmp_path, **{name: json_lines([{"_id": "5", "text": "a"}, {"_id": 5, "text": "b"}])})
    with pytest.raises(InvalidInputError, match=rf"{name}\.jsonl, line 2: the id '5' comes twice"):
        load_beir(folder)


@pytest.mark.parametrize(
    "line",
    ["q1 d1 1", "q1\td1", "q1\td1\t", "q1\td1\t0.5", "q1\td1\trelevant", "q1\t0\t77\t1", "q1"],
    ids=["spaces", "two columns", "no score", "fraction", "word", "four columns of TREC", "one column"],
)
def test_a_malformed_judgement_is_named(tmp_path: Path, line: str) -> None:
    """A line that is not two ids and a whole number, separated by tabs, is named with its number."""
    file = write(tmp_path, f"query-id\tcorpus-id\tscore\nq1\td2\t1\n{line}\n")
    with pytest.raises(InvalidInputError) as caught:
        load_qrels(file)
    assert f"{file}, line 3: {line!r} is not query-id, corpus-id and a whole-number score" in str(caught.value)


def test_judgements_may_lack_the_header(tmp_path: Path) -> None:
    """Without a header the first line is a judgement, and grades may be negative or above 1."""
    assert load_qrels(write(tmp_path, "q1\td1\t3\nq1\td2\t-1\nq2\td1\t0\n")) == {
        "q1": {"d1": 3, "d2": -1},
        "q2": {"d1": 0},
    }


@pytest.mark.parametrize("again", ["q1\td1\t2", "q1\td1\t0"], ids=["the same grade", "another grade"])
def test_a_pair_judged_twice_is_named(tmp_path: Path, again: str) -> None:
    """Which of two grades holds is not for us to say, and the same one twice is a slip as well."""
    file = write(tmp_path, f"query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td1\t1\n{again}\n")
    with pytest.raises(InvalidInputError, match=r"line 4: 'q1' and 'd1' are judged twice; keep one line"):
        load_qrels(file)


@pytest.mark.parametrize(
    ("qrels", "complaint"),
    [
        (f"{QRELS}q9\td1\t1\n", r"qrels\.tsv judges queries that are not there: \['q9'\]"),
        (f"{QRELS}q1\td9\t1\nq2\td8\t0\n", r"judges 2 documents that the corpus lacks, for example \['d8', 'd9'\]"),
        ("query-id\tcorpus-id\tscore\n", r"qrels\.tsv holds no judgements"),
        ("", r"qrels\.tsv holds no judgements"),
    ],
    ids=["unknown query", "unknown documents", "header alone", "empty"],
)
def test_judgements_must_fit_the_collection(tmp_path: Path, qrels: str, complaint: str) -> None:
    """Judgements of unknown queries or documents, or none at all, are refused with the ids."""
    folder = write_beir(tmp_path, qrels=qrels)
    with pytest.raises(InvalidInputError, match=complaint):
        load_beir(folder)


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "qid\tdocid\tscore\n", "query_id\td\ts\n"])
def test_a_run_is_sorted_by_its_scores(tmp_path: Path, header: str) -> None:
    """With scores the best stands first, whatever the order of the lines; equal scores keep that order."""
    file = write(tmp_path, f"{header}q1\ta\t-1.5\nq2\tx\t0\nq1\tb\t1e2\nq1\tc\t-1.5\n")
    assert load_run(file) == {"q1": [("b", 100.0), ("a", -1.5), ("c", -1.5)], "q2": [("x", 0.0)]}


def test_a_run_without_scores_keeps_the_order_of_its_lines(tmp_path: Path) -> None:
    """Two columns are enough; scores then fall by one for each query from 0."""
    file = write(tmp_path, "query-id\tcorpus-id\nq1\tb\nq2\tx\nq1\ta\nq1\tc\n")
    assert load_run(file) == {"q1": [("b", -0.0), ("a", -1.0), ("c", -2.0)], "q2": [("x", -0.0)]}


def test_a_rank_column_before_the_score_is_read_over(tmp_path: Path) -> None:
    """The score is the last column, so that a rank between does not turn the order."""
    file = write(tmp_path, "query-id\tcorpus-id\trank\tscore\nq1\ta\t1\t15.75\nq1\tb\t2\t15.5\nq1\tc\t3\t2.25\n")
    assert load_run(file) == {"q1": [("a", 15.75), ("b", 15.5), ("c", 2.25)]}


@pytest.mark.parametrize("line", ["q1", "q1 d1 1", "q1\td1\tbest", "q1\td1\t", "q1\td1\tnan"])
def test_a_malformed_line_of_a_run_is_named(tmp_path: Path, line: str) -> None:
    """A line that is not two ids and a number that can be ordered is named with its number."""
    file = write(tmp_path, f"query-id\tcorpus-id\tscore\nq1\td2\t1\n{line}\n")
    with pytest.raises(InvalidInputError) as caught:
        load_run(file)
    assert f"{file}, line 3: {line!r} is not query-id, corpus-id and score" in str(caught.value)


@pytest.mark.parametrize("read", [load_qrels, load_run])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, read: Any) -> None:
    """A missing file, and a folder in its place, are input errors."""
    for path in (tmp_path / "missing.tsv", tmp_path):
        with pytest.raises(InvalidInputError, match="there is no file"):
            read(path)


def test_a_fixed_run_gives_its_documents_in_order(collection: Collection) -> None:
    """Each query's text gives the run's documents with their scores beside the metadata they had."""
    found = run_retriever(collection, {"q1": [("d3", 2.5), ("d1", 1.0)]}).invoke("first")
    assert [(document.id, document.page_content) for document in found] == [("d3", "text d3"), ("d1", "text d1")]
    assert [document.metadata for document in found] == [
        {"source": "d3.txt", "initial_score": 2.5},
        {"source": "d1.txt", "initial_score": 1.0},
    ]
    assert [document.metadata for document in collection.documents] == [{"source": f"d{i}.txt"} for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("k", "ids"), [(1, ["d3"]), (2, ["d3", "d2"]), (3, ["d3", "d2", "d1"]), (9, ["d3", "d2", "d1"])]
)
def test_a_fixed_run_is_cut_at_k(collection: Collection, k: int, ids: list[str]) -> None:
    """The first `k` documents of the run are given, or all there are."""
    first_stage = run_retriever(collection, {"q1": [("d3", 3.0), ("d2", 2.0), ("d1", 1.0)]}, k=k)
    assert [document.id for document in first_stage.invoke("first")] == ids


def test_a_query_that_the_run_lacks_finds_nothing(collection: Collection) -> None:
    """A query without lines in the run, and a text that is no query, give an empty list."""
    first_stage = run_retriever(collection, {"q1": [("d1", 1.0)]})
    assert first_stage.invoke("second") == []
    assert first_stage.invoke("something else") == []


def test_a_run_with_unknown_documents_is_refused(collection: Collection) -> None:
    """A run over another corpus is found out at once, with the query and the ids."""
    with pytest.raises(InvalidInputError, match=r"the run of query 'q1' names \['d8', 'd9'\], which the corpus lacks"):
        run_retriever(collection, {"q1": [("d8", 3.0), ("d1", 2.0), ("d9", 1.0)]})


def test_queries_with_the_same_text_are_refused(collection: Collection) -> None:
    """A Runnable knows a query by its text alone, so two ids with one text cannot be told apart."""
    twins = Collection(collection.documents, {"q1": "same", "q2": "same"}, collection.qrels)
    with pytest.raises(InvalidInputError, match="the query 'same' comes twice"):
        run_retriever(twins, {"q1": [("d1", 1.0)], "q2": [("d2", 1.0)]})


def test_a_fixed_run_serves_as_first_stage(collection: Collection) -> None:
    """The Runnable goes into `create_rerank_retriever` as it is."""
    first_stage = run_retriever(collection, {"q1": [("d3", 3.0), ("d2", 2.0), ("d1", 1.0)]})
    model = ScriptedCrossEncoder({"text d1": 2.0, "text d2": 1.0})
    found = create_rerank_retriever(first_stage, model=model, top_n=2).invoke("first")
    assert [(document.id, document.metadata["initial_rank"]) for document in found] == [("d1", 3), ("d2", 2)]
