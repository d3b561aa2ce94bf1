"""Many queries with judgements: measures before and after, verdict, ceiling, checkpoints, and how results are shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as StockReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import create_rerank_retriever, extras
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ScoringError
from langchain_crossrerank.evaluation import EvaluationResult, MeasureResult, evaluate
from langchain_crossrerank.testing import ScriptedCrossEncoder

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")

QUERIES = {"q1": "first query", "q2": "second query", "q3": "third query"}
FOUND = {"first query": "abcd", "second query": "cdab", "third query": "abc"}
QRELS = {"q1": {"d": 2, "b": 1}, "q2": {"c": 1, "z": 1}, "q3": {"b": 1}}
"""The first stage finds `FOUND`; by the scores below q1 gains, q2 loses, and q3 stays where it was."""

SCORES = {"d": 4.0, "a": 3.0, "b": 2.0, "c": 1.0}


class CountingEncoder(ScriptedCrossEncoder):
    """A scripted cross-encoder that counts the pairs it scored and may fail on a query."""

    def __init__(self, scores: dict[str, float], *, fails_on: str | None = None) -> None:
        super().__init__(scores)
        self.fails_on = fails_on
        self.seen: list[tuple[str, str]] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        for item in batch:
            if item.text_pair[0] == self.fails_on:
                raise RuntimeError("the model is down")
            self.seen.append(item.text_pair)
        return super()._score_batch(batch)


class FirstStage:
    """A first stage that gives one document for each letter noted down for a query, and keeps the queries asked."""

    def __init__(self, found: Mapping[str, str]) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, query: str) -> list[Document]:
        self.asked.append(query)
        return [Document(letter, id=letter) for letter in self.found.get(query, "")]


class Text(HTMLParser):
    """Collects the text of every cell and paragraph, and the classes, of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[str] = []
        self.classes: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.classes += [value or "" for name, value in attrs if name == "class"]

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def retriever(
    found: Mapping[str, str] | FirstStage = FOUND, model: CrossEncoder | None = None, **kwargs: Any
) -> ContextualCompressionRetriever:
    """Make a reranking retriever over a first stage of letters."""
    first_stage = found if isinstance(found, FirstStage) else FirstStage(found)
    return create_rerank_retriever(RunnableLambda(first_stage), model=model or ScriptedCrossEncoder(SCORES), **kwargs)


def run(
    base: ContextualCompressionRetriever | None = None,
    queries: Mapping[str, str] = QUERIES,
    qrels: dict[str, dict[str, int]] = QRELS,
    **kwargs: Any,
) -> EvaluationResult:
    """Evaluate quietly."""
    return evaluate(base or retriever(), queries, qrels, show_progress=False, **kwargs)


def measured(name: str, orders: Mapping[str, str], qrels: dict[str, dict[str, int]] = QRELS) -> dict[str, float]:
    """Ask `ir_measures` itself about lists of letters."""
    lists = {key: {letter: float(-place) for place, letter in enumerate(order)} for key, order in orders.items()}
    return {
        value.query_id: value.value for value in ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, lists)
    }


def differing(gains: Sequence[float]) -> EvaluationResult:
    """Evaluate one query for each gain: 1 puts the relevant document first, -1 takes it from there, 0 leaves it."""
    queries = {f"q{number}": f"query {number}" for number in range(len(gains))}
    found = {text: "ba" if gain < 0 else "ab" for text, gain in zip(queries.values(), gains, strict=True)}
    relevant = {key: "a" if gain == 0 else "b" for key, gain in zip(queries, gains, strict=True)}

    class ByQuery(ScriptedCrossEncoder):
        def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
            wants = {text: "b" if gain > 0 else "a" for text, gain in zip(queries.values(), gains, strict=True)}
            return [float(wants[item.text_pair[0]] == item.text_pair[1]) for item in batch]

    return run(
        retriever(found, ByQuery({})),
        queries,
        {key: {letter: 1} for key, letter in relevant.items()},
        measures=["RR@10"],
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


def test_latency_is_median_and_95th_percentile() -> None:
    """The figures of both stages are taken over the queries, by linear interpolation."""
    times = {str(number): float(number) for number in range(101)}
    result = EvaluationResult([], 101, 0, 0, 1, "m", times, {key: 2 * value for key, value in times.items()}, {})
    assert result.latency_ms() == {"retrieve_p50": 50, "retrieve_p95": 95, "rerank_p50": 100, "rerank_p95": 190}


@pytest.mark.parametrize(
    ("gains", "verdict", "words"),
    [
        ([1] * 10 + [0] * 2, "helped", "Reranking helped: RR@10 0.583 -> 1.000 (+0.417, "),
        ([-1] * 10 + [0] * 2, "hurt", "Reranking hurt: RR@10 1.000 -> 0.583 (-0.417, "),
        ([1, -1] * 6, "not distinguishable", "Reranking made no difference that these queries can tell from chance"),
        ([0] * 6, "not distinguishable", "Reranking made no difference that these queries can tell from chance"),
        ([1], "not distinguishable", "Reranking made no difference that these queries can tell from chance"),
    ],
    ids=["helped", "hurt", "mixed", "the same", "one query"],
)
def test_the_verdict_says_what_happened(gains: list[float], verdict: str, words: str) -> None:
    """Helped and hurt need more than chance; the sentence has the figures and the number of queries."""
    result = differing(gains)
    assert result.measures[0].verdict == verdict
    assert result.verdict.startswith(words)
    assert result.verdict.endswith(f", {len(gains)} queries).")
    assert "95 % interval" in result.verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.2, "helped"),
        (-0.2, -0.01, "hurt"),
        (-0.1, 0.1, "not distinguishable"),
        (0.0, 0.2, "not distinguishable"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    """An interval that touches zero tells nothing."""
    difference = (low + high) / 2
    assert MeasureResult("AP", 0.5, 0.5, 1.0, difference, low, high, 0.01, {}).verdict == verdict


def test_the_first_measure_decides() -> None:
    """The order of the measures is the order of the result, and its verdict is the first one's."""
    result = run(measures=["P@1", "R@2"])
    assert result.verdict.split(": ")[1].startswith("P@1 ")
    assert run(measures=["R@2", "P@1"]).verdict.split(": ")[1].startswith("R@2 ")


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
    """A first stage that finds nothing for any query gives zeros and no error."""
    result = run(retriever({}))
    assert (result.empty, result.k) == (3, 0)
    assert [(row.before, row.after, row.ceiling, row.p_value) for row in result.measures] == [(0.0, 0.0, 0.0, 1.0)] * 3


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
    """The error shows the document's text and both ways to give it an id."""
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
    assert foot in "".join(Text(result._repr_html_()).parts)


def test_a_failing_model_ends_the_evaluation() -> None:
    """Without `keep_order` a failure is an error and not a bad score."""
    with pytest.raises(ScoringError, match="the model is down"):
        run(retriever(model=CountingEncoder(SCORES, fails_on="second query")))


def test_extremes_are_the_largest_gains_and_losses() -> None:
    """Queries that moved stand with their differences, the farthest first; those that stayed are in neither list."""
    gained, lost = run(measures=["RR@10"]).extremes()
    assert [(key, pytest.approx(value)) for key, value in gained] == [("q1", 1 / 2)]
    assert [(key, pytest.approx(value)) for key, value in lost] == [("q2", 1 / 4 - 1)]
    mixed = EvaluationResult(
        [MeasureResult("AP", 0, 0, 1, 0, 0, 0, 1, {str(i): (0.5, i / 10) for i in range(11)})],
        11,
        0,
        0,
        1,
        "m",
        {},
        {},
        {},
    )
    gained, lost = mixed.extremes(2)
    assert ([key for key, _ in gained], [key for key, _ in lost]) == (["10", "9"], ["0", "1"])


def test_to_dict_goes_through_json() -> None:
    """The plain form is JSON with every field, the verdict and the latency."""
    result = run()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(plain) == {
        *("measures", "queries", "empty", "degraded", "k", "model", "retrieve_ms", "rerank_ms", "texts"),
        *("verdict", "latency_ms"),
    }
    assert plain["verdict"] == result.verdict
    assert plain["measures"][0]["per_query"]["q1"] == list(result.measures[0].per_query["q1"])


def test_the_text_form_has_the_figures() -> None:
    """Verdict, a row for each measure, the queries that gained and lost most, and the foot are there."""
    result = run(measures=["RR@10", "R@k"])
    lines = result.to_text().splitlines()
    assert str(result) == result.to_text()
    assert lines[0] == result.verdict
    row = result.measures[0]
    figures = [f"{row.before:.3f}", f"{row.after:.3f}", f"{row.ceiling:.3f}", f"{row.difference:+.3f}"]
    assert lines[4].split()[:5] == ["RR@10", *figures]
    assert lines[5].startswith("R@4 ")
    assert lines[lines.index("Gained most:") + 1] == "  +0.500  first query"
    assert lines[lines.index("Lost most:") + 1] == "  -0.750  second query"
    assert lines[-1].startswith("3 queries, 4 candidates at most, scripted; first stage ")


def test_the_html_form_has_the_figures() -> None:
    """The table has a row for each measure with its figures, its verdict's class, and the foot below."""
    result = differing([1] * 10)
    html = Text(result._repr_html_())
    row = result.measures[0]
    for figure in (
        f"{row.before:.3f}",
        f"{row.after:.3f}",
        f"{row.difference:+.3f}",
        f"{row.p_value:.2g}",
        result.verdict,
    ):
        assert figure in html.parts
    assert html.tags.count("tr") == 2
    # The cell, and the five queries that gained most.
    assert html.classes.count("up") == 1 + 5
    assert "10 queries, 2 candidates at most, scripted" in "".join(html.parts)
    assert Text(differing([-1] * 10)._repr_html_()).classes.count("down") == 1 + 5
    assert Text(differing([1, -1] * 5)._repr_html_()).classes.count("flat") == 1


def test_html_in_queries_names_and_models_is_text() -> None:
    """Nothing that a user or a model's name brings is read as markup, and it stays legible."""
    model = ScriptedCrossEncoder(SCORES)
    model.name = "<img src=x onerror=alert(1)>&co"
    evil = "<script>alert('q')</script>"
    result = run(retriever({evil: "ab"}, model), {"q": evil}, {"q": {"b": 1}})
    html = result._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert model.name in "".join(Text(html).parts)
    assert evil in result.to_text() or not any(result.extremes())


def test_the_plot_has_a_bar_for_each_query() -> None:
    """Bars fall from the largest gain to the largest loss, in the colours of gain, nothing and loss."""
    figure_module = pytest.importorskip("matplotlib.figure", reason="needs the eval extra")
    result = run(measures=["RR@10"])
    figure = result.plot()
    assert isinstance(figure, figure_module.Figure)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([1 / 2, 0, -3 / 4])
    assert len({bar.get_facecolor() for bar in axes.patches}) == 3
    assert axes.get_ylabel().startswith("RR@10")
    assert f"{result.measures[0].difference:+.3f}" in axes.get_title(loc="left")


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


def test_a_checkpoint_is_taken_up(tmp_path: Path) -> None:
    """After a failure the finished queries are not run again, and the result is that of one go."""
    checkpoint = tmp_path / "run.jsonl"
    first_stage = FirstStage(FOUND)
    with pytest.raises(ScoringError):
        run(retriever(first_stage, CountingEncoder(SCORES, fails_on="third query")), checkpoint=checkpoint)
    assert first_stage.asked == list(QUERIES.values())
    first_stage.asked.clear()
    model = CountingEncoder(SCORES)
    result = run(retriever(first_stage, model), checkpoint=checkpoint)
    assert first_stage.asked == ["third query"]
    assert {query for query, _ in model.seen} == {"third query"}
    assert result.measures == run().measures
    assert (result.queries, result.k, set(result.rerank_ms)) == (3, 4, set(QUERIES))


def test_a_finished_checkpoint_runs_nothing(tmp_path: Path) -> None:
    """A second call with the same file measures anew, also by other measures, without asking either stage."""
    checkpoint = tmp_path / "run.jsonl"
    first = run(checkpoint=str(checkpoint))
    first_stage = FirstStage(FOUND)
    again = run(retriever(first_stage), checkpoint=checkpoint, measures=["P@1"])
    assert first_stage.asked == []
    assert again.measures[0].per_query == run(measures=["P@1"]).measures[0].per_query
    assert again.rerank_ms == first.rerank_ms
    assert len(checkpoint.read_text().splitlines()) == 4


@pytest.mark.parametrize("cut", [1, 10, 60], ids=["the line end", "a few characters", "much of the line"])
def test_a_checkpoint_survives_a_cut_last_line(tmp_path: Path, cut: int) -> None:
    """What was being written when the run was killed is run again, and the file is whole afterwards."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    whole = checkpoint.read_text()
    checkpoint.write_text(whole[:-cut])
    first_stage = FirstStage(FOUND)
    result = run(retriever(first_stage), checkpoint=checkpoint)
    assert first_stage.asked == ["third query"]
    assert result.measures == run().measures
    assert [json.loads(line).get("query_id") for line in checkpoint.read_text().splitlines()] == [
        None,
        "q1",
        "q2",
        "q3",
    ]


@pytest.mark.parametrize("kept", [0, 9], ids=["empty", "cut in its first line"])
def test_a_checkpoint_cut_at_its_start_begins_anew(tmp_path: Path, kept: int) -> None:
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
    run(checkpoint=checkpoint, qrels={"q1": QRELS["q1"], "q3": QRELS["q3"]})
    first_stage = FirstStage(FOUND)
    result = run(retriever(first_stage), checkpoint=checkpoint, qrels={"q2": QRELS["q2"], "q1": QRELS["q1"]})
    assert first_stage.asked == ["second query"]
    assert list(result.measures[0].per_query) == ["q2", "q1"]


def test_a_checkpoint_notices_a_changed_query(tmp_path: Path) -> None:
    """A query whose text was corrected under the same id is run again."""
    checkpoint = tmp_path / "run.jsonl"
    run(checkpoint=checkpoint)
    first_stage = FirstStage({**FOUND, "first query, corrected": "dcba"})
    result = run(retriever(first_stage), {**QUERIES, "q1": "first query, corrected"}, checkpoint=checkpoint)
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
    """A path in a folder that is not there yet is no error."""
    run(checkpoint=tmp_path / "new" / "run.jsonl")
    assert (tmp_path / "new" / "run.jsonl").is_file()
