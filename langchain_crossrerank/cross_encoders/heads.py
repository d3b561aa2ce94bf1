"""Turns what a classification head puts out into one relevance logit a pair, the same for every backend."""

from __future__ import annotations

from typing import Any

from langchain_crossrerank.errors import UnsupportedModelError


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


def relevance_logits(logits: Any, name: str) -> list[float]:
    """Give one logit a pair.

    One output is the logit. Two outputs are (not relevant, relevant): their difference is the log-odds of the
    relevant class, so that its sigmoid is exactly the softmax probability of that class.

    Args:
        logits: Array of shape (pairs,), (pairs, 1) or (pairs, 2).
        name: The model, for the error.

    Returns:
        Plain floats, one a pair.

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
    return [float(row[1]) - float(row[0]) for row in logits]
