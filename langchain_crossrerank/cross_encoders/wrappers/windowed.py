"""Reads long passages whole: overlapping windows, and the best window's score."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.errors import InvalidInputError


class WindowedCrossEncoder(WrapperCrossEncoder):
    """Scores a passage beyond `max_length` in overlapping token windows and gives it the best window's score.

    The winning window's character offsets come back in `PairScore.window`, and from the reranker in the metadata key
    `best_window`. Passages that fit are scored as always.

    Taking the best window is the aggregation that MaxP names in Dai and Callan, "Deeper Text Understanding for IR
    with Contextual Neural Language Modeling" (SIGIR 2019).

    Args:
        inner: A cross-encoder on the onnx or torch backend.
        overlap: Tokens that neighbouring windows share, less than the room that a query leaves for the passage;
            `None` is an eighth of `max_length`.

    Raises:
        InvalidInputError: If `overlap` is negative or half of `max_length` or more, or `inner` is a cache or a cascade,
            which would be gone past.
    """

    def __init__(self, inner: BaseCrossEncoder, *, overlap: int | None = None) -> None:
        super().__init__(inner)
        if type(self.inner).score_steps is not CrossEncoder.score_steps:
            raise InvalidInputError(
                f"{self.inner!r} does not score part by part; put the windows inside, for example "
                "CachedCrossEncoder(WindowedCrossEncoder(model))."
            )
        overlap = self.max_length // 8 if overlap is None else overlap
        if not 0 <= overlap < self.max_length // 2:
            raise InvalidInputError(
                f"overlap is {overlap}; pass 0 or more tokens, less than half of max_length={self.max_length}."
            )
        self.overlap = overlap

    @property
    def fingerprint(self) -> str:
        """The wrapped model's fingerprint with the overlap."""
        return f"{self.inner.fingerprint}:windows-{self.overlap}"

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return self.inner._encode_windows(text_pairs, self.overlap)
