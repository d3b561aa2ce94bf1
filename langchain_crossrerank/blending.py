"""Orders candidates by the cross-encoder together with the first stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Literal

from langchain_core.documents import Document

Blend = Literal["weighted", "rrf"]
"""`"weighted"` adds log-odds and z-normalised first-stage scores; `"rrf"` is reciprocal rank fusion."""

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""


_SAFE = 1e100
"""Beyond this a sum of squares overflows."""


def blend_scores(
    documents: Sequence[Document], logits: Sequence[float], *, blend: Blend, weight: float, score_key: str
) -> list[float]:
    """Return one number for each candidate to sort by, from the cross-encoder's score and the first stage.

    In a weighted blend the cross-encoder's log-odds are not normalised: if it is sure, they are far apart and it
    decides; if it can hardly distinguish the candidates, the first stage decides. Only the first stage's scores, which
    can be in any unit, are normalised.

    Args:
        documents: The candidates in the first stage's order.
        logits: The cross-encoder's scores as log-odds, in the same order.
        blend: How to combine the two.
        weight: Share of the cross-encoder, 0 to 1; the first stage has the rest.
        score_key: Metadata key of the first stage's score. If a candidate does not have it, or the scores neither fall
            nor rise along the list, ranks are used for all.

    Returns:
        Numbers to sort in descending order; they are comparable only within this list of candidates.
    """
    if blend == "rrf":
        ranks = ranks_of(logits)
        return [
            weight / (RRF_K + rank) + (1 - weight) / (RRF_K + initial) for initial, rank in enumerate(ranks, start=1)
        ]
    first = first_stage_scores(documents, score_key)
    if first is None:
        # Scores usually fall steeply at the top of a list and slowly later on, as the logarithm does.
        first = [-math.log(rank) for rank in range(1, len(documents) + 1)]
    pairs = zip(logits, z_normalised(first), strict=True)
    return [weight * ours + (1 - weight) * theirs for ours, theirs in pairs]


def first_stage_scores(documents: Sequence[Document], score_key: str) -> list[float] | None:
    """Return the first stage's scores, higher is better, or `None` if they do not explain its order.

    Scores that rise from the best candidate to the last are distances, and are negated. Where a candidate has none, or
    they go up and down, as in a list that was reordered or merged, it is unknown which direction is better.
    """
    scores = [document.metadata.get(score_key) for document in documents]
    numbers = [number for score in scores if (number := _finite(score)) is not None]
    if len(numbers) != len(scores):
        return None
    if numbers == sorted(numbers, reverse=True):
        return numbers
    return [-number for number in numbers] if numbers == sorted(numbers) else None


def _finite(score: object) -> float | None:
    if not isinstance(score, int | float):
        return None
    try:
        number = float(score)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def ranks_of(scores: Sequence[float]) -> list[int]:
    """Return the rank of each score, from 1 for the highest; equal scores keep their order."""
    order = sorted(range(len(scores)), key=lambda position: -scores[position])
    ranks = [0] * len(scores)
    for rank, position in enumerate(order, start=1):
        ranks[position] = rank
    return ranks


def z_normalised(values: Sequence[float]) -> list[float]:
    """Shift and scale values to mean 0 and standard deviation 1; equal values all become 0."""
    largest = max(map(abs, values), default=0.0)
    if largest > _SAFE:
        values = [value / largest for value in values]
    deviation = pstdev(values)
    if deviation == 0:
        return [0.0] * len(values)
    mean = fmean(values)
    return [(value - mean) / deviation for value in values]
