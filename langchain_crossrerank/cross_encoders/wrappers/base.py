"""The base class of wrappers, which delegates everything to another cross-encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.base import CrossEncoder, LongQuery, ScoreSteps, as_cross_encoder
from langchain_crossrerank.cross_encoders.languages import LanguageCheck
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler

if TYPE_CHECKING:
    from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.cross_encoders.truncation import Spans


class WrapperCrossEncoder(CrossEncoder):
    """A cross-encoder around another one: it delegates everything, and a subclass overrides one thing.

    Attributes are looked up in the wrapped model each time, because some change while it is used: the size of a batch
    is measured, and a server's unit may turn out to be another. Where the wrapped model overrides `score_steps`, that
    is delegated as a whole; otherwise `score_steps` calls the parts, each of which is delegated.

    Args:
        inner: The cross-encoder to wrap; any LangChain `BaseCrossEncoder`.
    """

    def __init__(self, inner: BaseCrossEncoder) -> None:
        self.inner = as_cross_encoder(inner)

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here
        """The wrapped model's name."""
        return self.inner.name

    @property
    def backend(self) -> str:  # type: ignore[override]
        """The wrapped model's backend."""
        return self.inner.backend

    @property
    def activation(self) -> Activation:  # type: ignore[override]
        """The unit of the wrapped model's scores."""
        return self.inner.activation

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """The most tokens of a pair that the wrapped model reads."""
        return self.inner.max_length

    @property
    def max_batch_tokens(self) -> int:  # type: ignore[override]
        """The most tokens in one forward pass of the wrapped model."""
        return self.inner.max_batch_tokens

    @property
    def max_batch_pairs(self) -> int | None:  # type: ignore[override]
        """The most pairs in one forward pass of the wrapped model."""
        return self.inner.max_batch_pairs

    @property
    def _language_check(self) -> LanguageCheck | None:  # type: ignore[override]
        return self.inner._language_check

    @property
    def scores_pairs_alone(self) -> bool:  # type: ignore[override]
        """Whether the wrapped model scores a pair the same in any batch."""
        return self.inner.scores_pairs_alone

    @property
    def fingerprint(self) -> str:
        """The wrapped model's fingerprint."""
        return self.inner.fingerprint

    @property
    def scheduler(self) -> StepScheduler:
        """The wrapped model's worker, so that wrapped and bare calls take turns."""
        return self.inner.scheduler

    @property
    def long_query(self) -> LongQuery:  # type: ignore[override]
        """What the wrapped model does with a long query."""
        return self.inner.long_query

    @property
    def _knows_tokens(self) -> bool:  # type: ignore[override]
        return self.inner._knows_tokens

    @property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return self.inner._frame_tokens

    @property
    def _reads_whole_passages(self) -> bool:  # type: ignore[override]
        return self.inner._reads_whole_passages

    @property
    def _least_passage_tokens(self) -> int:  # type: ignore[override]
        return self.inner._least_passage_tokens

    @property
    def _plans_calls(self) -> bool:
        return type(self).score_steps is not WrapperCrossEncoder.score_steps or self.inner._plans_calls

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score pairs like the wrapped model."""
        if self.inner._plans_calls:
            return self.inner.score_steps(text_pairs)
        return super().score_steps(text_pairs)

    def _query_spans(self, query: str) -> Spans:
        return self.inner._query_spans(query)

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
