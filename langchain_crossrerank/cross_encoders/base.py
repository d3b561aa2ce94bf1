"""The contract of a cross-encoder: validate pairs, batch them by tokens, score, check."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, drain
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ScoringError

TextPair = tuple[str, str]
"""A query and a passage, in this order."""

Activation = Literal["identity", "sigmoid"]
"""`"identity"` gives the model's logits, `"sigmoid"` maps them to 0..1."""

ScoreSteps = Generator[None, None, "list[PairScore]"]
"""Scoring as a generator: each `next()` does one bounded piece of work, the return value is the result."""

DEFAULT_MAX_BATCH_TOKENS = 1024

_ENCODE_CHUNK = 64


@dataclass(frozen=True)
class PairScore:
    """What scoring one pair gave.

    Attributes:
        score: The model's score; a logit or a probability, as the model's `activation` says.
        truncated: Whether the passage was longer than the model reads, so that its end was not seen.
        window: First and last-plus-one character of the passage's best window, when it was scored in windows.
    """

    score: float
    truncated: bool = False
    window: tuple[int, int] | None = None


@dataclass
class EncodedPair:
    """One pair made ready for a backend.

    Attributes:
        text_pair: The query and the passage.
        tokens: How many tokens the pair takes, special tokens included; batches are planned with it.
        truncated: Whether the passage was cut to fit.
        features: What the backend made of the pair, for example token ids; the base class does not look at it.
    """

    text_pair: TextPair
    tokens: int
    truncated: bool = False
    features: Any = None


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
    """

    name: str
    backend: str
    activation: Activation
    max_length: int
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS

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
        encoded: list[EncodedPair] = []
        for start in range(0, len(unique), _ENCODE_CHUNK):
            encoded += self._encode(unique[start : start + _ENCODE_CHUNK])
            yield
        scores: dict[TextPair, PairScore] = {}
        for batch in plan_batches(encoded, self.max_batch_tokens):
            values = self._checked_batch(batch, pairs)
            for item, value in zip(batch, values, strict=True):
                scores[item.text_pair] = PairScore(value, truncated=item.truncated)
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

    @abstractmethod
    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        """Score one batch in one forward pass: one number for each pair, in the batch's order."""

    def _checked_batch(self, batch: Sequence[EncodedPair], pairs: Sequence[TextPair]) -> list[float]:
        members = {item.text_pair for item in batch}
        try:
            values = [float(value) for value in self._score_batch(batch)]
        except CrossRerankError:
            raise
        except Exception as err:
            positions = [i for i, pair in enumerate(pairs) if pair in members]
            raise ScoringError(
                f"{self.name!r} failed on a batch of {len(batch)} pairs ({type(err).__name__}: {err}); "
                "check the model, or rerank with on_error='keep_order' to go on without it.",
                positions=positions,
            ) from err
        if len(values) != len(batch):
            positions = [i for i, pair in enumerate(pairs) if pair in members]
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
    activation: Activation = "identity"
    max_length = 512

    def __init__(self, model: BaseCrossEncoder, *, max_batch_tokens: int = 16 * 512) -> None:
        self.model = model
        self.name = str(getattr(model, "model_name", None) or type(model).__name__)
        self.max_batch_tokens = max_batch_tokens

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return self.model.score([item.text_pair for item in batch])


def check_text_pairs(text_pairs: Iterable[TextPair]) -> list[TextPair]:
    """Check that every element is a pair of strings, and give them a form every tokenizer takes.

    Lone surrogates become the replacement character, and a passage of nothing but white space becomes `""`.

    Args:
        text_pairs: `(query, passage)` tuples or lists.

    Returns:
        The pairs, in order.

    Raises:
        InvalidInputError: Naming the first bad element.
    """
    checked: list[TextPair] = []
    for position, pair in enumerate(text_pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInputError(
                f"text_pairs[{position}] is {shorten(pair)}, not a (query, passage) pair; pass tuples of two strings."
            )
        query, passage = pair
        if not isinstance(passage, str):
            raise InvalidInputError(
                f"the passage of text_pairs[{position}] is {shorten(passage)} of type {type(passage).__name__}; "
                "pass a string."
            )
        checked.append((encodable(check_query(query)), encodable(passage) if not passage.isspace() else ""))
    return checked


def check_query(query: object) -> str:
    """Give the query back if it is a string with something in it.

    Raises:
        InvalidInputError: If it is not a string, or blank.
    """
    if not isinstance(query, str):
        raise InvalidInputError(f"query is {shorten(query)} of type {type(query).__name__}; pass a string.")
    if not query or query.isspace():
        raise InvalidInputError(f"query is {query!r}, which asks nothing; pass the text to search for.")
    return query


def plan_batches(encoded: Sequence[EncodedPair], max_batch_tokens: int) -> list[list[EncodedPair]]:
    """Group pairs of like length so that no batch holds more than `max_batch_tokens` tokens, padding included.

    Args:
        encoded: Pairs with their token counts.
        max_batch_tokens: The limit; a pair above it gets a batch of its own.

    Returns:
        Batches, those of the longest pairs first, so that memory peaks at the start and not late in the work.
    """
    batches: list[list[EncodedPair]] = []
    for item in sorted(encoded, key=lambda pair: -pair.tokens):
        current = batches[-1] if batches else []
        if current and (len(current) + 1) * current[0].tokens <= max_batch_tokens:
            current.append(item)
        else:
            batches.append([item])
    return batches


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


def encodable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes; surrogate pairs become the character they stand for."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def shorten(value: object, limit: int = 80) -> str:
    """Show a value in an error message without flooding it."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
