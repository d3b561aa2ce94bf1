"""Whether a mean difference between two systems is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two systems over the same queries.

    Attributes:
        mean: Mean of after minus before.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p_value: Share of resamples, under no difference, at least as far from zero; two-sided.
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> PairedDifference:
    """Resample queries with replacement, 10,000 times, and look at the mean difference.

    The interval is the percentile interval and the p-value comes from resampling the differences shifted to mean 0
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16).

    Args:
        before: One value a query.
        after: The other system's values, in the same order.
        seed: Of the random numbers, so that the same input gives the same output.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    mean = float(differences.mean())
    if len(differences) == 1:
        # One query says nothing about others, whatever it gained.
        return PairedDifference(mean, min(mean, 0.0), max(mean, 0.0), 1.0)
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    # In pieces, so that memory does not grow with the number of queries.
    for start in range(0, RESAMPLES, 500):
        picks = random.integers(0, len(differences), size=(500, len(differences)))
        means[start : start + 500] = differences[picks].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    beyond = np.abs(means - mean) >= abs(mean) - 1e-12
    p_value = (int(beyond.sum()) + 1) / (RESAMPLES + 1) if mean else 1.0
    return PairedDifference(mean, float(low), float(high), p_value)
