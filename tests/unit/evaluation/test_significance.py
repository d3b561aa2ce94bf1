"""The paired bootstrap against resampling by hand."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest

from langchain_crossrerank.evaluation.significance import RESAMPLES, paired_bootstrap


def all_resamples(differences: list[float]) -> list[float]:
    """Give the mean of every possible resample: all n to the power of n picks."""
    return sorted(statistics.fmean(picks) for picks in itertools.product(differences, repeat=len(differences)))


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
