"""The contract of a cross-encoder: validate pairs, batch them by tokens, score, check."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cached_property
from typing import Any
from uuid import uuid4

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.pairs import (
    EncodedPair,
    PairScore,
    TextPair,
    check_text_pairs,
    chunks_to_encode,
    plan_batches,
)
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, drain
from langchain_crossrerank.cross_encoders.scores import Activation, check_finite, sigmoid
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ScoringError

ScoreSteps = Generator[None, None, "list[PairScore]"]
"""Scoring as a generator: each `next()` does one bounded piece of work, the return value is the result."""

DEFAULT_MAX_BATCH_TOKENS = 1024

_PLANNED_PAIRS = 1024

_logger = logging.getLogger(__name__)


class CrossEncoder(BaseCrossEncoder):
    """A model that reads a query and a passage together and says how well the passage answers.

    A backend implements `_score_batch`, and `_encode` where it knows its tokens. Everything else is here, once:
    pairs are checked, equal pairs are scored once, batches hold pairs of like length within `max_batch_tokens`,
    and the number and finiteness of scores is checked. Scores come back in the order of the pairs.

    Work is a sequence of small steps (`score_steps`), so that it can be interleaved with other callers' work,
    stopped when a caller gives up, and bounded in memory whatever the number of pairs.

    Attributes:
        name: What the model was asked for by: a hub name, a folder, or `"bundled"`.
        backend: What computes the scores, for example `"onnx"`.
        activation: The unit of the scores.
        max_length: The most tokens of a pair that the model reads; longer passages are cut, queries never.
        max_batch_tokens: The most tokens, padding included, in one forward pass. A single longer pair still runs.
        max_batch_pairs: The most pairs in one forward pass; `None` for no limit but that of tokens.
        scores_pairs_alone: Whether a pair's score is the same whatever other pairs it is scored with.
    """

    name: str
    backend: str
    activation: Activation
    max_length: int
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    max_batch_pairs: int | None = None
    scores_pairs_alone: bool = True

    _told_of_truncation = False

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        """Score each pair.

        Args:
            text_pairs: `(query, passage)` tuples; any iterable, of any length.

        Returns:
            One plain float a pair, in input order.

        Raises:
            InvalidInputError: If an element is not a pair of strings, or a query alone fills `max_length`.
            ScoringError: If the model fails, gives too few or too many scores, or a score is not finite.
        """
        return [scored.score for scored in drain(self.score_steps(text_pairs))]

    async def ascore(self, text_pairs: Iterable[TextPair]) -> list[float]:
        """Score each pair without blocking the event loop; see `score`.

        The work runs on a thread of its own, interleaved batch by batch with other calls' work. Cancelling the
        awaiting task stops it at the next batch.

        Raises:
            OverloadedError: If too many calls are already waiting.
        """
        return [scored.score for scored in await self.ascore_pairs(text_pairs)]

    async def ascore_pairs(self, text_pairs: Iterable[TextPair]) -> list[PairScore]:
        """Score each pair without blocking the event loop, keeping what is known beside the score."""
        return await self.scheduler.run(self.score_steps(text_pairs))

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score pairs in small steps: advance the generator until it returns the result.

        Returns:
            A generator that yields after each bounded piece of work and returns one `PairScore` a pair.
        """
        pairs = check_text_pairs(text_pairs)
        unique = list(dict.fromkeys(pairs))
        scores: dict[TextPair, PairScore] = {}
        # Part by part, so that the tokens of thousands of pairs are not all in memory at once.
        for start in range(0, len(unique), _PLANNED_PAIRS):
            encoded: list[EncodedPair] = []
            for chunk in chunks_to_encode(unique[start : start + _PLANNED_PAIRS]):
                encoded += self._guarded(self._encode, chunk, pairs, chunk)
                yield
            self._tell_of_truncation(encoded)
            for batch in self._plan(encoded):
                for item, value in zip(batch, self._checked_batch(batch, pairs), strict=True):
                    best = scores.get(item.text_pair)
                    # NaN compares false, so it stays to be found below.
                    if best is None or value > best.score or value != value:  # noqa: PLR0124
                        scores[item.text_pair] = PairScore(value, truncated=item.truncated, window=item.window)
                yield
        results = [scores[pair] for pair in pairs]
        check_finite([result.score for result in results], self.name)
        return results

    def probability(self, score: float) -> float:
        """Map one of this model's scores to 0..1; a score that is a probability already stays as it is."""
        return score if self.activation == "sigmoid" else sigmoid(score)

    @property
    def fingerprint(self) -> str:
        """A text that differs whenever the same pair could get another score; caches use it as a key."""
        return f"{type(self).__name__}:{self.name}:{self.activation}:{self.max_length}"

    @cached_property
    def scheduler(self) -> StepScheduler:
        """The worker that interleaves this model's asynchronous calls."""
        return StepScheduler(name=f"crossrerank-{self.name}")

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        """Make pairs ready for `_score_batch`; here the number of tokens is guessed at four characters a token."""
        return [
            EncodedPair(pair, tokens=min(self.max_length, 3 + (len(pair[0]) + len(pair[1])) // 4))
            for pair in text_pairs
        ]

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        """Divide encoded pairs into batches, each for one `_score_batch`."""
        return plan_batches(encoded, self.max_batch_tokens, self.max_batch_pairs)

    @abstractmethod
    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        """Score one batch in one forward pass: one number for each pair, in the batch's order."""

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:  # noqa: ARG002
        """Like `_encode`, but a passage beyond `max_length` gives several overlapping windows instead of being cut.

        Args:
            text_pairs: The pairs.
            overlap: Tokens that neighbouring windows share.

        Returns:
            One or more items a pair; those of a divided passage carry `window`.

        Raises:
            InvalidInputError: If this backend does not know its tokens.
        """
        raise InvalidInputError(
            f"{self.name!r} on the {self.backend} backend does not tell how it tokenises, so passages cannot be "
            "divided into windows; use the onnx or torch backend, or split the documents."
        )

    def _tell_of_truncation(self, encoded: Sequence[EncodedPair]) -> None:
        cut = sum(item.truncated for item in encoded)
        if cut and not self._told_of_truncation:
            self._told_of_truncation = True
            _logger.warning(
                "%r reads %d tokens of a pair; %d of %d passages were longer and their ends were not read. Wrap the "
                "model in WindowedCrossEncoder to read all of them. This is said once.",
                self.name,
                self.max_length,
                cut,
                len(encoded),
            )

    def _guarded(
        self, work: Callable[[Any], Any], argument: Any, pairs: Sequence[TextPair], members: Iterable[TextPair]
    ) -> Any:
        """Call a backend's method; whatever it raises comes out as an error of this package."""
        try:
            return work(argument)
        except CrossRerankError:
            raise
        except Exception as err:
            positions = _positions(pairs, members)
            raise ScoringError(
                f"{self.name!r} failed on {len(positions)} pairs ({type(err).__name__}: {err}); "
                "check the model, or rerank with on_error='keep_order' to go on without it.",
                positions=positions,
            ) from err

    def _checked_batch(self, batch: Sequence[EncodedPair], pairs: Sequence[TextPair]) -> list[float]:
        members = [item.text_pair for item in batch]
        values: list[float] = self._guarded(
            lambda items: [float(value) for value in self._score_batch(items)], batch, pairs, members
        )
        if len(values) != len(batch):
            positions = _positions(pairs, members)
            raise ScoringError(
                f"{self.name!r} gave {len(values)} scores for {len(batch)} pairs at positions {shorten(positions)}; "
                "a model must give exactly one score a pair.",
                positions=positions,
            )
        return values

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, backend={self.backend!r}, activation={self.activation!r}, "
            f"max_length={self.max_length}, max_batch_tokens={self.max_batch_tokens})"
        )


class ForeignCrossEncoder(CrossEncoder):
    """Any other `BaseCrossEncoder` of LangChain, brought under the same checks, batching and steps.

    Args:
        model: The model to call; its `score` gets one batch of pairs at a time.
        max_batch_tokens: Guessed tokens, at four characters each, in one call.
    """

    backend = "foreign"
    max_length = 512

    def __init__(self, model: BaseCrossEncoder, *, max_batch_tokens: int = 16 * 512) -> None:
        self.model = model
        self.name = str(getattr(model, "model_name", None) or type(model).__name__)
        self.max_batch_tokens = max_batch_tokens
        # Nothing is known of the weights, so each object counts as a model of its own.
        self._identity = uuid4().hex
        # LangChain's HuggingFaceCrossEncoder keeps the sentence-transformers model, which knows its unit.
        activation = getattr(getattr(model, "client", None), "activation_fn", None)
        self.activation = "sigmoid" if type(activation).__name__ == "Sigmoid" else "identity"

    @property
    def fingerprint(self) -> str:
        """A text of this object's own: its scores are found again in this process only."""
        return f"foreign:{self.name}:{self._identity}"

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return self.model.score([item.text_pair for item in batch])


def as_cross_encoder(model: BaseCrossEncoder) -> CrossEncoder:
    """Give any LangChain cross-encoder the checks, batching and steps of this package.

    Args:
        model: A `BaseCrossEncoder`; a `CrossEncoder` is given back as it is.
    """
    return model if isinstance(model, CrossEncoder) else ForeignCrossEncoder(model)


def check_query_room(query: str, left: int, room: int, model: CrossEncoder) -> None:
    """Raise unless a query leaves a passage the room that it needs.

    Args:
        query: The query.
        left: Tokens that the query leaves within `model.max_length`.
        room: Tokens that the passage needs at least.
        model: The model, for the error.

    Raises:
        InvalidInputError: If it does not.
    """
    if left < room:
        raise InvalidInputError(
            f"the query of {len(query)} characters leaves {max(0, left)} of the {model.max_length} tokens that "
            f"{model.name!r} reads, and a passage needs {room}; shorten the query, or use a model that reads more."
        )


def _positions(pairs: Sequence[TextPair], members: Iterable[TextPair]) -> list[int]:
    wanted = set(members)
    return [position for position, pair in enumerate(pairs) if pair in wanted]
