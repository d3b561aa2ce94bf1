"""Measures against `ir-measures` itself, and the bootstrap against resampling by hand."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from importlib.util import find_spec

import numpy as np
import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.significance import (
    RESAMPLES,
    measure_per_query,
    paired_bootstrap,
    parse_measure,
    with_depth,
)

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")

MEASURES = ["nDCG@10", "nDCG@3", "nDCG", "RR@10", "RR", "RR(rel=2)@10", "R@5", "R(rel=2)@100", "AP", "AP@10", "P@3"]

QRELS = {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"a": 1}, "q3": {"z": 2}}


def graded_collection(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Make judgements with grades 0 to 3 and a run of 30 documents a query, of which some are not judged."""
    dice = random.Random(seed)
    names = [f"d{number}" for number in range(60)]
    queries = [f"q{number}" for number in range(8)]
    qrels = {query: {name: dice.choice([0, 0, 1, 2, 3]) for name in dice.sample(names, 20)} for query in queries}
    run = {query: {name: float(-place) for place, name in enumerate(dice.sample(names, 30))} for query in queries}
    return qrels, run


def all_resamples(differences: list[float]) -> list[float]:
    """Give the mean of every possible resample: all n to the power of n picks."""
    return sorted(statistics.fmean(picks) for picks in itertools.product(differences, repeat=len(differences)))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_what_ir_measures_says(name: str, seed: int) -> None:
    """Every query's value is that of `ir_measures.iter_calc` on the same run, to 1e-9, also with graded judgements."""
    qrels, run = graded_collection(seed)
    expected = {
        value.query_id: value.value for value in ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, run)
    }
    values = measure_per_query([name], qrels, run)[name]
    assert set(values) == set(qrels)
    assert values == pytest.approx(expected, abs=1e-9, rel=0)
    assert any(value > 0 for value in values.values())


def test_measures_together_are_the_measures_one_by_one() -> None:
    """Several measures in one call keep their own values."""
    qrels, run = graded_collection(3)
    together = measure_per_query(MEASURES, qrels, run)
    assert list(together) == MEASURES
    assert together == {name: measure_per_query([name], qrels, run)[name] for name in MEASURES}


def test_values_by_hand() -> None:
    """A run of known order has the values that pen and paper give."""
    run = {"q1": {"c": 3.0, "b": 2.0, "a": 1.0}}
    values = measure_per_query(["nDCG@10", "RR@10", "R@2", "AP", "P@2"], {"q1": QRELS["q1"]}, run)
    gain = (1 / math.log2(3) + 3 / math.log2(4)) / (3 / math.log2(2) + 1 / math.log2(3))
    expected = {"nDCG@10": gain, "RR@10": 1 / 2, "R@2": 1 / 2, "AP": (1 / 2 + 2 / 3) / 2, "P@2": 1 / 2}
    assert {name: by_query["q1"] for name, by_query in values.items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["nDCG@10", "RR@10", "R@5", "AP", "P@1"])
def test_a_judged_query_without_results_counts_0(name: str) -> None:
    """A query that the run lacks, or for which it found nothing, is there with 0.0, and one not judged is not."""
    run = {"q1": {"a": 1.0}, "q2": {}, "q9": {"a": 1.0}}
    values = measure_per_query([name], QRELS, run)[name]
    assert sorted(values) == ["q1", "q2", "q3"]
    assert values["q1"] > 0
    assert (values["q2"], values["q3"]) == (0.0, 0.0)


def test_a_query_without_a_single_judgement_counts_0() -> None:
    """A query that qrels names with no documents is there with 0.0 and not dropped."""
    values = measure_per_query(["nDCG@10"], {"q1": {"a": 1}, "q2": {}}, {"q1": {"a": 1.0}, "q2": {"a": 1.0}})
    assert values == {"nDCG@10": {"q1": 1.0, "q2": 0.0}}


def test_a_run_without_any_results_counts_0() -> None:
    """An empty run scores 0 for every judged query."""
    assert measure_per_query(["nDCG@10"], QRELS, {}) == {"nDCG@10": {"q1": 0.0, "q2": 0.0, "q3": 0.0}}


def test_values_are_plain_floats() -> None:
    """Values go through JSON as they are, whatever `ir-measures` counts in."""
    values = measure_per_query(["NumRet", "AP"], QRELS, {"q1": {"a": 1.0}})
    assert {type(value) for by_query in values.values() for value in by_query.values()} == {float}


def test_measuring_leaves_its_input_alone() -> None:
    """Judgements and run are the caller's."""
    qrels, run = {"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}}
    measure_per_query(["nDCG@10"], qrels, run)
    assert (qrels, run) == ({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}})


@pytest.mark.parametrize(
    "names", [("RR@10", "MRR@10"), ("R@5", "Recall@5"), ("AP", "MAP"), ("nDCG@3", "NDCG@3", "nDCG@3 ")]
)
def test_two_names_of_one_measure_have_the_same_values(names: tuple[str, ...]) -> None:
    """`ir-measures` has aliases; each name asked for gets the measure's values."""
    qrels, run = graded_collection(4)
    values = measure_per_query(names, qrels, run)
    expected = measure_per_query([names[0]], qrels, run)[names[0]]
    assert values == dict.fromkeys(names, expected)


@pytest.mark.parametrize(
    "name", ["xyz@3", "nDCG@ten", "", "nDCG@", "nDCG@10 RR@10", "nDCG@10+AP", "R@k", "__import__('os')", "nDCG@-1"]
)
def test_an_unknown_measure_is_refused(name: str) -> None:
    """The error repeats the name and gives some that would do; nothing is executed."""
    with pytest.raises(InvalidInputError) as caught:
        parse_measure(name)
    assert f"{name!r} is no measure that ir-measures knows" in str(caught.value)
    assert "'nDCG@10', 'RR@10', 'R@100'" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "P",
        "R",
        "nDCG@0",
        "R@0",
        "nDCG@1.5",
        "nDCG(x=1)@10",
        pytest.param(
            "alpha_nDCG@10", marks=pytest.mark.skipif(find_spec("pyndeval") is not None, reason="pyndeval is installed")
        ),
    ],
)
def test_a_measure_that_cannot_be_computed_is_refused(name: str) -> None:
    """A missing or impossible depth, and a measure whose program is not installed, are input errors.

    trec_eval ends the whole process at a depth of 0, so nothing may reach it.
    """
    with pytest.raises(InvalidInputError, match=r"measure"):
        parse_measure(name)


def test_a_mean_difference_is_exact() -> None:
    """The mean is that of after minus before, not an estimate."""
    before, after = [0.1, 0.5, 0.9, 0.3], [0.4, 0.5, 0.2, 0.7]
    assert paired_bootstrap(before, after).mean == pytest.approx(statistics.fmean([0.3, 0.0, -0.7, 0.4]), abs=1e-12)


def test_the_bootstrap_is_deterministic() -> None:
    """The same input gives the same interval and p-value; another seed gives others close by."""
    dice = random.Random(0)
    before, after = [dice.random() for _ in range(30)], [dice.random() for _ in range(30)]
    first, again, other = (paired_bootstrap(before, after, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert (first.low, first.high, first.p_value) == pytest.approx((other.low, other.high, other.p_value), abs=0.02)


def test_a_difference_does_not_touch_the_global_random_numbers() -> None:
    """The caller's own seeds hold."""
    state, numbers = random.getstate(), np.random.get_state()[1].tolist()
    paired_bootstrap([0.0, 1.0], [1.0, 0.5])
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 7, 50])
def test_the_interval_holds_the_mean(seed: int, count: int) -> None:
    """The lower end is not above the mean, the upper end not below it, and the p-value is a share."""
    dice = random.Random(seed)
    found = paired_bootstrap([dice.random() for _ in range(count)], [dice.random() for _ in range(count)])
    assert found.low <= found.mean <= found.high
    assert 0 < found.p_value <= 1


@pytest.mark.parametrize("sign", [1, -1], ids=["gain", "loss"])
def test_a_clear_difference_leaves_out_zero(sign: int) -> None:
    """Forty queries that all moved the same way, by unlike amounts, are no chance."""
    before = [0.5] * 40
    after = [0.5 + sign * (0.1 + 0.005 * number) for number in range(40)]
    found = paired_bootstrap(before, after)
    assert found.low > 0 if sign > 0 else found.high < 0
    assert found.p_value == pytest.approx(1 / (RESAMPLES + 1))


def test_a_balanced_difference_holds_zero() -> None:
    """As many gains as losses of the same size are told apart from nothing by no interval."""
    found = paired_bootstrap([0.0, 1.0] * 10, [1.0, 0.0] * 10)
    assert found.mean == 0
    assert found.low < 0 < found.high
    assert found.p_value == 1


@pytest.mark.parametrize("values", [[0.3], [0.0, 0.0], [0.1, 0.7, 0.2]])
def test_no_difference_is_certain_of_nothing(values: list[float]) -> None:
    """The same values before and after have mean 0, an interval of no width and a p-value of 1."""
    found = paired_bootstrap(values, values)
    assert (found.mean, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_systems_turns_the_sign() -> None:
    """After against before is before against after, mirrored."""
    dice = random.Random(7)
    before, after = [dice.random() for _ in range(20)], [dice.random() for _ in range(20)]
    there, back = paired_bootstrap(before, after), paired_bootstrap(after, before)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-12)
    assert back.p_value == there.p_value


@pytest.mark.parametrize("differences", [[0.5, 0.25, -0.125, 0.0], [0.75, -0.5, 0.25, 0.125, -0.0625]])
def test_the_bootstrap_agrees_with_all_resamples(differences: list[float]) -> None:
    """Interval and p-value are those of every possible resample, as near as 10,000 of them can be."""
    means = all_resamples(differences)
    mean = statistics.fmean(differences)
    exact_p = statistics.fmean([abs(value - mean) >= abs(mean) - 1e-12 for value in means])
    found = paired_bootstrap([0.0] * len(differences), differences)
    # Four standard errors of a share estimated from so many resamples.
    assert found.p_value == pytest.approx(exact_p, abs=4 * math.sqrt(exact_p * (1 - exact_p) / RESAMPLES))
    for end, share in ((found.low, 0.025), (found.high, 0.975)):
        near = [float(np.quantile(means, share + away)) for away in (-0.008, 0.008)]
        assert near[0] <= end <= near[1]


def test_pairs_are_kept_together() -> None:
    """A small gain on every query is clear though the queries differ widely, because each is its own control."""
    before = [number / 20 for number in range(20)]
    found = paired_bootstrap(before, [value + 0.01 + 0.0001 * number for number, value in enumerate(before)])
    assert found.low > 0


def test_one_query_proves_nothing() -> None:
    """A single query, whatever it gained, cannot be told from chance."""
    assert paired_bootstrap([0.0], [1.0]).p_value == 1


@pytest.mark.parametrize(
    ("measures", "k", "expected"),
    [
        (["nDCG@10", "R@k"], 20, ["nDCG@10", "R@20"]),
        (["R@k", "P@k", "nDCG@k"], 7, ["R@7", "P@7", "nDCG@7"]),
        (["R(rel=2)@k"], 50, ["R(rel=2)@50"]),
        (["AP", "RR", "R@100"], 5, ["AP", "RR", "R@100"]),
        (["R@k", "R@10", "R@k"], 10, ["R@10"]),
        (["nDCG@k20", "@kR"], 3, ["nDCG@k20", "@kR"]),
        ([], 3, []),
    ],
)
def test_k_stands_for_the_number_of_candidates(measures: list[str], k: int, expected: list[str]) -> None:
    """A depth written as `k` becomes the number, others stay, and equal measures come once in the first's place."""
    assert with_depth(measures, k) == expected
