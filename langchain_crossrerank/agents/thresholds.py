"""The probabilities from which on a passage or a sentence counts as relevant, measured for each model."""

from __future__ import annotations

from typing import Literal, NamedTuple

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError

MinProbability = float | Literal["measured"]
"""A probability from 0 to 1, or `"measured"` for the one that was measured for the model."""


class Thresholds(NamedTuple):
    """The probabilities of one model.

    Attributes:
        passage: A passage with at least this probability answers the query: the one at which the most questions with
            and without an answer are told apart (`benchmarks/relevance_gate.py`).
        sentence: A sentence with at least this probability is kept: the highest one at which no answer was lost
            (`benchmarks/pruning.py`).
    """

    passage: float
    sentence: float


MEASURED: dict[str, Thresholds] = {"bundled": Thresholds(passage=0.13, sentence=0.01)}
"""Thresholds by the name of the model; a script in `benchmarks/` prints each number."""


def check_probability(value: object, *, what: str = "min_probability") -> None:
    """Raise unless a value is a probability, `"measured"` or `None`.

    Raises:
        InvalidInputError: Naming the value.
    """
    if value is None or value == "measured":
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InvalidInputError(f'{what} is {shorten(value)}; pass a probability from 0 to 1, or "measured".')


def passage_threshold(model: str, min_probability: MinProbability) -> float:
    """Return the probability that a passage must have.

    Args:
        model: The name of the model.
        min_probability: What the caller chose.

    Raises:
        InvalidInputError: If none was measured for the model.
    """
    return min_probability if isinstance(min_probability, float | int) else _measured(model).passage


def sentence_threshold(model: str, min_probability: MinProbability) -> float:
    """Return the probability that a sentence must have; see `passage_threshold`."""
    return min_probability if isinstance(min_probability, float | int) else _measured(model).sentence


def _measured(model: str) -> Thresholds:
    if model not in MEASURED:
        raise InvalidInputError(
            f"no threshold was measured for the model {shorten(model)}; pass min_probability, from 0 to 1, chosen on "
            "questions of your own with and without an answer."
        )
    return MEASURED[model]
