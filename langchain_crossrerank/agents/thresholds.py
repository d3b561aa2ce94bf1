"""Thresholds from which a passage or a sentence counts as relevant, and what they leave out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from langchain_core.documents import Document

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import PRUNED, RELEVANCE_SCORE
from langchain_crossrerank.reranker import CrossEncoderReranker

_logger = logging.getLogger(__name__)

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


def check_min_probability(reranker: CrossEncoderReranker | None, min_probability: MinProbability | None) -> None:
    """Check what the caller chose for `relevant_documents`, and warn if there is no measured threshold to apply.

    Args:
        reranker: The reranker; `None` if there is none whose scores are known.
        min_probability: What the caller chose.

    Raises:
        InvalidInputError: If it is neither a number from 0 to 1 nor `"measured"` nor `None`.
    """
    if min_probability is not None:
        check_threshold(min_probability=min_probability)
    if reranker is not None and min_probability == "measured" and reranker.model_name not in MEASURED:
        _logger.warning(
            "No threshold was measured for the model %r, so passages are returned whatever their score; pass "
            "min_probability.",
            reranker.model_name,
        )


def relevant_documents(
    documents: Sequence[Document], reranker: CrossEncoderReranker | None, min_probability: MinProbability | None
) -> list[Document]:
    """Leave out documents to which a reranker gave too low a probability, or none of the full model of a cascade.

    Args:
        documents: Documents with the reranker's scores; one without a score, because the model failed, is kept.
        reranker: The reranker; `None` leaves nothing out.
        min_probability: The lowest probability; `"measured"` is the one measured for the model. `None` leaves nothing
            out, and neither does `"measured"` if none was measured.
    """
    if reranker is None or min_probability is None:
        return list(documents)
    if min_probability == "measured" and reranker.model_name not in MEASURED:
        return list(documents)
    threshold = passage_threshold(reranker.model_name, min_probability)
    return [document for document in documents if _is_relevant(document, reranker, threshold)]


def _is_relevant(document: Document, reranker: CrossEncoderReranker, threshold: float) -> bool:
    score, model = document.metadata.get(RELEVANCE_SCORE), reranker.cross_encoder
    # Where each pair is scored alone nothing is ruled out, and the key is the caller's own.
    is_pruned = not model.scores_pairs_alone and document.metadata.get(PRUNED) is True
    return score is None or (not is_pruned and model.probability(score) >= threshold)


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
