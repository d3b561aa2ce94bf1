"""Two rerankers over the same queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import EvaluationResult, RerankerComparison, RerankerMeasure
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.letters import FOUND, QUERIES, SCORES, CountingEncoder, differing, retriever, run


def compared(one: Sequence[float], other: Sequence[float]) -> RerankerComparison:
    """Compare rerankers by their gains: 1 puts the relevant document first, -1 takes it from there, 0 keeps it."""
    return differing(one).against(differing(other))


def named(name: str, sign: float = 1.0) -> EvaluationResult:
    """Evaluate a model of this name, which orders the letters one way or the other."""
    model = ScriptedCrossEncoder({letter: sign * score for letter, score in SCORES.items()})
    model.name = name
    return run(retriever(model=model))


def test_differences_are_paired_and_counted() -> None:
    """Means, differences, wins, ties and losses are those of the values after reranking."""
    one, other = named("one"), named("other", -1.0)
    found = one.against(other)
    assert (found.model, found.against, found.queries) == ("one", "other", 3)
    for row, mine, theirs in zip(found.measures, one.measures, other.measures, strict=True):
        assert row.name == mine.name
        assert (row.model, row.against) == (mine.after, theirs.after)
        assert row.difference == pytest.approx(mine.after - theirs.after, abs=1e-12)
        pairs = [(mine.per_query[key][1], theirs.per_query[key][1]) for key in mine.per_query]
        assert row.wins == sum(a > b for a, b in pairs)
        assert row.losses == sum(a < b for a, b in pairs)
        assert row.wins + row.ties + row.losses == 3
    assert found.warnings == []


def test_a_clear_difference_has_a_verdict() -> None:
    """Twelve wins of twelve are proof, in either direction; equal results are not; nine queries are too few."""
    better, worse = compared([1] * 12, [-0.0] * 12), compared([0] * 12, [0] * 12)
    assert worse.measures[0].verdict == "not distinguishable"
    assert "cannot be distinguished by these queries" in worse.verdict
    assert better.warnings[0] == "The first stages differ, so the difference is not the rerankers' alone."
    assert compared([1] * 9, [1] * 9).measures[0].verdict == "too few queries"


def test_the_direction_is_said() -> None:
    """The same comparison the other way round has the opposite verdict and figures."""
    values = {f"q{number}": 0.5 + number / 100 for number in range(12)}
    row = RerankerMeasure.of("AP", values, dict.fromkeys(values, 0.25))
    back = RerankerMeasure.of("AP", dict.fromkeys(values, 0.25), values)
    assert (row.verdict, back.verdict) == ("better", "worse")
    assert (row.wins, row.ties, row.losses) == (back.losses, back.ties, back.wins) == (12, 0, 0)
    assert (row.low, row.high) == pytest.approx((-back.high, -back.low))
    result = RerankerComparison("A", "B", [row], 12, dict.fromkeys(values, "text"))
    assert result.verdict.startswith("A is better than B: AP 0.555 against 0.250 (+0.305, 95 % interval ")
    assert result.verdict.endswith("12 wins, 0 ties, 0 losses).")


def test_only_what_both_have_is_compared() -> None:
    """Queries and measures of one result alone are left out and said; with nothing in common there is no comparison."""
    some = run(qrels={"q1": {"d": 1}, "q2": {"c": 1}}, measures=["RR@10", "AP"])
    found = run(measures=["RR@10"]).against(some)
    assert [row.name for row in found.measures] == ["RR@10"]
    assert found.queries == 2
    assert "Only the 2 queries that both results have are compared." in found.warnings
    with pytest.raises(InvalidInputError, match="no measure in common"):
        run(measures=["P@1"]).against(some)
    with pytest.raises(InvalidInputError, match="no query in common"):
        run(retriever(FOUND), {"other": "first query"}, {"other": {"d": 1}}, measures=["AP"]).against(some)


def test_doubts_about_either_result_are_kept() -> None:
    """A model that failed, and what was cut, is said with the model's name; what is true of both is said once."""
    mine, theirs = "2 of 9 passages were longer than the model reads", "1 candidates have no text"
    one = replace(named("one"), warnings=[theirs, mine])
    broken = CountingEncoder(SCORES, fails_on="first query")
    broken.name = "broken"
    other = replace(run(retriever(model=broken, on_error="keep_order")), warnings=[theirs])
    assert other.degraded == 1
    expected = [theirs, f"one: {mine}", "broken: 1 queries kept the first stage's order because the model failed"]
    found = one.against(other)
    assert found.warnings == expected
    assert all(f"Warning: {text}" in found.to_text(200) for text in expected)
    assert other.against(one).warnings == [expected[0], expected[2], expected[1]]


def test_other_words_under_the_same_ids_are_said() -> None:
    """Results of different queries are not compared without a word."""
    other = run(retriever({**FOUND, "other query": FOUND["first query"]}), {**QUERIES, "q1": "other query"})
    (warning,) = run().against(other).warnings
    assert warning.startswith("1 queries have the same id and other words in the two results, for example 'q1'")


def test_every_form_has_the_figures() -> None:
    """Text, HTML, JSON and the chart say the same."""
    found = named("one<b>").against(named("other", -1.0))
    lines = found.to_text().splitlines()
    assert lines[0] == found.verdict
    assert lines[2].split()[:4] == ["measure", "model", "against", "difference"]
    assert lines[4].split()[0] == "nDCG@10"
    assert "one<b> wins most:" in lines
    assert lines[-1] == "3 queries; model: one<b>; against: other"
    assert "<b> wins" not in found._repr_html_()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["verdict"] == found.verdict
    assert plain["measures"][0]["wins"] == found.measures[0].wins
    (axes,) = found.plot().axes
    assert len(axes.patches) == 3
    assert axes.get_title(loc="left").startswith(f"{found.measures[0].wins} wins, ")
