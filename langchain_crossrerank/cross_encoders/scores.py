"""What a score is: its unit, and how the outputs of a classification head become one relevance logit per pair."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import ScoringError, UnsupportedModelError

Activation = Literal["identity", "sigmoid"]
"""`"identity"` gives the model's logits, `"sigmoid"` maps them to 0..1."""


def check_num_labels(num_labels: int, name: str) -> None:
    """Raise unless a head has one or two outputs.

    Raises:
        UnsupportedModelError: For any other number.
    """
    if num_labels not in (1, 2):
        raise UnsupportedModelError(
            f"{name!r} has a head with {num_labels} outputs; a reranker needs one relevance logit, or two logits "
            "(not relevant, relevant). It may be a classifier, an NLI model or an embedding model."
        )


def relevance_logits(logits: Any, name: str, *, relevant: int = 1) -> list[float]:
    """Return one logit for each pair.

    One output is the logit. The difference of two outputs is the log-odds of the relevant class, so that its sigmoid
    is exactly the softmax probability of that class.

    Args:
        logits: Array of shape (pairs,), (pairs, 1) or (pairs, 2).
        name: The model, for the error.
        relevant: Which of two outputs is the relevant class; see `relevant_label`.

    Returns:
        Plain floats, one for each pair.

    Raises:
        UnsupportedModelError: For any other shape.
    """
    if logits.ndim == 1:
        return [float(value) for value in logits]
    if logits.ndim != 2:
        raise UnsupportedModelError(
            f"{name!r} puts out an array of shape {tuple(logits.shape)} instead of (pairs, 1); "
            "it may be an embedding model: a reranker needs a sequence-classification head."
        )
    check_num_labels(int(logits.shape[1]), name)
    if logits.shape[1] == 1:
        return [float(row[0]) for row in logits]
    return [float(row[relevant]) - float(row[1 - relevant]) for row in logits]


def relevant_label(id2label: Mapping[Any, object] | None) -> int:
    """Return which of two outputs is the relevant class: the second, unless the labels' names say otherwise.

    Args:
        id2label: The config's names of labels, by their number.
    """
    names = {str(number): str(label).strip().lower() for number, label in (id2label or {}).items()}
    first, second = names.get("0", ""), names.get("1", "")
    return 0 if _is_negative(second) and not _is_negative(first) and not first.startswith("label") else 1


_NEGATIVE = re.compile(
    r"(ir|un|non?|not|in|dis)[\s_-]*(relevant|related|match|matching|duplicate|similar|equivalent|entailment)"
)


def _is_negative(label: str) -> bool:
    return label in ("no", "false", "negative", "bad", "irrelevant") or bool(_NEGATIVE.match(label))


def check_finite(scores: Sequence[float], name: str) -> None:
    """Raise `ScoringError` with the positions of scores that are NaN or infinite."""
    positions = [position for position, score in enumerate(scores) if not math.isfinite(score)]
    if positions:
        raise ScoringError(
            f"{name!r} gave scores that are not finite at positions {shorten(positions)} of {len(scores)}; "
            "the weights or their precision are broken, so no order can be trusted.",
            positions=positions,
        )


def sigmoid(logit: float) -> float:
    """Map a logit to 0..1 without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def log_odds(probability: float) -> float:
    """Undo `sigmoid`; 0 and 1 give the log-odds of a probability within 1e-12 of them."""
    smallest = 1e-12
    clipped = min(max(probability, smallest), 1 - smallest)
    return math.log(clipped / (1 - clipped))
