"""Whether a mean difference between two systems over the same queries is more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

EXACT_QUERIES = 14
"""Up to this number of queries all sign flips are enumerated; above it, a sample is drawn."""

FLIPS = 10_000
"""Sign flips in the sample."""

MIN_QUERIES = 10
"""Queries below which no verdict is given, only figures."""

INTERVAL_LEVEL = 0.05
"""One minus the interval's confidence."""

VERDICT_LEVEL = 0.025
"""The largest p-value of a verdict.

Stricter than the interval, because an evaluation shows several measures and is repeated while somebody tries settings:
at 0.05 more than one in twenty such looks would find a difference where there is none.
"""

_PIECE = 500

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two systems over the same queries.

    Attributes:
        mean: Mean of after minus before.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p_value: Share of sign flips with a mean at least as far from zero; two-sided.
        queries: Queries compared.
    """

    mean: float
    low: float
    high: float
    p_value: float
    queries: int

    @property
    def verdict(self) -> str:
        """`"helped"`, `"hurt"`, `"not distinguishable"` or `"too few queries"`; see `verdict_of`."""
        return verdict_of(self.low, self.high, self.p_value, self.queries)


def verdict_of(low: float, high: float, p_value: float, queries: int) -> str:
    """Say what a difference proves.

    Args:
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p_value: Two-sided.
        queries: Queries compared.

    Returns:
        `"helped"` or `"hurt"` if the interval excludes zero and the p-value is at most 0.025, `"too few queries"` with
        fewer than 10 queries, and `"not distinguishable"` otherwise.
    """
    if queries < MIN_QUERIES:
        return "too few queries"
    if p_value > VERDICT_LEVEL or low <= 0 <= high:
        return "not distinguishable"
    return "helped" if low > 0 else "hurt"


def paired_difference(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> PairedDifference:
    """Test a mean difference by flipping the signs of the queries' differences.

    If nothing differs, each query's difference might as well have had the other sign; the p-value is the share of flips
    with a mean at least as far from zero (Smucker, Allan and Carterette, CIKM 2007). Up to 14 queries all flips are
    enumerated, which is exact; above, 10,000 are drawn and the observed one is added, so that the p-value is never too
    small. Ties count against a difference.

    The interval answers the same question: it holds every shift of the differences that the same flips do not reject
    at 5 %, so it excludes zero exactly if the p-value is at most 0.05. A flip does not reject a shift between the mean
    of the differences that it flips and the mean of the others. Where no shift can be rejected, as with fewer than 6
    queries, the interval is the measure's whole range.

    Args:
        before: One value for each query.
        after: The other system's values, in the same order.
        seed: Of the random flips, so that the same input always has the same result.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    count = len(differences)
    mean = float(differences.mean())
    bound = max(1.0, float(np.abs([before, after]).max()))
    if not differences.any():
        width = 0.0 if count >= MIN_QUERIES else bound
        return PairedDifference(0.0, -width, width, 1.0, count)
    extreme = total = 0
    lows: list[Array] = []
    highs: list[Array] = []
    tolerance = 1e-12 * float(np.abs(differences).sum())
    for signs in _flips(count, seed):
        sums = signs @ differences
        extreme += int((np.abs(sums) >= abs(differences.sum()) - tolerance).sum())
        total += len(signs)
        first, last = _kept_shifts(signs, sums, differences)
        lows.append(first)
        highs.append(last)
    place = int(INTERVAL_LEVEL * total + 1e-9)
    low = float(np.sort(np.concatenate(lows))[place])
    high = float(np.sort(np.concatenate(highs))[-1 - place])
    if high - low < 1e-9:
        low, high = _unseen(mean, count, bound)
    return PairedDifference(mean, max(low, -bound), min(high, bound), extreme / total, count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of them, so that one error in all of them is as rare as in one (Holm, 1979).

    Args:
        p_values: One for each setting that was looked at.

    Returns:
        The corrected values in the same order.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


def _flips(count: int, seed: int) -> Iterator[Array]:
    """Rows of -1 and +1, in pieces, so that memory does not grow with the number of queries."""
    if count <= EXACT_QUERIES:
        numbers = np.arange(2**count)[:, None]
        yield ((numbers >> np.arange(count)) & 1) * 2.0 - 1.0
        return
    yield np.ones((1, count))
    random = np.random.default_rng(seed)
    for _ in range(0, FLIPS, _PIECE):
        yield random.integers(0, 2, size=(_PIECE, count), dtype=np.int8) * 2.0 - 1.0


def _kept_shifts(signs: Array, sums: Array, differences: Array) -> tuple[Array, Array]:
    """The shifts that each flip keeps: from one subset's mean to the other's; all shifts where a subset is empty."""
    plus = (len(differences) + signs.sum(axis=1)) / 2
    minus = len(differences) - plus
    whole = differences.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = (whole + sums) / 2 / plus
        flipped = (whole - sums) / 2 / minus
    is_whole = (plus == 0) | (minus == 0)
    low = np.where(is_whole, -np.inf, np.minimum(kept, flipped))
    high = np.where(is_whole, np.inf, np.maximum(kept, flipped))
    return low, high


def _unseen(mean: float, count: int, bound: float) -> tuple[float, float]:
    """An interval for differences that are all equal: up to three in `count` queries may be unlike any that was seen.

    The rule of three is the 95 % bound on the share of something that did not happen in `count` cases. The sign is what
    the flips have shown; so the others differ by nothing at least, and at most by the whole range.
    """
    share = min(1.0, 3 / count)
    near = (1 - share) * mean
    far = near + math.copysign(share * bound, mean)
    return min(near, far), max(near, far)
