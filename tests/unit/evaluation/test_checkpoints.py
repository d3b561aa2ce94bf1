"""Checkpoints: what continues, and what is not mixed in."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.evaluation import Collection, evaluate, run_retriever
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.letters import (
    FOUND,
    QRELS,
    QUERIES,
    SCORES,
    CountingEncoder,
    FirstStage,
    retriever,
    run,
)

KEY = "the index of today"


def test_a_checkpoint_is_taken_up(tmp_path: Path) -> None:
    """After a failure the finished queries are not run again, and the result is that of one go."""
    checkpoint = tmp_path / "run.jsonl"
    first_stage = FirstStage(FOUND)
    with pytest.raises(ScoringError):
        run(retriever(first_stage, CountingEncoder(SCORES, fails_on="third query")), checkpoint=checkpoint, run_key=KEY)
    assert first_stage.asked == list(QUERIES.values())
    first_stage.asked.clear()
    model = CountingEncoder(SCORES)
    result = run(retriever(first_stage, model), checkpoint=checkpoint, run_key=KEY)
    assert first_stage.asked == ["third query"]
    assert {query for query, _ in model.seen} == {"third query"}
    assert result.measures == run().measures
    assert (result.queries, result.k, set(result.rerank_ms)) == (3, 4, set(QUERIES))


def test_a_finished_checkpoint_runs_nothing(tmp_path: Path) -> None:
    """A second call with the same file measures again, also by other measures, without asking either stage."""
    checkpoint = tmp_path / "run.jsonl"
    first = run(checkpoint=str(checkpoint), run_key=KEY)
    first_stage = FirstStage(FOUND)
    again = run(retriever(first_stage), checkpoint=checkpoint, run_key=KEY, measures=["P@1"])
    assert first_stage.asked == []
    assert again.measures[0].per_query == run(measures=["P@1"]).measures[0].per_query
    assert again.rerank_ms == first.rerank_ms
    assert len(checkpoint.read_text().splitlines()) == 4


@pytest.mark.parametrize("cut", [1, 10, 60], ids=["the line end", "a few characters", "much of the line"])
def test_a_checkpoint_survives_a_cut_last_line(tmp_path: Path, cut: int) -> None:
    """What was being written when the run was killed is run again, and the file is whole afterwards."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint, run_key=KEY)
    whole = checkpoint.read_text()
    checkpoint.write_text(whole[:-cut])
    first_stage = FirstStage(FOUND)
    result = run(retriever(first_stage), checkpoint=checkpoint, run_key=KEY)
    assert first_stage.asked == ["third query"]
    assert result.measures == run().measures
    assert [json.loads(line).get("query_id") for line in checkpoint.read_text().splitlines()] == [
        None,
        "q1",
        "q2",
        "q3",
    ]


@pytest.mark.parametrize("kept", [0, 9], ids=["empty", "cut in its first line"])
def test_a_checkpoint_cut_at_its_start_starts_over(tmp_path: Path, kept: int) -> None:
    """A run killed before its first line was whole has lost nothing."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    checkpoint.write_text(checkpoint.read_text()[:kept])
    first_stage = FirstStage(FOUND)
    assert run(retriever(first_stage), checkpoint=checkpoint).queries == 3
    assert first_stage.asked == list(QUERIES.values())
    assert len(checkpoint.read_text().splitlines()) == 4


def test_a_checkpoint_may_have_other_queries(tmp_path: Path) -> None:
    """Judging more queries later runs only the new ones; those that left are not measured."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint, run_key=KEY, qrels={"q1": QRELS["q1"], "q3": QRELS["q3"]})
    first_stage = FirstStage(FOUND)
    result = run(
        retriever(first_stage), checkpoint=checkpoint, run_key=KEY, qrels={"q2": QRELS["q2"], "q1": QRELS["q1"]}
    )
    assert first_stage.asked == ["second query"]
    assert list(result.measures[0].per_query) == ["q2", "q1"]


def test_a_checkpoint_notices_a_changed_query(tmp_path: Path) -> None:
    """A query whose text was corrected under the same id is run again."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint, run_key=KEY)
    first_stage = FirstStage({**FOUND, "first query, corrected": "dcba"})
    result = run(
        retriever(first_stage), {**QUERIES, "q1": "first query, corrected"}, checkpoint=checkpoint, run_key=KEY
    )
    assert first_stage.asked == ["first query, corrected"]
    assert result.measures[1].per_query["q1"][0] == 1


def renamed() -> ScriptedCrossEncoder:
    model = ScriptedCrossEncoder(SCORES)
    model.name = "another model"
    return model


@pytest.mark.parametrize(
    ("other", "arguments"),
    [
        (lambda: retriever(model=renamed()), {}),
        (lambda: retriever(score_threshold=1.0), {}),
        (lambda: retriever(passage_template="{page_content}!"), {}),
        (retriever, {"id_key": "_id"}),
    ],
    ids=["model", "threshold", "template", "id key"],
)
def test_another_runs_checkpoint_is_refused(tmp_path: Path, other: Any, arguments: dict[str, Any]) -> None:
    """A file of another model or setting is not mixed in, and stays as it was."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    before = checkpoint.read_text()
    with pytest.raises(InvalidInputError, match=r"belongs to another model, retriever or setting; delete it or name"):
        run(other(), checkpoint=checkpoint, **arguments)
    assert checkpoint.read_text() == before


@pytest.mark.parametrize(
    "content",
    ["my notes\n", "my notes", "[]\n", '{"_id": "d1", "text": "a corpus"}\n'],
    ids=["text", "line", "list", "corpus"],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: str) -> None:
    """A file of something else is named and not written over."""
    checkpoint = tmp_path / "notes.txt"
    checkpoint.write_text(content)
    with pytest.raises(InvalidInputError, match=r"notes\.txt"):
        run(checkpoint=checkpoint)
    assert checkpoint.read_text() == content


def test_a_binary_file_is_no_checkpoint(tmp_path: Path) -> None:
    """What is not even text is named in the same way, and stays as it was."""
    file = tmp_path / "picture"
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidInputError, match="picture' is not a checkpoint of evaluate"):
        evaluate(retriever(), QUERIES, QRELS, checkpoint=file, show_progress=False)
    assert file.read_bytes() == b"\x89PNG\xff\xfe"


def test_a_damaged_line_in_a_checkpoint_is_named(tmp_path: Path) -> None:
    """A line broken in the middle of the file is an input error with its number."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    lines = checkpoint.read_text().splitlines()
    checkpoint.write_text("\n".join([lines[0], lines[1], "garbage", lines[3], ""]))
    with pytest.raises(InvalidInputError, match=r"run\.jsonl.*line 3"):
        run(checkpoint=checkpoint)


def test_a_checkpoints_folder_is_made(tmp_path: Path) -> None:
    """A missing folder is created."""
    run(checkpoint=tmp_path / "new" / "run.jsonl")
    assert (tmp_path / "new" / "run.jsonl").is_file()


def test_without_a_key_finished_queries_are_searched_and_not_reranked(tmp_path: Path) -> None:
    """The first stage is asked again, to see that it finds the same; the model is not."""
    checkpoint = tmp_path / "run.jsonl"
    first = run(retriever(model=CountingEncoder(SCORES)), checkpoint=checkpoint)
    first_stage, model = FirstStage(FOUND), CountingEncoder(SCORES)
    assert run(retriever(first_stage, model), checkpoint=checkpoint).measures == first.measures
    assert first_stage.asked == list(QUERIES.values())
    assert model.seen == []


@pytest.mark.parametrize(
    "found",
    [{**FOUND, "third query": "acb"}, {**FOUND, "first query": "abc"}, {**FOUND, "second query": "cdae"}],
    ids=["another order", "fewer candidates", "another document"],
)
def test_a_changed_index_is_noticed(tmp_path: Path, found: dict[str, str]) -> None:
    """Figures of other candidates are never given back as this run's."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    with pytest.raises(InvalidInputError, match="now finds other documents for the query 'q"):
        run(retriever(found), checkpoint=checkpoint)


def test_a_changed_text_under_the_same_id_is_noticed(tmp_path: Path) -> None:
    """The candidates' texts count, and not only their ids."""
    checkpoint = tmp_path / "run.jsonl"
    texts = iter(["before", "after"])

    def base() -> ContextualCompressionRetriever:
        text = next(texts)
        first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [Document(text, id="a")])
        return create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({}))

    run(base(), {"q": "x"}, {"q": {"a": 1}}, checkpoint=checkpoint)
    with pytest.raises(InvalidInputError, match="now finds other documents for the query 'q'"):
        run(base(), {"q": "x"}, {"q": {"a": 1}}, checkpoint=checkpoint)


@pytest.mark.parametrize(("blend", "is_noticed"), [("weighted", True), ("rrf", False), (None, False)])
def test_changed_scores_are_noticed_where_they_are_blended(tmp_path: Path, blend: Any, is_noticed: bool) -> None:
    """The first stage's scores count if the reranker adds them; elsewhere they may differ from call to call."""

    def base(score: float) -> ContextualCompressionRetriever:
        found = [
            Document(letter, id=letter, metadata={"initial_score": score - place}) for place, letter in enumerate("ab")
        ]
        found[1].metadata["initial_score"] = 0.0
        return create_rerank_retriever(RunnableLambda(lambda _: found), model=ScriptedCrossEncoder({}), blend=blend)

    queries, qrels = {"q": "x"}, {"q": {"a": 1}}
    run(base(1.0), queries, qrels, checkpoint=tmp_path / "run.jsonl")
    with pytest.raises(InvalidInputError, match="now finds other") if is_noticed else nullcontext():
        run(base(2.0), queries, qrels, checkpoint=tmp_path / "run.jsonl")


def test_another_key_or_fixed_run_is_refused(tmp_path: Path) -> None:
    """A key of another index, and another run as the first stage, are seen from the first line."""
    run(checkpoint=tmp_path / "a", run_key=KEY)
    with pytest.raises(InvalidInputError, match="belongs to another model, retriever or setting"):
        run(checkpoint=tmp_path / "a", run_key="the index of tomorrow")
    documents = [Document(letter, id=letter) for letter in "abcd"]
    collection = Collection(documents, QUERIES, QRELS)
    one, other = (
        create_rerank_retriever(
            run_retriever(collection, {"q1": [(name, 1.0) for name in order]}), model=ScriptedCrossEncoder(SCORES)
        )
        for order in ("abcd", "dcba")
    )
    run(one, checkpoint=tmp_path / "b")
    assert run(one, checkpoint=tmp_path / "b").measures == run(one).measures
    with pytest.raises(InvalidInputError, match="belongs to another model, retriever or setting"):
        run(other, checkpoint=tmp_path / "b")


@pytest.mark.parametrize("field", ["before", "retrieve_ms", "degraded", "query", "candidates"])
def test_a_field_of_another_type_is_damage(tmp_path: Path, field: str) -> None:
    """A line that somebody changed by hand is read strictly, and named."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    head, first, *rest = checkpoint.read_text().splitlines()
    checkpoint.write_text("\n".join([head, json.dumps({**json.loads(first), field: {"x": 1}}), *rest, ""]))
    with pytest.raises(InvalidInputError, match=r"damaged in line 2"):
        run(checkpoint=checkpoint)
