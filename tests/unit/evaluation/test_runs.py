"""Runs read from files, and first stages made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import Collection, load_run, run_retriever
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.conftest import Write, json_lines

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")


@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore\n", "qid\tdocid\tscore\n", "query_id\td\ts\n"])
def test_a_run_is_sorted_by_its_scores(write: Write, header: str) -> None:
    """With scores the best comes first, whatever the order of the lines; equal scores keep that order."""
    file = write(f"{header}q1\ta\t-1.5\nq2\tx\t0\nq1\tb\t1e2\nq1\tc\t-1.5\n")
    assert load_run(file) == {"q1": [("b", 100.0), ("a", -1.5), ("c", -1.5)], "q2": [("x", 0.0)]}


def test_a_run_may_name_its_documents_first(write: Write) -> None:
    """Columns go by their names; one that may be the documents' and stands before the query's is not guessed at."""
    rows = "a\tq1\t1\nb\tq1\t2\n"
    assert load_run(write(f"docid\tqid\tscore\n{rows}")) == {"q1": [("b", 2.0), ("a", 1.0)]}
    with pytest.raises(InvalidInputError, match=r"line 2: .* it has none of the keys 'docno', .*; rename one"):
        load_run(write(f"found\tqid\tscore\n{rows}"))


def test_a_run_without_scores_keeps_the_order_of_its_lines(write: Write) -> None:
    """Two columns are enough; scores then fall by one for each query from 0."""
    file = write("query-id\tcorpus-id\nq1\tb\nq2\tx\nq1\ta\nq1\tc\n")
    assert load_run(file) == {"q1": [("b", -0.0), ("a", -1.0), ("c", -2.0)], "q2": [("x", -0.0)]}


def test_a_rank_column_before_the_score_is_read_over(write: Write) -> None:
    """The score is the last column, so that a rank between does not turn the order."""
    file = write("query-id\tcorpus-id\trank\tscore\nq1\ta\t1\t15.75\nq1\tb\t2\t15.5\nq1\tc\t3\t2.25\n")
    assert load_run(file) == {"q1": [("a", 15.75), ("b", 15.5), ("c", 2.25)]}


@pytest.mark.parametrize("line", ["q1", "q1 d1 1", "q1\td1\tbest", "q1\td1\t", "q1\td1\tnan"])
def test_a_malformed_line_of_a_run_is_named(write: Write, line: str) -> None:
    """A line that is not two ids and a number that can be ordered is named with its number."""
    file = write(f"query-id\tcorpus-id\tscore\nq1\td2\t1\n{line}\n")
    with pytest.raises(InvalidInputError) as caught:
        load_run(file)
    assert f"{file}, line 3: {line!r} is not query-id, corpus-id and score" in str(caught.value)


def test_a_fixed_run_gives_its_documents_in_order(collection: Collection) -> None:
    """Each query's text returns the run's documents, with their scores added to their metadata."""
    found = run_retriever(collection, {"q1": [("d3", 2.5), ("d1", 1.0)]}).invoke("first")
    assert [(document.id, document.page_content) for document in found] == [("d3", "text d3"), ("d1", "text d1")]
    assert [document.metadata for document in found] == [
        {"source": "d3.txt", "initial_score": 2.5},
        {"source": "d1.txt", "initial_score": 1.0},
    ]
    assert [document.metadata for document in collection.documents] == [{"source": f"d{i}.txt"} for i in (1, 2, 3)]


def test_a_fixed_run_may_be_scores_by_document(collection: Collection) -> None:
    """A run as `ir_measures` has it is sorted by its scores before it is cut."""
    first_stage = run_retriever(collection, {"q1": {"d1": 1.0, "d2": 9.0, "d3": 5.0}}, k=2)
    assert [document.id for document in first_stage.invoke("first")] == ["d2", "d3"]


@pytest.mark.parametrize(
    ("k", "ids"), [(1, ["d3"]), (2, ["d3", "d2"]), (3, ["d3", "d2", "d1"]), (9, ["d3", "d2", "d1"])]
)
def test_a_fixed_run_is_cut_at_k(collection: Collection, k: int, ids: list[str]) -> None:
    """The first `k` documents of the run are given, or all there are."""
    first_stage = run_retriever(collection, {"q1": [("d3", 3.0), ("d2", 2.0), ("d1", 1.0)]}, k=k)
    assert [document.id for document in first_stage.invoke("first")] == ids


def test_a_query_that_the_run_lacks_finds_nothing(collection: Collection) -> None:
    """A query without lines in the run, and an unknown text, return an empty list."""
    first_stage = run_retriever(collection, {"q1": [("d1", 1.0)]})
    assert first_stage.invoke("second") == []
    assert first_stage.invoke("something else") == []


def test_a_run_with_unknown_documents_is_refused(collection: Collection) -> None:
    """A run over another corpus is found out at once, with the query and the ids."""
    with pytest.raises(InvalidInputError, match=r"the run of query 'q1' names \['d8', 'd9'\], which the corpus lacks"):
        run_retriever(collection, {"q1": [("d8", 3.0), ("d1", 2.0), ("d9", 1.0)]})


def test_queries_with_the_same_text_are_refused(collection: Collection) -> None:
    """A Runnable knows a query by its text alone, so two ids with one text cannot be distinguished."""
    twins = Collection(collection.documents, {"q1": "same", "q2": "same"}, collection.qrels)
    with pytest.raises(InvalidInputError, match="the query 'same' comes twice"):
        run_retriever(twins, {"q1": [("d1", 1.0)], "q2": [("d2", 1.0)]})


def test_a_fixed_run_serves_as_first_stage(collection: Collection) -> None:
    """The Runnable can be passed to `create_rerank_retriever`."""
    first_stage = run_retriever(collection, {"q1": [("d3", 3.0), ("d2", 2.0), ("d1", 1.0)]})
    model = ScriptedCrossEncoder({"text d1": 2.0, "text d2": 1.0})
    found = create_rerank_retriever(first_stage, model=model, top_n=2).invoke("first")
    assert [(document.id, document.metadata["initial_rank"]) for document in found] == [("d1", 3), ("d2", 2)]


@pytest.mark.parametrize("header", ["", "qid\tpid\trank\n", "query-id\tcorpus-id\trank\n"])
def test_ms_marco_ranks_are_ranks(write: Write, header: str) -> None:
    """A third column that counts up from 1 holds ranks, with or without a name, and 1 is the best."""
    file = write(f"{header}q1\ta\t1\nq1\tb\t2\nq1\tc\t3\nq2\tb\t1\n")
    assert {key: [name for name, _ in found] for key, found in load_run(file).items()} == {
        "q1": list("abc"),
        "q2": ["b"],
    }


def test_ranks_may_have_gaps_and_any_order(write: Write) -> None:
    """Ranks that were filtered still rise, and the numbers 1 to n in mixed order are ranks."""
    assert [name for name, _ in load_run(write("q\ta\t2\nq\tb\t5\nq\tc\t9\n"))["q"]] == ["a", "b", "c"]
    assert [name for name, _ in load_run(write("q\ta\t2\nq\tb\t3\nq\tc\t1\n"))["q"]] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("lines", "reason", "best"),
    [
        ("q\ta\t3\nq\tb\t2\nq\tc\t1\n", "counts down to 1", "a"),
        ("q\ta\t0.25\nq\tb\t0.5\n", "rise in every query", "b"),
        ("q\ta\t2\nq\tb\t1\nq\tc\t5\np\ta\t1\np\tb\t2\n", "whole and neither rise nor fall", "c"),
    ],
    ids=["down to 1", "rising fractions", "one query out of order"],
)
def test_what_may_be_rank_or_score_is_refused(write: Write, lines: str, reason: str, best: str) -> None:
    """Where both readings are sensible, the remedy is a header; with it the file is read."""
    with pytest.raises(InvalidInputError, match=rf"{reason}.*name the columns in a first line"):
        load_run(write(lines))
    named = write(f"query-id\tcorpus-id\tscore\n{lines}")
    assert load_run(named)["q"][0][0] == best


def test_ranks_may_be_shared(write: Write) -> None:
    """Documents with one rank keep the order of their lines, and do not turn the list upside down."""
    file = write("q1\td1\t1\nq1\td2\t1\nq1\td3\t3\nq1\td4\t4\nq2\td1\t1\nq2\td2\t1\n")
    assert {key: [name for name, _ in found] for key, found in load_run(file).items()} == {
        "q1": ["d1", "d2", "d3", "d4"],
        "q2": ["d1", "d2"],
    }


def test_whole_numbers_that_fall_are_scores(write: Write) -> None:
    """The number of matching words, best first, needs no header."""
    assert load_run(write("q\ta\t9\nq\tb\t9\nq\tc\t4\n")) == {"q": [("a", 9.0), ("b", 9.0), ("c", 4.0)]}


@pytest.mark.parametrize("key", ["rank", "position", "pos", "Place"])
def test_ranks_are_read_under_the_keys_people_use(write: Write, key: str) -> None:
    """The least rank is the best, whatever the order of the lines."""
    file = write(f"qid\tpid\t{key}\nq\ta\t3\nq\tb\t1\nq\tc\t2\n")
    assert [name for name, _ in load_run(file)["q"]] == ["b", "c", "a"]


@pytest.mark.parametrize(("key", "value"), [("bm25", 1.5), ("distance", "0.9"), ("cosine", 1)])
def test_a_number_under_an_unknown_name_is_refused(write: Write, key: str, value: object) -> None:
    """What may be a score is not dropped for the order of the lines: line, key, value and remedy are named."""
    file = write(json_lines([{"query_id": "q", "doc_id": "a", key: value}]), "run.jsonl")
    with pytest.raises(
        InvalidInputError, match=rf"line 1: .*{key!r} is {value!r}, and may be a score.*rename it score"
    ):
        load_run(file)


def test_a_table_without_scores_may_have_other_columns(write: Write) -> None:
    """An index, an iteration, a tag and texts order nothing; with a score, other numbers do not matter."""
    rows = ",query_id,iter,doc_id,title,tag\n0,q,0,a,One,x\n1,q,0,b,Two,x\n"
    assert [name for name, _ in load_run(write(rows, "run.csv"))["q"]] == ["a", "b"]
    rows = "query_id,doc_id,score,bm25\nq,a,1,9\nq,b,2,8\n"
    assert [name for name, _ in load_run(write(rows, "run.csv"))["q"]] == ["b", "a"]


@pytest.mark.parametrize("key", ["score", "rank"])
def test_a_score_or_rank_without_a_value_is_refused(write: Write, key: str) -> None:
    """A null is not replaced by the place of its line, and neither is a key that only some records have."""
    rows = [{"query_id": "q", "doc_id": name, key: value} for name, value in (("a", 12.0), ("b", None), ("c", -3.0))]
    with pytest.raises(InvalidInputError, match=rf"line 2: .*{key} is None \(None is not a number; write one"):
        load_run(write(json_lines(rows), "run.jsonl"))
    del rows[1][key]
    with pytest.raises(InvalidInputError, match=rf"line 2: .* has neither score nor rank, .* before it have a {key}"):
        load_run(write(json_lines(rows), "run.jsonl"))


def test_document_numbers_of_pyterrier_are_no_ids(write: Write) -> None:
    """Its results have the place in the index as `docid` and the document's own id as `docno`."""
    file = write("qid,docid,docno,rank,score,query\n1,0,d9,0,12.5,x\n1,7,d3,1,11,x\n", "results.csv")
    assert load_run(file) == {"1": [("d9", 12.5), ("d3", 11.0)]}


def test_a_number_that_no_float_holds_is_refused(write: Write) -> None:
    """A score of 400 digits is an input error that names its place."""
    with pytest.raises(InvalidInputError, match=r"run\.json, key 'q': .*the number is too large"):
        load_run(write({"q": {"a": 10**400}}, "run.json"))


@pytest.mark.parametrize("second", ["Q0", "0", "1", "q0", "anything"])
@pytest.mark.parametrize("between", [" ", "\t"])
def test_a_trec_run_may_have_anything_in_its_second_column(write: Write, second: str, between: str) -> None:
    """Six columns are a TREC run, whatever the second is, and its score decides and not its rank."""
    lines = [("q1", second, "a", "2", "0.5", "tag"), ("q1", second, "b", "1", "0.75", "tag")]
    file = write("".join(between.join(line) + "\n" for line in lines))
    assert load_run(file) == {"q1": [("b", 0.75), ("a", 0.5)]}


def test_ties_in_a_trec_run_are_ordered_as_trec_eval_does(tmp_path: Path) -> None:
    """The measure of the list that is read is the one that `ir-measures` computes from the file itself."""
    qrels = {"q": {"b": 1}}
    scores = {"a": 1.0, "b": 1.0, "c": 1.0 + 1e-9, "d": 2.0}
    file = tmp_path / "ties.run"
    file.write_text("".join(f"q Q0 {name} 0 {score!r} tag\n" for name, score in scores.items()))
    assert [name for name, _ in load_run(file)["q"]] == ["d", "c", "b", "a"]
    (value,) = ir_measures.iter_calc([ir_measures.parse_measure("RR")], qrels, {"q": scores})
    assert value.value == pytest.approx(1 / 3)


def test_a_run_may_be_json(write: Write) -> None:
    """Scores by document by query, lists of ids, and rows with named keys are all runs."""
    expected = {"q": ["b", "a"]}
    forms = [
        {"q": {"a": 0.5, "b": 1}},
        {"q": ["b", "a"]},
        [{"qid": "q", "docid": "a", "score": 0.5}, {"qid": "q", "docid": "b", "score": 1}],
        [{"query_id": "q", "doc_id": "a", "rank": 2}, {"query_id": "q", "doc_id": "b", "rank": 1}],
    ]
    for content in forms:
        found = load_run(write(content, "run.json"))
        assert {key: [name for name, _ in listed] for key, listed in found.items()} == expected


def test_a_document_twice_in_a_list_is_named(write: Write) -> None:
    """A list with a document at two places is not a ranking."""
    with pytest.raises(InvalidInputError, match=r"line 3: the document 'a' comes twice for the query 'q1'"):
        load_run(write("q1\ta\t3\nq1\tb\t2\nq1\ta\t1.5\n"))


def test_a_first_stage_identifies_its_run(collection: Collection) -> None:
    """Two runs have two keys, and the same run always has the same one."""
    keys = [
        run_retriever(collection, {"q1": [(name, score)]}).run_key  # type: ignore[attr-defined]
        for name, score in (("d1", 1.0), ("d1", 1.0), ("d2", 1.0), ("d1", 2.0))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_first_stage_identifies_its_metadata(collection: Collection) -> None:
    """A template may read metadata, so other metadata is another first stage."""
    run = {"q1": [("d1", 1.0)]}
    before = run_retriever(collection, run).run_key  # type: ignore[attr-defined]
    collection.documents[0].metadata["source"] = "moved.txt"
    assert run_retriever(collection, run).run_key != before  # type: ignore[attr-defined]
