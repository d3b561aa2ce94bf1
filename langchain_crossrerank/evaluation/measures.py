"""Measures of ranked lists, computed by `ir-measures`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_crossrerank.errors import InvalidInputError

Run = Mapping[str, Mapping[str, float]]
"""Scores by query id and document id."""


def measure_per_query(
    measures: Sequence[str], qrels: Mapping[str, Mapping[str, int]], run: Run
) -> dict[str, dict[str, float]]:
    """Measure a run, query by query.

    Args:
        measures: Names as `ir-measures` spells them, for example `"nDCG@10"`.
        qrels: Judgements.
        run: Scores; a judged query that is missing here scores the measure's value of an empty list.

    Returns:
        For each measure the value by query id, for every judged query.
    """
    import ir_measures

    names: dict[Any, list[str]] = {}
    for name in measures:
        names.setdefault(parse_measure(name), []).append(name)
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    # Some of its measures divide by the length of a list.
    found = {key: dict(scores) for key, scores in run.items() if scores}
    # All negative grades mean the same, and trec_eval writes past its memory at -2 and below.
    grades = {key: {document: max(grade, -1) for document, grade in judged.items()} for key, judged in qrels.items()}
    for value in ir_measures.iter_calc(list(names), grades, found):
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
    """Return the `ir-measures` object of a name.

    Raises:
        InvalidInputError: If the measure is unknown or cannot be computed here.
    """
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError) as err:
        raise InvalidInputError(
            f"{name!r} is not a measure of ir-measures; use names such as 'nDCG@10', 'RR@10', 'R@100', 'AP'."
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
    """Replace the `k` in measures such as `"R@k"` by the number of candidates, and drop repeated measures."""
    return list(dict.fromkeys(re.sub(r"@k$", f"@{k}", name) for name in measures))


def as_run(ranked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Turn ranked lists into scores that fall by one, so that evaluation tools keep exactly this order."""
    return {key: {document: float(-place) for place, document in enumerate(ids)} for key, ids in ranked.items()}


def best_orders(ranked: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    """Order each list by grade: no reranker of the same candidates can do better."""
    return {
        key: sorted(ids, key=lambda document, grades=qrels[key]: -grades.get(document, 0))  # type: ignore[misc]
        for key, ids in ranked.items()
    }
