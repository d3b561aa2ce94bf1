"""Quality for several numbers of candidates: scored once, read off for each, the knee and the advice."""

from __future__ import annotations

import html
import json
import re
import statistics
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import create_rerank_retriever, extras
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError
from langchain_crossrerank.evaluation import SweepResult, SweepRow, evaluate, sweep
from langchain_crossrerank.testing import ScriptedCrossEncoder

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")

NAMES = [f"t{number}" for number in range(12)]
QUERIES = {"q1": "one", "q2": "two", "q3": "three"}
ORDERS = {text: NAMES[start:] + NAMES[:start] for start, text in enumerate(QUERIES.values())}
QRELS = {"q1": {"t2": 2, "t7": 1, "t11": 1}, "q2": {"t5": 1, "t3": 3}, "q3": {"t1": 1, "t10": 2, "gone": 1}}
SCORES = {name: float(number * 7 % 12) for number, name in enumerate(NAMES)}


class CountingEncoder(ScriptedCrossEncoder):
    """A scripted cross-encoder that counts the pairs it scored."""

    def __init__(self, scores: dict[str, float]) -> None:
        super().__init__(scores)
        self.pairs: list[tuple[str, str]] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.pairs += [item.text_pair for item in batch]
        return super()._score_batch(batch)


def retriever(k: int = 12, model: ScriptedCrossEncoder | None = None, **kwargs: Any) -> ContextualCompressionRetriever:
    """Make a reranking retriever over a Runnable that always returns `k` candidates."""

    def first_stage(query: str) -> list[Document]:
        return [
            Document(name, id=name, metadata={"initial_score": -float(place**2)})
            for place, name in enumerate(ORDERS[query][:k])
        ]

    return create_rerank_retriever(RunnableLambda(first_stage), model=model or ScriptedCrossEncoder(SCORES), **kwargs)


def run(base: ContextualCompressionRetriever | None = None, **kwargs: Any) -> SweepResult:
    """Sweep quietly, without timing unless asked."""
    settings = {"ks": (2, 4, 8, 12), "timed_queries": 0, "show_progress": False, **kwargs}
    return sweep(base or retriever(), QUERIES, QRELS, **settings)


def rows(*qualities: float, times: Sequence[float] = (10, 20, 40, 80)) -> list[SweepRow]:
    """Make rows for k of 5, 10, 20 and so on."""
    return [
        SweepRow(5 * 2**place, quality, 1.0, times[place] / 2, times[place]) for place, quality in enumerate(qualities)
    ]


def test_scores_are_computed_once_for_the_largest_k() -> None:
    """Each candidate of the largest k is scored once a query, however many numbers are looked at."""
    model = CountingEncoder(SCORES)
    run(retriever(model=model))
    assert len(model.pairs) == len(set(model.pairs)) == 3 * 12


def test_timing_scores_again_on_a_few_queries() -> None:
    """Each k is timed on the first `timed_queries` queries alone, in addition to the one scoring of all."""
    model = CountingEncoder(SCORES)
    result = run(retriever(model=model), timed_queries=2)
    assert len(model.pairs) == 3 * 12 + 2 * (2 + 4 + 8 + 12)
    assert {query for query, _ in model.pairs[12 + 26 + 12 + 26 :]} == {"three"}
    assert all(0 <= row.p50_ms <= row.p95_ms for row in result.rows)


def test_without_timing_the_times_are_zero() -> None:
    """Without timed queries, times are 0 milliseconds and the quality is the same."""
    result = run()
    assert {(row.p50_ms, row.p95_ms) for row in result.rows} == {(0.0, 0.0)}
    assert [row.quality for row in result.rows] == [row.quality for row in run(timed_queries=1).rows]


@pytest.mark.parametrize("measure", ["nDCG@10", "RR@10", "AP"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"top_n": 1}, {"blend": "rrf", "blend_weight": 0.5}, {"blend": "weighted", "blend_weight": 0.5}],
    ids=str,
)
def test_a_row_is_what_a_separate_evaluation_gives(measure: str, settings: dict[str, Any]) -> None:
    """Quality and ceiling at each k are those of a retriever that fetches k candidates, blends included."""
    result = run(retriever(**settings), measure=measure, ks=range(1, 13))
    for row in result.rows:
        alone = evaluate(retriever(row.k, **settings), QUERIES, QRELS, measures=[measure], show_progress=False)
        assert row.quality == pytest.approx(alone.measures[0].after, abs=1e-12)
        assert row.ceiling == pytest.approx(alone.measures[0].ceiling, abs=1e-12)
    assert len({row.quality for row in result.rows}) > 1


def test_the_baseline_is_the_first_stage_at_the_largest_k() -> None:
    """Without reranking there is one figure, that of the whole candidate list."""
    alone = evaluate(retriever(), QUERIES, QRELS, measures=["nDCG@10"], show_progress=False)
    result = run()
    assert result.baseline == pytest.approx(alone.measures[0].before, abs=1e-12)
    assert (result.measure, result.model) == ("nDCG@10", "scripted")


def test_recall_of_the_kept_is_read_at_the_largest_k() -> None:
    """For each `top_n` the share of judged-relevant documents among the first `top_n` after reranking."""
    result = run(top_ns=(3, 1, 12, 3))
    evaluated = evaluate(retriever(), QUERIES, QRELS, measures=["R@1", "R@3", "R@12"], show_progress=False)
    assert list(result.top_n_recall) == [1, 3, 12]
    assert list(result.top_n_recall.values()) == pytest.approx([row.after for row in evaluated.measures])


def test_ks_are_sorted_and_taken_once() -> None:
    """The order of `ks` and what comes twice do not matter."""
    result = run(ks=[8, 2, 8, 4])
    assert [row.k for row in result.rows] == [2, 4, 8]
    assert [row.quality for row in result.rows] == [row.quality for row in run(ks=(2, 4, 8)).rows]


def test_the_ceiling_never_falls_and_no_row_passes_it() -> None:
    """More candidates can only hold more of what is relevant."""
    result = run(measure="R@100")
    ceilings = [row.ceiling for row in result.rows]
    assert ceilings == sorted(ceilings)
    assert all(row.quality <= row.ceiling for row in result.rows)


def test_a_first_stage_that_takes_k_is_asked_for_the_largest() -> None:
    """A vector store retriever set to few candidates returns as many as the largest k, once for each query."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([Document(name, id=name) for name in NAMES])
    model = CountingEncoder(SCORES)
    result = run(create_rerank_retriever(store, model=model, k=3, top_n=2), ks=(3, 10))
    assert len(model.pairs) == 3 * 10
    for row in result.rows:
        at_k = create_rerank_retriever(store, model=model, k=row.k, top_n=2)
        alone = evaluate(at_k, QUERIES, QRELS, measures=["nDCG@10"], show_progress=False)
        assert row.quality == pytest.approx(alone.measures[0].after, abs=1e-12)


def test_a_first_stage_that_does_not_take_k_is_cut() -> None:
    """A Runnable is called with the query alone, and what it returns beyond the largest k is left out."""
    asked: list[Any] = []

    def first_stage(query: str) -> list[Document]:
        asked.append(query)
        return [Document(name, id=name) for name in NAMES]

    model = CountingEncoder(SCORES)
    result = run(create_rerank_retriever(RunnableLambda(first_stage), model=model), ks=(2, 5))
    assert asked == list(QUERIES.values())
    assert {passage for _, passage in model.pairs} == set(NAMES[:5])
    cut = create_rerank_retriever(RunnableLambda(lambda query: first_stage(query)[:5]), model=model)
    alone = evaluate(cut, QUERIES, QRELS, measures=["nDCG@10"], show_progress=False).measures[0]
    assert (result.baseline, result.rows[-1].quality) == (alone.before, alone.after)


@pytest.mark.parametrize(
    ("found", "ks", "reached"),
    [(8, (2, 8, 50, 100), [2, 8]), (5, (2, 4, 8, 12), [2, 4, 5]), (12, (4, 12), [4, 12])],
    ids=["at one of them", "between two of them", "all"],
)
def test_there_is_no_row_beyond_the_longest_list(found: int, ks: tuple[int, ...], reached: list[int]) -> None:
    """The last row is that of the longest list, and what was not reached is said."""
    result = run(retriever(found), ks=ks, measure="R@k", timed_queries=1)
    assert [row.k for row in result.rows] == reached
    assert result.measure == f"R@{reached[-1]}"
    alone = evaluate(retriever(found), QUERIES, QRELS, measures=["R@k"], show_progress=False).measures[0]
    assert result.rows[-1].quality == alone.after
    doubts = [text for text in result.doubts if "candidates at most" in text]
    assert len(doubts) == (ks[-1] > found)
    assert all(f"k={k}" in text for text in doubts for k in ks if k > found)


def test_a_query_that_finds_itself_takes_a_place_in_every_row() -> None:
    """The ceiling and the reranked list at k are of the same candidates, the best k with the query among them."""
    found = [Document("one", id="q1"), Document("other", id="x2"), Document("answer", id="x1")]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: found)
    base = create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({"answer": 1.0}))
    settings: dict[str, Any] = {"ks": (2, 3), "measure": "RR@10", "timed_queries": 0, "show_progress": False}
    result = sweep(base, {"q1": "one"}, {"q1": {"x1": 1}}, **settings)
    assert [(row.quality, row.ceiling) for row in result.rows] == [(0, 0), (1, 1)]


def test_times_are_those_of_passages_never_seen() -> None:
    """What a backend keeps of a query's candidates does not make a row faster that is timed later."""

    class FakeKeepingEncoder(ScriptedCrossEncoder):
        def __init__(self) -> None:
            super().__init__(SCORES)
            self.asked: list[str] = []

        def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
            self.asked += [passage for _, passage in text_pairs]
            return super()._encode(text_pairs)

    model = FakeKeepingEncoder()
    run(retriever(model=model), timed_queries=1)
    timed = [passage for passage in model.asked if passage not in NAMES]
    assert len(timed) == len(set(timed)) == 2 + 4 + 8 + 12


def test_chunks_of_one_document_count_once() -> None:
    """Several chunks with one id count by the best of them, and k counts chunks."""
    chunks = ["x", "x", "y", "z", "y"]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(
        lambda _: [Document(f"{name}{i}", metadata={"paper": name}) for i, name in enumerate(chunks)]
    )
    model = ScriptedCrossEncoder({"z3": 4.0, "y2": 3.0, "x1": 2.0, "x0": 1.0, "y4": -1.0})
    result = sweep(
        create_rerank_retriever(first_stage, model=model),
        {"q": "a"},
        {"q": {"y": 1}},
        ks=(2, 3, 4, 5),
        measure="RR@10",
        id_key="paper",
        timed_queries=0,
        show_progress=False,
    )
    assert [(row.quality, row.ceiling) for row in result.rows] == [(0.0, 0.0), (1.0, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert result.baseline == 1 / 2


def test_a_judged_query_without_results_counts_0() -> None:
    """Queries for which nothing is found pull the means down and are not dropped."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(
        lambda query: [Document("t2", id="t2")] if query == "one" else []
    )
    result = run(create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({})), measure="RR@10", timed_queries=2)
    assert [(row.k, row.quality) for row in result.rows] == [(1, pytest.approx(1 / 3))]
    assert result.baseline == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("qualities", "k"),
    [
        ((0.50, 0.60, 0.70, 0.80), 40),
        ((0.50, 0.79, 0.80, 0.80), 10),
        ((0.50, 0.77, 0.80, 0.80), 20),
        ((0.80, 0.80, 0.80, 0.80), 5),
        ((0.50, 0.80, 0.60, 0.50), 10),
        ((0.40, 0.40, 0.40, 0.41), 40),
    ],
    ids=["still growing", "flat after", "not yet flat", "flat from the start", "falling after", "small gain"],
)
def test_the_knee_is_the_smallest_k_with_95_percent_of_the_best_gain(qualities: tuple[float, ...], k: int) -> None:
    """Beyond the knee more candidates cost time and hardly help."""
    knee = SweepResult(rows(*qualities), "nDCG@10", baseline=0.4).knee
    assert knee is not None
    assert knee.k == k


@pytest.mark.parametrize("qualities", [(0.3, 0.35, 0.2, 0.1), (0.4, 0.4, 0.4, 0.4)], ids=["worse", "the same"])
def test_where_nothing_gains_there_is_no_knee(qualities: tuple[float, ...]) -> None:
    """If no number of candidates is better than no reranking, neither knee nor advice is given."""
    result = SweepResult(rows(*qualities), "nDCG@10", baseline=0.4, top_n_recall={1: 0.5})
    assert result.knee is None
    assert result.recommend(1000) is None
    assert result.to_dict()["knee"] is None
    assert "knee" not in result.to_text()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(9.9, None), (10, (5, 3)), (25, (10, 3)), (79, (10, 3)), (80, (40, 3)), (1e9, (40, 3))],
)
def test_advice_keeps_within_the_budget(budget: float, expected: tuple[int, int] | None) -> None:
    """The best k whose 95th percentile the budget covers, the smaller of equals; none if none does."""
    result = SweepResult(rows(0.5, 0.6, 0.6, 0.7), "nDCG@10", 0.4, {1: 0.2, 3: 0.75, 5: 0.8, 10: 0.8})
    assert result.recommend(budget) == expected


@pytest.mark.parametrize(
    ("recall", "top_n"),
    [({1: 0.9, 3: 1.0}, 1), ({1: 0.89, 3: 1.0}, 3), ({1: 0.1, 3: 0.2, 50: 0.9}, 4), ({}, 4), ({1: 0.0, 3: 0.0}, 1)],
    ids=["enough", "not enough", "less than k", "none asked", "nothing found"],
)
def test_advice_on_top_n_keeps_most_of_what_is_relevant(recall: dict[int, float], top_n: int) -> None:
    """The smallest top_n with 90 % of the recall of the largest, and less than k, so that reranking chooses."""
    assert SweepResult(rows(0.6), "nDCG@10", 0.4, recall).recommend(10) == (5, top_n)


def test_advice_needs_times() -> None:
    """Where nothing was timed, no budget can be kept, and no advice is given."""
    result = run()
    assert result.knee is not None
    assert result.recommend(1000) is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"ks": ()}, r"ks is \(\); pass at least one positive number"),
        ({"ks": (0, 5)}, r"ks is \(0, 5\)"),
        ({"ks": [-5]}, r"ks is \[-5\]"),
        ({"ks": (2.5, 5)}, r"ks is \(2\.5, 5\)"),
        ({"ks": 5}, "ks is 5"),
        ({"top_ns": ()}, r"top_ns is \(\)"),
        ({"top_ns": (3, 0)}, r"top_ns is \(3, 0\)"),
        ({"measure": "xyz@3"}, "'xyz@3' is not a measure"),
        ({"measure": "P"}, "'P'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments: dict[str, Any], complaint: str) -> None:
    """Numbers out of range and unknown measures are named before the first query is run."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: pytest.fail("retrieved"))
    with pytest.raises(InvalidInputError, match=complaint):
        run(create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({})), **arguments)


@pytest.mark.parametrize(
    ("queries", "qrels", "complaint"),
    [
        (QUERIES, {}, "qrels is empty"),
        ({}, {"q1": {"a": 1}}, "no text"),
    ],
)
def test_judgements_are_needed(queries: dict[str, str], qrels: dict[str, dict[str, int]], complaint: str) -> None:
    """Nothing judged, or a judged query without text, cannot be measured."""
    with pytest.raises(InvalidInputError, match=complaint):
        sweep(retriever(), queries, qrels, show_progress=False)


def test_a_retriever_without_our_reranker_is_refused() -> None:
    """There is nothing to rerank with, and the error says what to pass."""
    first_stage: Any = RunnableLambda(lambda _: [Document("a")])
    with pytest.raises(InvalidInputError, match=r"no CrossEncoderReranker.*create_rerank_retriever"):
        run(first_stage)


@pytest.mark.parametrize("module", ["ir_measures", "matplotlib", "tqdm"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without a module of the `eval` extra the error has the line that installs it."""

    def without(name: str) -> ModuleSpec | None:
        return None if name == module else find_spec(name)

    monkeypatch.setattr(extras, "find_spec", without)
    with pytest.raises(MissingExtraError, match=rf'{module} is needed.*pip install "langchain-crossrerank\[eval\]"'):
        run()


class Failing(ScriptedCrossEncoder):
    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        raise RuntimeError("the model is down")


def test_degraded_queries_are_counted_and_said() -> None:
    """With `on_error="keep_order"` a failing model is not mistaken for one that changes nothing."""
    result = run(retriever(model=Failing({}), on_error="keep_order"))
    assert result.to_dict()["degraded"] == 3
    foot = "3 queries kept the first stage's order because the model failed"
    assert foot in result.to_text()
    assert foot in html.unescape(str(result._repr_html_()))


def test_to_dict_goes_through_json() -> None:
    """The plain form is JSON with a row for each k and the knee's k."""
    result = run()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [row["k"] for row in plain["rows"]] == [2, 4, 8, 12]
    assert plain["rows"][0] == {
        "k": 2, "quality": result.rows[0].quality, "ceiling": result.rows[0].ceiling, "p50_ms": 0.0, "p95_ms": 0.0,
        "difference": result.rows[0].difference, "low": result.rows[0].low, "high": result.rows[0].high,
        "p_value": result.rows[0].p_value,
    }  # fmt: skip
    assert plain["baseline"] == result.baseline
    assert plain["knee"] == (result.knee.k if result.knee else None)


def test_both_forms_mark_the_knee_once() -> None:
    """Text and HTML have a row for each k with its figures, and the word knee in one of them and in the chart."""
    result = SweepResult(rows(0.5, 0.79, 0.8, 0.8), "nDCG@10", 0.4, {1: 0.25, 3: 0.5}, "m")
    lines = result.to_text().splitlines()
    assert str(result) == result.to_text()
    assert lines[3].split() == ["10", "0.790", "1.000", "+0.000", "1", "10", "20", "<-", "knee"]
    assert result.to_text().count("knee") == 1
    assert "Without reranking: nDCG@10 0.400." in lines
    assert "top_n=3: 50% of the relevant documents among the kept" in lines
    page = str(result._repr_html_()).split("</style>")[1]
    found = [re.findall(r">([^<]+)<", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    assert len(found) == 1 + 4
    assert found[2] == ["10", "0.790", "1.000", "+0.000", "1", "10", "20", "&lt;- knee"]
    assert re.findall(">([^<]*knee[^<]*)<", page) == ["k=10 (knee)", "&lt;- knee"]
    assert "0.400" in page


def test_the_html_escapes_the_measure() -> None:
    """A measure's name is text, whatever it holds."""
    assert "<th>&lt;b&gt;&amp;</th>" in str(SweepResult(rows(0.5), "<b>&", 0.4)._repr_html_())


def test_the_plot_has_a_point_for_each_k() -> None:
    """Quality is drawn over milliseconds, the knee is marked, and the baseline is a line of its own."""
    figure_module = pytest.importorskip("matplotlib.figure", reason="needs the eval extra")
    figure = SweepResult(rows(0.5, 0.79, 0.8, 0.8), "nDCG@10", 0.4).plot()
    assert isinstance(figure, figure_module.Figure)
    (axes,) = figure.axes
    curve, baseline = axes.get_lines()
    assert list(curve.get_xdata()) == [5, 10, 20, 40]
    assert list(curve.get_ydata()) == [0.5, 0.79, 0.8, 0.8]
    assert set(baseline.get_ydata()) == {0.4}
    assert [text.get_text() for text in axes.texts] == ["k=5", "k=10 (knee)", "k=20", "k=40"]


def test_the_mean_is_over_all_judged_queries() -> None:
    """A row's quality is the plain mean of the queries' values."""
    evaluated = evaluate(retriever(), QUERIES, QRELS, measures=["AP"], show_progress=False).measures[0]
    assert run(measure="AP").rows[-1].quality == statistics.fmean(after for _, after in evaluated.per_query.values())


def test_p_values_are_corrected_for_the_number_of_rows() -> None:
    """Looking at more numbers of candidates makes each of them weigh less, and never the differences."""
    alone, among = run(ks=(12,)).rows[0], run(ks=(2, 4, 8, 12)).rows[-1]
    assert (alone.difference, alone.low, alone.high) == (among.difference, among.low, among.high)
    assert alone.difference == pytest.approx(alone.quality - run(ks=(12,)).baseline)
    assert among.p_value == 1
    assert among.p_value >= alone.p_value


@pytest.mark.parametrize(
    ("queries", "p_value", "warning"),
    [
        (9, 0.001, "9 queries are too few to choose by; judge at least 10."),
        (30, 0.2, "No number of candidates is better than no reranking beyond chance, as 2 of them were tried"),
        (30, 0.001, None),
    ],
    ids=["few queries", "chance", "proof"],
)
def test_a_choice_by_chance_is_said(queries: int, p_value: float, warning: str | None) -> None:
    """Where no row is proof after the correction, the report warns before somebody chooses by it."""
    found = [SweepRow(k, 0.6, 0.9, 1.0, 2.0, 0.2, 0.1, 0.3, p_value) for k in (5, 10)]
    warnings = SweepResult(found, "nDCG@10", 0.4, queries=queries).report().warnings
    assert len(warnings) == (warning is not None)
    assert all(text.startswith(str(warning)) for text in warnings)


def test_one_candidate_is_never_recommended() -> None:
    """With k=1 there is nothing to choose from."""
    assert SweepResult([SweepRow(1, 0.9, 0.9, 1.0, 2.0)], "nDCG@10", 0.4, {1: 1.0}).recommend(100) is None


def test_a_sweep_doubts_what_an_evaluation_doubts() -> None:
    """Ids that match nothing, and a query that finds itself, are said as `evaluate` says them."""
    found = [Document("one", id="q1"), Document("answer", id="x1"), Document("other", id="x2")]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: found)
    base = create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({"other": 1.0}))
    for qrels in ({"q1": {"x1": 1}}, {"q1": {"nowhere": 1}}):
        swept = sweep(base, {"q1": "one"}, qrels, ks=(3,), measure="RR@10", timed_queries=0, show_progress=False)
        alone = evaluate(base, {"q1": "one"}, qrels, measures=["RR@10"], show_progress=False)
        assert swept.doubts == alone.warnings
        assert set(alone.warnings) <= set(swept.report().warnings)
        assert (swept.baseline, swept.rows[0].quality) == (alone.measures[0].before, alone.measures[0].after)
