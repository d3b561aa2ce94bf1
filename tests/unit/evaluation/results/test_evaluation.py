"""The result of an evaluation: verdict, extremes, and its forms."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank.evaluation import EvaluationResult, MeasureResult
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.letters import (
    SCORES,
    differing,
    retriever,
    run,
)

TEN = {str(number): (0.0, 0.0) for number in range(10)}


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
        ([0] * 12, "not distinguishable", "Reranking made no difference that these queries can tell from chance"),
        ([1] * 9, "too few queries", "No verdict, because fewer than 10 queries are judged"),
        ([1], "too few queries", "No verdict, because fewer than 10 queries are judged"),
    ],
    ids=["helped", "hurt", "mixed", "the same", "nine queries", "one query"],
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
    """An interval that touches zero tells nothing, nor does a p-value above 0.025."""
    difference = (low + high) / 2
    assert MeasureResult("AP", 0.5, 0.5, 1.0, difference, low, high, 0.01, TEN).verdict == verdict
    assert MeasureResult("AP", 0.5, 0.5, 1.0, difference, low, high, 0.03, TEN).verdict == "not distinguishable"


def test_the_first_measure_decides() -> None:
    """The order of the measures is the order of the result, and its verdict is the first one's."""
    result = run(measures=["P@1", "R@2"])
    assert result.verdict.split(": ")[1].startswith("P@1 ")
    assert run(measures=["R@2", "P@1"]).verdict.split(": ")[1].startswith("R@2 ")


def test_extremes_are_the_largest_gains_and_losses() -> None:
    """Queries that moved are listed with their differences, largest first; the others are in neither list."""
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
        *("verdict", "latency_ms", "warnings", "truncated", "left_out", "lists"),
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
        *result.verdict.replace("->", "\N{RIGHTWARDS ARROW}").split(": ", 1),
    ):
        assert figure in html.parts
    assert html.tags.count("tr") == 2
    # The cell, the bar of each query, and the five queries that gained most.
    assert sum("up" in kinds.split() for kinds in html.classes) == 1 + 10 + 5
    assert "10 queries, 2 candidates at most, scripted" in "".join(html.parts)
    lost, same = (Text(differing(gains)._repr_html_()) for gains in ([-1] * 10, [1, -1] * 5))
    assert sum("down" in kinds.split() for kinds in lost.classes) == 1 + 10 + 5
    assert sum("flat" in kinds.split() for kinds in same.classes) == 1


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
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1 / 2, 0, -3 / 4])
    assert len({bar.get_facecolor() for bar in axes.patches}) == 3
    assert axes.get_xlabel().startswith("RR@10")
    assert f"{result.measures[0].difference:+.3f}" in axes.get_title(loc="left")


def test_both_lists_of_each_query_are_kept() -> None:
    """A result has the ids of both lists with the relevant ones, and the texts of those at their top."""
    result = run(measures=["RR@10"])
    assert set(result.lists) == set(result.texts)
    for lists in result.lists.values():
        assert sorted(lists.before) == sorted(lists.after)
        assert set(lists.before) <= set(result.passages)
    assert "passages" not in result.to_dict()
