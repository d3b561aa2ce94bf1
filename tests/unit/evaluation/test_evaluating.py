"""Many queries with judgements: measures before and after, ceiling, ids, and what is refused."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as StockReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import create_rerank_retriever, extras
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ScoringError
from langchain_crossrerank.evaluation import evaluate
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.letters import (
    FOUND,
    QRELS,
    QUERIES,
    SCORES,
    CountingEncoder,
    FirstStage,
    measured,
    retriever,
    run,
)


@pytest.mark.parametrize("name", ["nDCG@10", "RR@10", "R@2", "AP", "P@1"])
def test_before_and_after_are_what_ir_measures_says(name: str) -> None:
    """Every query's values, their means and the difference are those of the two lists measured by hand."""
    row = run(measures=[name]).measures[0]
    before = measured(name, {"q1": "abcd", "q2": "cdab", "q3": "abc"})
    after = measured(name, {"q1": "dabc", "q2": "dabc", "q3": "abc"})
    assert row.name == name
    assert row.per_query == {key: pytest.approx((before[key], after[key]), abs=1e-9) for key in QRELS}
    assert row.before == pytest.approx(statistics.fmean(before.values()), abs=1e-9)
    assert row.after == pytest.approx(statistics.fmean(after.values()), abs=1e-9)
    assert row.difference == pytest.approx(row.after - row.before, abs=1e-12)
    assert row.low <= row.difference <= row.high


def test_the_usual_measures() -> None:
    """Without measures named, nDCG@10, RR@10 and recall at the number of candidates are taken, in this order."""
    assert [row.name for row in run().measures] == ["nDCG@10", "RR@10", "R@4"]


def test_what_a_result_says_about_the_run() -> None:
    """Counts, model, texts and times of every judged query are there; queries nobody judged are not run."""
    first_stage = FirstStage(FOUND)
    result = run(retriever(first_stage), {**QUERIES, "q4": "not judged"})
    assert (result.queries, result.empty, result.degraded, result.k, result.model) == (3, 0, 0, 4, "scripted")
    assert first_stage.asked == list(QUERIES.values())
    assert result.texts == QUERIES
    assert set(result.retrieve_ms) == set(result.rerank_ms) == set(QUERIES)
    assert min([*result.retrieve_ms.values(), *result.rerank_ms.values()]) >= 0
    assert set(result.latency_ms()) == {"retrieve_p50", "retrieve_p95", "rerank_p50", "rerank_p95"}


@pytest.mark.parametrize("name", ["nDCG@10", "RR@10", "AP", "P@1", "R@k"])
def test_the_ceiling_is_what_the_best_order_reaches(name: str) -> None:
    """A reranker that knows the grades reaches the ceiling, and any other stays below or on it."""
    grades = {text: QRELS[key] for key, text in QUERIES.items()}

    class Oracle(ScriptedCrossEncoder):
        sign = 1

        def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
            return [self.sign * float(grades[query].get(passage, 0)) for query, passage in (i.text_pair for i in batch)]

    oracle, worst = Oracle({}), Oracle({})
    worst.sign = -1
    rows = [run(retriever(model=model), measures=[name]).measures[0] for model in (oracle, worst, None)]
    assert rows[0].after == pytest.approx(rows[0].ceiling, abs=1e-12)
    assert len({row.ceiling for row in rows}) == 1
    assert all(row.after <= row.ceiling + 1e-12 and row.before <= row.ceiling + 1e-12 for row in rows)
    best = measured(name.replace("@k", "@4"), {"q1": "dbac", "q2": "cdab", "q3": "bac"})
    assert rows[0].ceiling == pytest.approx(statistics.fmean(best.values()), abs=1e-9)


def test_a_judged_query_without_results_counts_0() -> None:
    """It is measured, counted in `empty` and said in the foot, and the model is not asked."""
    model = CountingEncoder(SCORES)
    result = run(retriever({**FOUND, "second query": ""}, model))
    assert (result.queries, result.empty) == (3, 1)
    assert [row.per_query["q2"] for row in result.measures] == [(0.0, 0.0)] * 3
    assert result.measures[1].before == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert "second query" not in {query for query, _ in model.seen}
    assert "1 queries found nothing and count as 0" in result.to_text()


def test_nothing_found_at_all_is_a_result() -> None:
    """A first stage that finds nothing for any query scores zero and raises nothing."""
    result = run(retriever({}))
    assert (result.empty, result.k) == (3, 0)
    assert [(row.before, row.after, row.ceiling, row.p_value) for row in result.measures] == [(0.0, 0.0, 0.0, 1.0)] * 3


def test_a_judged_copy_of_another_document_is_not_lost() -> None:
    """Both lists have the same documents, also where the reranker would keep one of two with equal texts."""
    found = [Document("same", id="d1"), Document("same", id="d2"), Document("other", id="d3")]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: found)
    base = create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({"same": 1.0}))
    result = run(base, {"q": "x"}, {"q": {"d2": 1}}, measures=["R@k", "RR@10"])
    assert [(row.before, row.after, row.ceiling) for row in result.measures] == [(1, 1, 1), (0.5, 0.5, 1)]


def test_chunks_of_one_document_count_once() -> None:
    """Where several chunks carry one id, its best place counts, before and after."""
    chunks = [("a1", "A"), ("a2", "A"), ("b1", "B"), ("c1", "C"), ("b2", "B")]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(
        lambda _: [Document(text, metadata={"paper": name}) for text, name in chunks]
    )
    model = ScriptedCrossEncoder({"c1": 5.0, "b2": 4.0, "b1": 3.0, "a2": 2.0, "a1": 1.0})
    result = run(
        create_rerank_retriever(first_stage, model=model),
        {"q": "x"},
        {"q": {"B": 1}},
        measures=["RR@10", "R@2", "NumRet"],
        id_key="paper",
    )
    assert {row.name: row.per_query["q"] for row in result.measures} == {
        "RR@10": (1 / 2, 1 / 2),
        "R@2": (1.0, 1.0),
        "NumRet": (3.0, 3.0),
    }


@pytest.mark.parametrize(
    ("document", "id_key"),
    [
        (Document("x", id="7"), None),
        (Document("x", metadata={"_id": "7"}), None),
        (Document("x", id="7", metadata={"_id": "8"}), None),
        (Document("x", id="8", metadata={"number": 7}), "number"),
    ],
    ids=["Document.id", "_id", "Document.id before _id", "id_key"],
)
def test_where_a_documents_id_comes_from(document: Document, id_key: str | None) -> None:
    """`Document.id`, then metadata `_id`, or the key that was named and nothing else; numbers become text."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [document])
    base = create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({}))
    assert run(base, {"q": "x"}, {"q": {"7": 1}}, measures=["RR@10"], id_key=id_key).measures[0].after == 1


@pytest.mark.parametrize(("document", "id_key"), [(Document("no id"), None), (Document("no id", id="7"), "number")])
def test_a_document_without_id_is_refused(document: Document, id_key: str | None) -> None:
    """The error shows the document's text and both ways to set its id."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [document])
    with pytest.raises(InvalidInputError, match=r"no id to match judgements with \('no id'\).*Document\.id.*id_key="):
        run(
            create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({})),
            {"q": "x"},
            {"q": {"7": 1}},
            id_key=id_key,
        )


@pytest.mark.parametrize("top_n", [1, 2, None])
def test_top_n_does_not_limit_the_measures(top_n: int | None) -> None:
    """All candidates are reranked and measured, and the retriever's own reranker stays as it was."""
    base = retriever(top_n=top_n)
    result = run(base, measures=["nDCG@10", "R@k"])
    assert result.measures == run(retriever(top_n=4), measures=["nDCG@10", "R@k"]).measures
    assert result.measures[1].after == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert base.base_compressor.top_n == top_n  # type: ignore[attr-defined]


def test_the_score_threshold_counts() -> None:
    """What the threshold drops is not there after reranking, as it would not be for a user."""
    result = run(retriever(score_threshold=2.5), measures=["R@k", "RR@10"])
    assert {key: after for key, (_, after) in result.measures[0].per_query.items()} == {"q1": 0.5, "q2": 0.0, "q3": 0.0}
    assert result.measures[0].per_query["q1"][0] == 1


def test_a_degraded_query_is_counted() -> None:
    """A failing model with `on_error="keep_order"` leaves the first stage's values, counted and said in the foot."""
    model = CountingEncoder(SCORES, fails_on="first query")
    result = run(retriever(model=model, on_error="keep_order"))
    assert result.degraded == 1
    assert all(row.per_query["q1"][0] == row.per_query["q1"][1] for row in result.measures)
    assert result.measures[0].per_query["q2"][0] > result.measures[0].per_query["q2"][1]
    foot = "1 queries kept the first stage's order because the model failed"
    assert foot in result.to_text()
    assert foot in html.unescape(result._repr_html_())


def test_a_failing_model_ends_the_evaluation() -> None:
    """Without `keep_order` a failure is an error and not a bad score."""
    with pytest.raises(ScoringError, match="the model is down"):
        run(retriever(model=CountingEncoder(SCORES, fails_on="second query")))


@pytest.mark.parametrize("module", ["ir_measures", "matplotlib", "tqdm"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without a module of the `eval` extra nothing is run, and the error has the line that installs it."""
    first_stage = FirstStage(FOUND)
    base = retriever(first_stage)

    def without(name: str) -> ModuleSpec | None:
        return None if name == module else find_spec(name)

    monkeypatch.setattr(extras, "find_spec", without)
    with pytest.raises(
        MissingExtraError, match=rf'{module} is needed.*pip install "langchain-crossrerank\[eval\]"'
    ) as caught:
        run(base)
    assert (caught.value.extra, caught.value.backend) == ("eval", "eval")
    assert first_stage.asked == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"qrels": {}}, "qrels is empty"),
        ({"qrels": {"q1": {"a": 1}, "q9": {"a": 1}}}, r"queries that have no text: \['q9'\]"),
        ({"measures": ["nDCG@10", "xyz@3"]}, "'xyz@3' is not a measure"),
        ({"measures": ["P"]}, "'P'"),
        ({"measures": []}, "measures"),
        ({"measures": "nDCG@10"}, "measures"),
        ({"qrels": {"q1": {1: 1}}}, "qrels"),
        ({"qrels": {"q1": {"a": 0.5}}}, "qrels"),
        ({"qrels": {"q1": ["a"]}}, "qrels"),
        ({"qrels": {1: {"a": 1}}, "queries": {1: "first query"}}, "qrels"),
    ],
    ids=[
        *("no judgements", "no text", "unknown measure", "measure without depth", "no measures", "measures as text"),
        *("number as document id", "fraction as grade", "list of ids", "number as query id"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments: dict[str, Any], complaint: str) -> None:
    """What cannot be measured is found out before the first query, not after the last."""
    first_stage = FirstStage(FOUND)
    with pytest.raises(InvalidInputError, match=complaint):
        run(retriever(first_stage), **arguments)
    assert first_stage.asked == []


@pytest.mark.parametrize(
    "base",
    [
        RunnableLambda(lambda _: [Document("a")]),
        ContextualCompressionRetriever(
            base_compressor=StockReranker(model=ScriptedCrossEncoder({})),
            base_retriever=RunnableLambda(lambda _: [Document("a")]),
        ),
    ],
    ids=["runnable", "stock compressor"],
)
def test_a_retriever_without_our_reranker_is_refused(base: Any) -> None:
    """There is nothing to compare with, and the error says what to pass."""
    with pytest.raises(InvalidInputError, match=r"no CrossEncoderReranker.*create_rerank_retriever"):
        run(base)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_on_standard_error(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar is on standard error or nowhere, and never in a program's output."""
    evaluate(retriever(), QUERIES, QRELS, show_progress=shown)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("Evaluating" in output.err) is shown
