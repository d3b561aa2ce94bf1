"""The wrapper base class: delegates everything to another cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler


class WrapperCrossEncoder(CrossEncoder):
    """A cross-encoder around another one: delegates everything, for a subclass to override one thing.

    Args:
        inner: The cross-encoder to wrap; any LangChain `BaseCrossEncoder`.
    """

    def __init__(self, inner: BaseCrossEncoder) -> None:
        self.inner = as_cross_encoder(inner)
        self.name = self.inner.name
        self.backend = self.inner.backend
        self.activation = self.inner.activation
        self.max_length = self.inner.max_length
        self.max_batch_tokens = self.inner.max_batch_tokens
        self.max_batch_pairs = self.inner.max_batch_pairs
        self.scores_pairs_alone = self.inner.scores_pairs_alone

    @property
    def fingerprint(self) -> str:
        """The wrapped model's fingerprint."""
        return self.inner.fingerprint

    @cached_property
    def scheduler(self) -> StepScheduler:
        """The wrapped model's worker, so that wrapped and bare calls take turns."""
        return self.inner.scheduler

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return self.inner._encode(text_pairs)

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        return self.inner._encode_windows(text_pairs, overlap)

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        return self.inner._plan(encoded)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return self.inner._score_batch(batch)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"
