"""A wrapper that times the two parts of a cross-encoder: encoding pairs and forward passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from langchain_crossrerank.cross_encoders.base import CrossEncoder, ScoreSteps
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.evaluation.timing import Stopwatch


@dataclass
class ModelClock:
    """Adds up the milliseconds that backends take.

    Attributes:
        tokenise_ms: Milliseconds spent encoding pairs since the last `reset`.
        forward_ms: Milliseconds spent in forward passes since then.
    """

    tokenise_ms: float = 0.0
    forward_ms: float = 0.0

    def reset(self) -> None:
        """Start both sums from zero."""
        self.tokenise_ms = self.forward_ms = 0.0


class ClockedCrossEncoder(WrapperCrossEncoder):
    """Adds the time of a backend's two parts to a clock.

    A backend that plans its calls itself, such as a server's client, is timed as a whole, as one forward pass.

    Args:
        inner: The backend.
        clock: Where to add its time.
    """

    def __init__(self, inner: CrossEncoder, clock: ModelClock) -> None:
        super().__init__(inner)
        self.clock = clock

    @property
    def _plans_calls(self) -> bool:
        return self.inner._plans_calls

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score pairs like the backend."""
        steps = super().score_steps(text_pairs)
        if not self._plans_calls:
            return (yield from steps)
        while True:
            stopwatch = Stopwatch()
            try:
                share = next(steps)
            except StopIteration as stop:
                scored: list[PairScore] = stop.value
                return scored
            finally:
                self.clock.forward_ms += stopwatch.lap_ms()
            yield share

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        stopwatch = Stopwatch()
        encoded = self.inner._encode(text_pairs)
        self.clock.tokenise_ms += stopwatch.lap_ms()
        return encoded

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        stopwatch = Stopwatch()
        encoded = self.inner._encode_windows(text_pairs, overlap)
        self.clock.tokenise_ms += stopwatch.lap_ms()
        return encoded

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        stopwatch = Stopwatch()
        scores = self.inner._score_batch(batch)
        self.clock.forward_ms += stopwatch.lap_ms()
        return scores


def with_clock(model: CrossEncoder) -> tuple[CrossEncoder, ModelClock]:
    """Copy a model's wrappers around the same backends, with a clock directly around each backend.

    Returns:
        The copy, and the clock of all its backends.
    """
    clock = ModelClock()
    return around_backends(model, lambda backend: ClockedCrossEncoder(backend, clock)), clock


def around_backends(model: CrossEncoder, wrap: Callable[[CrossEncoder], CrossEncoder]) -> CrossEncoder:
    """Copy a model's wrappers around the same backends, each of which is wrapped.

    Args:
        model: The model.
        wrap: What to do with a backend.
    """
    if not isinstance(model, WrapperCrossEncoder):
        return wrap(model)
    wrapper = copy.copy(model)
    # A cascade has more than one.
    for name, part in vars(model).items():
        if isinstance(part, CrossEncoder):
            setattr(wrapper, name, around_backends(part, wrap))
    return wrapper
