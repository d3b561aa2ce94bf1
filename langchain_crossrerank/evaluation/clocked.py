"""A wrapper that times the two parts of a cross-encoder: encoding pairs and forward passes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.evaluation.timing import Stopwatch


class ClockedCrossEncoder(WrapperCrossEncoder):
    """Adds up the milliseconds of the wrapped backend's two parts.

    Attributes:
        tokenise_ms: Milliseconds spent encoding pairs since the last `reset`.
        forward_ms: Milliseconds spent in forward passes since then.
    """

    def __init__(self, inner: CrossEncoder) -> None:
        super().__init__(inner)
        self.reset()

    def reset(self) -> None:
        """Start both sums from zero."""
        self.tokenise_ms = self.forward_ms = 0.0

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        stopwatch = Stopwatch()
        encoded = self.inner._encode(text_pairs)
        self.tokenise_ms += stopwatch.lap_ms()
        return encoded

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        stopwatch = Stopwatch()
        encoded = self.inner._encode_windows(text_pairs, overlap)
        self.tokenise_ms += stopwatch.lap_ms()
        return encoded

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        stopwatch = Stopwatch()
        scores = self.inner._score_batch(batch)
        self.forward_ms += stopwatch.lap_ms()
        return scores


def with_clock(model: CrossEncoder) -> tuple[CrossEncoder, ClockedCrossEncoder]:
    """Copy a model's wrappers around the same backend, with a clock directly around the backend.

    Returns:
        The copy, and the clock inside it.
    """
    if not isinstance(model, WrapperCrossEncoder):
        clock = ClockedCrossEncoder(model)
        return clock, clock
    wrapper = copy.copy(model)
    wrapper.inner, clock = with_clock(model.inner)
    return wrapper, clock
