"""Thresholds from which a passage or a sentence counts as relevant, measured for each model."""

from __future__ import annotations

from typing import Literal, NamedTuple

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError

MinProbability = float | Literal["measured"]
"""A probability from 0 to 1, or `"measured"` for the one that was measured for the model."""


MinOdds = float | Literal["measured"]
"""A share of the best odds from 0 to 1, or `"measured"` for the one that was measured for the model."""


class Thresholds(NamedTuple):
    """The thresholds of one model.

    Attributes:
        passage: A passage with at least this probability answers the query. This is the threshold that best
            separates questions with an answer from questions without one (`benchmarks/relevance_gate.py`).
        sentence_odds: A sentence whose odds, times those of its passage, are at least this share of the best sentence's
            is kept: a share at which few answers are lost (`benchmarks/pruning.py`).
    """

    passage: float
    sentence_odds: float


MEASURED: dict[str, Thresholds] = {"bundled": Thresholds(passage=0.19, sentence_odds=0.01)}
"""Thresholds by the name of the model; a script in `benchmarks/` prints each number."""


def check_threshold(**settings: object) -> None:
    """Raise unless each setting is a number from 0 to 1 or `"measured"`.

    Raises:
        InvalidInputError: Naming the setting and its value.
    """
    for what, value in settings.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "measured" and not (is_number and 0 <= value <= 1):  # type: ignore[operator]
            raise InvalidInputError(f'{what} is {shorten(value)}; pass a number from 0 to 1, or "measured".')


def passage_threshold(model: str, min_probability: MinProbability) -> float:
    """Return the probability that a passage must have.

    Args:
        model: The name of the model.
        min_probability: What the caller chose.

    Raises:
        InvalidInputError: If none was measured for the model.
    """
    return min_probability if isinstance(min_probability, float | int) else _measured(model, "min_probability").passage


def sentence_odds(model: str, min_odds: MinOdds) -> float:
    """Return the share of the best sentence's odds that a sentence must have; see `passage_threshold`."""
    return min_odds if isinstance(min_odds, float | int) else _measured(model, "min_odds").sentence_odds


def _measured(model: str, setting: str) -> Thresholds:
    if model not in MEASURED:
        raise InvalidInputError(
            f"no threshold was measured for the model {shorten(model)}; pass {setting}, from 0 to 1, chosen on "
            "questions of your own with and without an answer."
        )
    return MEASURED[model]
