"""A cross-encoder that reads long passages whole, in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.checks import check_whole_numbers
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.errors import InvalidInputError


class WindowedCrossEncoder(WrapperCrossEncoder):
    """Scores a passage longer than `max_length` in overlapping token windows and returns the best window's score.

    The best window's character offsets are in `PairScore.window`, and in the metadata key `best_window` of the
    reranker's documents. Passages that fit are scored as usual.

    Taking the best window is the aggregation that MaxP names in Dai and Callan, "Deeper Text Understanding for IR
    with Contextual Neural Language Modeling" (SIGIR 2019).

    Args:
        inner: A cross-encoder on the onnx or torch backend.
        overlap: Tokens that neighbouring windows share, fewer than a query leaves for the passage; `None` for an
            eighth of `max_length`.

    Raises:
        InvalidInputError: If `overlap` is not a whole number, negative, or half of `max_length` or more, or if `inner`
            is a cache or a cascade, which would be bypassed.
    """

    _reads_whole_passages = True

    def __init__(self, inner: BaseCrossEncoder, *, overlap: int | None = None) -> None:
        super().__init__(inner)
        if self.inner._plans_calls:
            raise InvalidInputError(
                f"windows around {self.inner!r} would bypass it; put the windows inside, for example "
                "CachedCrossEncoder(WindowedCrossEncoder(model))."
            )
        overlap = self.max_length // 8 if overlap is None else overlap
        check_whole_numbers(overlap=(overlap, 0))
        if overlap >= self.max_length // 2:
            raise InvalidInputError(f"overlap is {overlap}; pass less than half of max_length={self.max_length}.")
        self.overlap = overlap

    @property
    def fingerprint(self) -> str:
        """The wrapped model's fingerprint with the overlap."""
        return f"{self.inner.fingerprint}:windows-{self.overlap}"

    @property
    def _least_passage_tokens(self) -> int:  # type: ignore[override]
        # A window must have more tokens than it shares with the one before.
        return self.overlap + 1

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return self.inner._encode_windows(text_pairs, self.overlap)
