"""The sign-flip test and its interval, against every flip done by hand."""

from __future__ import annotations

import itertools
import random
import statistics

import numpy as np
import pytest

from langchain_crossrerank.evaluation.significance import (
    EXACT_QUERIES,
    FLIPS,
    MIN_QUERIES,
    holm,
    paired_difference,
    verdict_of,
)


def exact_p(differences: list[float], shift: float = 0.0) -> float:
    """The share of all sign flips of the shifted differences with a sum at least as far from zero."""
    shifted = [value - shift for value in differences]
    flips = itertools.product((-1, 1), repeat=len(shifted))
    sums = [abs(sum(sign * value for sign, value in zip(flip, shifted, strict=True))) for flip in flips]
    return statistics.fmean(value >= abs(sum(shifted)) - 1e-9 for value in sums)


def drawn(count: int, seed: int, shift: float = 0.0) -> list[float]:
    """Differences with many ties and zeros, as real ones have."""
    dice = random.Random(seed)
    return [dice.choice([0.0, 0.0, 0.5, -0.5, 0.25, dice.random() - 0.5]) + shift for _ in range(count)]


def test_a_mean_difference_is_exact() -> None:
    """The mean is that of after minus before, not an estimate."""
    before, after = [0.1, 0.5, 0.9, 0.3], [0.4, 0.5, 0.2, 0.7]
    assert paired_difference(before, after).mean == pytest.approx(statistics.fmean([0.3, 0.0, -0.7, 0.4]), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 3, 6, 9, 11])
def test_the_p_value_is_that_of_all_flips(count: int, seed: int) -> None:
    """With few queries the test is exact, ties and zeros included."""
    differences = drawn(count, seed, shift=0.1)
    assert paired_difference([0.0] * count, differences).p_value == pytest.approx(exact_p(differences), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [7, 10])
def test_the_interval_holds_what_the_test_does_not_reject(count: int, seed: int) -> None:
    """Just inside either end a shift is not rejected at 5 %, and just outside it is."""
    differences = drawn(count, seed, shift=0.2)
    found = paired_difference([0.0] * count, differences)
    for end, outwards in ((found.low, -1), (found.high, 1)):
        assert exact_p(differences, end - outwards * 1e-6) > 0.05
        assert exact_p(differences, end + outwards * 1e-6) <= 0.05


@pytest.mark.parametrize("count", [6, 10, 14, 15, 40])
def test_interval_and_p_value_answer_the_same_question(count: int) -> None:
    """Zero is outside the interval exactly if the p-value is at most 0.05."""
    answers = set()
    for seed in range(60):
        found = paired_difference([0.0] * count, drawn(count, seed, shift=0.12))
        assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high)
        answers.add(found.p_value <= 0.05)
    assert len(answers) == 2


@pytest.mark.parametrize("gain", [1.0, 0.369, 0.02, 1e-4, -0.02, -0.369, -1.0])
@pytest.mark.parametrize("count", [5, 6, 10, 14, 20, 200])
def test_equal_gains_have_one_answer_too(count: int, gain: float) -> None:
    """Where all queries differ by the same, zero is outside the interval exactly if the p-value is at most 0.05."""
    found = paired_difference([0.0] * count, [gain] * count)
    assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high) == (count > 5)
    assert found.low < gain or found.low == -1
    assert found.high > gain or found.high == 1
    if count >= MIN_QUERIES:
        assert found.verdict == ("helped" if gain > 0 else "hurt")


@pytest.mark.parametrize(("count", "p_value"), [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125), (5, 0.0625)])
def test_few_queries_prove_nothing(count: int, p_value: float) -> None:
    """Equal gains on every query have the exact p-value, an interval that excludes nothing, and no verdict."""
    found = paired_difference([0.0] * count, [0.5] * count)
    assert found.p_value == p_value
    assert (found.low, found.high) == (-1.0, 1.0)
    assert found.verdict == "too few queries"


def test_the_least_number_of_queries_can_have_a_verdict() -> None:
    """From 10 queries on, gains on all of them are proof; the interval has a width all the same."""
    found = paired_difference([0.0] * MIN_QUERIES, [0.5] * MIN_QUERIES)
    assert (found.verdict, found.p_value) == ("helped", 2 / 2**MIN_QUERIES)
    assert 0 < found.low < 0.5 < found.high
    assert paired_difference([0.0] * (MIN_QUERIES - 1), [0.5] * (MIN_QUERIES - 1)).verdict == "too few queries"


def test_no_difference_is_no_difference() -> None:
    """The same values have mean 0 and a p-value of 1; few of them leave everything open."""
    many, few = paired_difference([0.3] * 20, [0.3] * 20), paired_difference([0.3] * 2, [0.3] * 2)
    assert (many.mean, many.low, many.high, many.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert (few.mean, few.low, few.high, few.p_value) == (0.0, -1.0, 1.0, 1.0)


@pytest.mark.parametrize("sign", [1, -1], ids=["gain", "loss"])
def test_a_clear_difference_excludes_zero(sign: int) -> None:
    """Forty queries that all moved the same way are proof, and the p-value is never 0."""
    found = paired_difference([0.5] * 40, [0.5 + sign * (0.1 + 0.005 * number) for number in range(40)])
    assert found.verdict == ("helped" if sign > 0 else "hurt")
    assert found.p_value == pytest.approx(1 / (FLIPS + 1))


def test_a_balanced_difference_holds_zero() -> None:
    """As many gains as losses of the same size are distinguished from nothing by no interval."""
    found = paired_difference([0.0, 1.0] * 10, [1.0, 0.0] * 10)
    assert (found.mean, found.p_value) == (0, 1)
    assert found.low < 0 < found.high


@pytest.mark.parametrize("count", [8, 20])
def test_swapping_the_systems_turns_the_sign(count: int) -> None:
    """After against before is before against after, mirrored."""
    dice = random.Random(7)
    before, after = [dice.random() for _ in range(count)], [dice.random() for _ in range(count)]
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-12)
    assert back.p_value == there.p_value


@pytest.mark.parametrize("count", [5, EXACT_QUERIES, EXACT_QUERIES + 1, 200])
def test_the_interval_holds_the_mean(count: int) -> None:
    """The lower end is not above the mean, the upper end not below it, and the p-value is a share."""
    for seed in range(5):
        found = paired_difference([0.0] * count, drawn(count, seed))
        assert found.low <= found.mean <= found.high
        assert 0 < found.p_value <= 1


def test_sampled_flips_agree_with_all_of_them() -> None:
    """Where flips are drawn, the p-value is near the exact one, and the same at every call."""
    differences = drawn(EXACT_QUERIES + 1, 3, shift=0.08)
    found = paired_difference([0.0] * len(differences), differences)
    assert found.p_value == pytest.approx(exact_p(differences), abs=0.02)
    assert found == paired_difference([0.0] * len(differences), differences)
    assert found != paired_difference([0.0] * len(differences), differences, seed=1)


def test_pairs_are_kept_together() -> None:
    """A small gain on every query is clear though the queries differ widely, because each is its own control."""
    before = [number / 20 for number in range(20)]
    assert paired_difference(before, [value + 0.01 for value in before]).p_value < 0.001


def test_a_difference_does_not_touch_the_global_random_numbers() -> None:
    """The caller's own seeds hold."""
    state, numbers = random.getstate(), np.random.get_state()[1].tolist()
    paired_difference([0.0] * 30, drawn(30, 0))
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.parametrize(
    ("low", "high", "p_value", "queries", "verdict"),
    [
        (0.1, 0.2, 0.01, 10, "helped"),
        (-0.2, -0.1, 0.01, 10, "hurt"),
        (0.1, 0.2, 0.04, 10, "not distinguishable"),
        (-0.1, 0.2, 0.01, 10, "not distinguishable"),
        (0.1, 0.2, 0.01, 9, "too few queries"),
    ],
)
def test_a_verdict_needs_all_of_it(low: float, high: float, p_value: float, queries: int, verdict: str) -> None:
    """Enough queries, an interval without zero, and a p-value of at most 0.025."""
    assert verdict_of(low, high, p_value, queries) == verdict


def test_holm_corrects_for_the_number_of_looks() -> None:
    """The smallest p-value is multiplied by all, the next by one less, never falling, never above 1."""
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]
