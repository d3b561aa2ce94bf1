"""Measures by `ir-measures`, and whether a mean difference between two systems is more than chance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langchain_crossrerank.errors import InvalidInputError

Run = Mapping[str, Mapping[str, float]]
"""Scores by query id and document id."""

RESAMPLES = 10_000


def measure_per_query(
    measures: Sequence[str], qrels: Mapping[str, Mapping[str, int]], run: Run
) -> dict[str, dict[str, float]]:
    """Measure a run, query by query.

    Args:
        measures: Names as `ir-measures` spells them, for example `"nDCG@10"`.
        qrels: Judgements.
        run: Scores; a judged query that is not in it scores what the measure gives for no results.

    Returns:
        For each measure the value by query id, for every judged query.
    """
    import ir_measures

    names: dict[Any, list[str]] = {}
    for name in measures:
        names.setdefault(parse_measure(name), []).append(name)
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    for value in ir_measures.iter_calc(list(names), qrels, {key: dict(scores) for key, scores in run.items()}):
        for name in names[value.measure]:
            values[name][value.query_id] = float(value.value)
    for by_query in values.values():
        for query_id in qrels:
            by_query.setdefault(query_id, 0.0)
    return values


def check_measures(measures: Sequence[str]) -> None:
    """Raise unless `measures` is a list of at least one measure that can be computed here.

    Raises:
        InvalidInputError: Naming the first that cannot.
    """
    if isinstance(measures, str) or not measures:
        raise InvalidInputError(f"measures is {measures!r}; pass a list of names, for example ['nDCG@10', 'R@k'].")
    for name in with_depth(measures, 1):
        parse_measure(name)


def parse_measure(name: str) -> Any:
    """Give the `ir-measures` object of a name.

    Raises:
        InvalidInputError: If there is no such measure, or it cannot be computed here.
    """
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError) as err:
        raise InvalidInputError(
            f"{name!r} is no measure that ir-measures knows; use names such as 'nDCG@10', 'RR@10', 'R@100', 'AP'."
        ) from err
    depth = measure.params.get("cutoff")
    if depth is not None and (not isinstance(depth, int) or depth < 1):
        # trec_eval ends the whole process at a depth of 0.
        raise InvalidInputError(f"the measure {name!r} has the depth {depth!r}; pass a whole number of at least 1.")
    try:
        list(ir_measures.iter_calc([measure], {"q": {"d": 1}}, {"q": {"d": 1.0}}))
    except Exception as err:
        # Every program behind ir-measures has its own errors.
        raise InvalidInputError(
            f"the measure {name!r} cannot be computed here ({type(err).__name__}: {err}); it may lack a depth such as "
            "@10, or a program of its own."
        ) from err
    return measure


def with_depth(measures: Sequence[str], k: int) -> list[str]:
    """Put the number of candidates into measures written with a `k`, as in `"R@k"`; each measure once."""
    return list(dict.fromkeys(re.sub(r"@k$", f"@{k}", name) for name in measures))


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
