"""The contract of a cross-encoder: check pairs, cut what is too long, batch by tokens, score, check the scores."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self
from uuid import uuid4

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.languages import MULTILINGUAL_MODEL, LanguageCheck, script_of
from langchain_crossrerank.cross_encoders.pairs import (
    EncodedPair,
    PairScore,
    TextPair,
    check_text_pairs,
    chunks_to_encode,
    plan_batches,
)
from langchain_crossrerank.cross_encoders.scheduling import Steps, StepScheduler, drain
from langchain_crossrerank.cross_encoders.scores import Activation, check_finite, sigmoid
from langchain_crossrerank.cross_encoders.truncation import LONGEST_QUERY_SHARE, Spans, beginning, cut_middle
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ScoringError
from langchain_crossrerank.redaction import show_url

ScoreSteps = Steps[list[PairScore]]
"""Scoring as a generator: each `next()` does one bounded piece of work, the return value is the result."""

DEFAULT_MAX_BATCH_TOKENS = 1024
"""Maximum tokens of a forward pass where neither the caller nor the backend says otherwise."""

LongQuery = Literal["cut", "error"]
"""What to do with a query that leaves too little of `max_length` for the passage."""

PLANNED_PAIRS = 1024
"""Pairs that are encoded, and batched by length, at a time."""

_TEXTS_CHECKED = 3
_WARM_UP_PAIR = ("a query", "a passage")

_logger = logging.getLogger(__name__)


class CrossEncoder(BaseCrossEncoder):
    """A model that reads a query and a passage together and says how well the passage answers the query.

    A backend implements `_score_batch`, and `_encode` if it knows its tokens. Everything else is here, once: pairs are
    checked, equal pairs are scored once, batches contain pairs of similar length within `max_batch_tokens`, and the
    number of scores and their finiteness are checked. Scores are returned in the order of the pairs.

    Work is a sequence of small steps (`score_steps`), so that it can be interleaved with the work of other callers,
    stopped when a caller gives up, and bounded in memory for any number of pairs.

    Attributes:
        name: The name the model was loaded by: a hub name, a folder, or `"bundled"`; `"bundled/sparse.onnx"` for the
            bundled model's sparse branch alone.
        backend: What computes the scores, for example `"onnx"`.
        activation: The unit of the scores.
        max_length: Maximum tokens of a pair that the model reads. A passage is cut at its end; a query that takes more
            than half of them is cut in its middle.
        max_batch_tokens: Maximum tokens, padding included, in one forward pass. A single longer pair still runs.
        max_batch_pairs: Maximum pairs in one forward pass; `None` for no limit other than the tokens.
        scores_pairs_alone: Whether a pair's score does not depend on the pairs that it is scored with.
        long_query: `"cut"` cuts a query that takes more than half of `max_length`; `"error"` reads it whole, and
            raises if it leaves no token for the passage.
    """

    name: str
    backend: str
    activation: Activation
    max_length: int
    max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    max_batch_pairs: int | None = None
    scores_pairs_alone: bool = True
    long_query: LongQuery = "cut"

    _knows_tokens = False
    _reads_whole_passages = False
    _least_passage_tokens = 1
    _frame_tokens = 0
    _warned_truncated = False
    _warned_query_truncated = False
    _language_check: LanguageCheck | None = None

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        """Score each pair.

        Args:
            text_pairs: `(query, passage)` tuples; any iterable, of any length.

        Returns:
            One plain float for each pair, in input order.

        Raises:
            InvalidInputError: If an element is not a pair of strings, or a query is too long and `long_query` is
                `"error"`.
            ScoringError: If the model fails, returns the wrong number of scores, or a score is not finite.
        """
        return [scored.score for scored in drain(self.score_steps(text_pairs))]

    async def ascore(self, text_pairs: Iterable[TextPair]) -> list[float]:
        """Score each pair without blocking the event loop; see `score`.

        The work runs on a thread of its own and takes turns, batch by batch, with the work of other calls. Cancelling
        the awaiting task stops it.
        """
        return [scored.score for scored in await self.ascore_pairs(text_pairs)]

    async def ascore_pairs(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> list[PairScore]:
        """Score each pair without blocking the event loop, and return all that is known about each score.

        Args:
            text_pairs: `(query, passage)` tuples.
            deadline: When the scores are needed, on `time.monotonic()`; see `submit`.

        Raises:
            OverloadedError: If the deadline cannot be kept.
        """
        return await asyncio.wrap_future(self.submit(text_pairs, deadline=deadline))

    def submit(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> Future[list[PairScore]]:
        """Queue pairs to be scored on this model's worker.

        Args:
            text_pairs: `(query, passage)` tuples.
            deadline: When the scores are needed, on `time.monotonic()`. The caller limits its own waiting; here it
                decides what is done first, and what is not done because it would be late. `None` for no limit: then
                the work takes turns with that of other calls.

        Returns:
            The scores to come. Cancelling the future stops the work.

        Raises:
            InvalidInputError: If an element is not a pair of strings.
            OverloadedError: If it is known now that the deadline cannot be kept; the future may raise it later.
        """
        pairs = check_text_pairs(text_pairs)
        work = sum(self._guess_tokens(pair) for pair in set(pairs))
        return self.scheduler.submit(self.score_steps(pairs), deadline=deadline, work=work)

    def warm_up(self) -> None:
        """Do one forward pass, so that the first call is not slower than the others."""
        self.score([_WARM_UP_PAIR])

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score pairs in small steps: advance the generator until it returns the result.

        Returns:
            A generator that yields the share of the work done, from 0 to 1, after each bounded piece of work, and
            returns one `PairScore` for each pair.
        """
        given = check_text_pairs(text_pairs)
        pairs = yield from self._fit(given)
        self._warn_unreadable(pairs)
        unique = list(dict.fromkeys(pairs))
        scores: dict[TextPair, PairScore] = {}
        # Part by part, so that the tokens of thousands of pairs are not all in memory at once.
        for start in range(0, len(unique), PLANNED_PAIRS):
            part = unique[start : start + PLANNED_PAIRS]
            encoded: list[EncodedPair] = []
            for chunk in chunks_to_encode(part):
                encoded += self._guarded(self._encode, chunk, pairs, chunk)
                yield start / len(unique)
            self._warn_truncated(encoded)
            tokens, scored_tokens = sum(item.tokens for item in encoded), 0
            for batch in self._plan(encoded):
                for item, value in zip(batch, self._checked_batch(batch, pairs), strict=True):
                    best = scores.get(item.text_pair)
                    # NaN compares false, so it stays to be found below.
                    if best is None or value > best.score or value != value:  # noqa: PLR0124
                        scores[item.text_pair] = PairScore(
                            value, truncated=item.truncated, window=item.window, tokens=item.tokens
                        )
                    scored_tokens += item.tokens
                yield (start + len(part) * scored_tokens / max(1, tokens)) / len(unique)
        results = [
            scores[pair] if pair[0] == query else replace(scores[pair], query_truncated=True)
            for (query, _), pair in zip(given, pairs, strict=True)
        ]
        check_finite([result.score for result in results], self.name)
        return results

    @property
    def _plans_calls(self) -> bool:
        """Whether calls are planned in a way of its own, so that `_encode` and `_score_batch` alone would bypass it."""
        return type(self).score_steps is not CrossEncoder.score_steps

    def probability(self, score: float) -> float:
        """Map one of this model's scores to 0..1; a score that is a probability is returned unchanged."""
        return score if self.activation == "sigmoid" else sigmoid(score)

    @property
    def fingerprint(self) -> str:
        """A text that differs whenever the same pair could get a different score; caches use it as a key."""
        return f"{type(self).__name__}:{self.name}:{self.activation}:{self.max_length}:{self.long_query}"

    @cached_property
    def scheduler(self) -> StepScheduler:
        """The worker that runs this model's asynchronous calls and those with a deadline."""
        return StepScheduler(name=self.name)

    def _fit(self, pairs: Sequence[TextPair]) -> Generator[float, None, list[TextPair]]:
        """Cut queries and passages to what will be read of them, in steps; the order stays the same."""
        if not self._knows_tokens:
            return list(pairs)
        queries: dict[str, str] = {}
        fitted: list[TextPair] = []
        for query, passage in pairs:
            if query not in queries:
                queries[query] = self._guarded(self._fitted_query, query, pairs, [(query, passage)])
                if queries[query] != query:
                    self._warn_query_truncated(query)
                    yield 0.0
            fitted.append((queries[query], self._fitted_passage(passage)))
        return fitted

    def _fitted_passage(self, passage: str) -> str:
        return passage if self._reads_whole_passages else beginning(passage, self.max_length)

    def _fitted_query(self, query: str) -> str:
        budget = self.max_length - self._frame_tokens - self._least_passage_tokens
        if budget < 1:
            raise InvalidInputError(
                f"max_length is {self.max_length}, which is too small for {self.name!r}: the tokens around query and "
                f"passage are {self._frame_tokens}, and the passage needs {self._least_passage_tokens}; pass more."
            )
        if self.long_query == "cut":
            budget = max(1, min(int(LONGEST_QUERY_SHARE * self.max_length), budget))
        # A token takes a character or more, at least in ASCII, so most queries need not be tokenised here.
        if query.isascii() and len(query) <= budget:
            return query
        if self.long_query == "cut":
            return cut_middle(query, budget, self._query_spans)
        tokens = len(self._query_spans(query))
        if tokens > budget:
            raise InvalidInputError(
                f"the query of {len(query)} characters has {tokens} tokens, and {max(0, budget)} fit into the "
                f"{self.max_length} that {self.name!r} reads together with a passage; shorten the query, use a model "
                'that reads more, or load it with long_query="cut".'
            )
        return query

    def _query_spans(self, query: str) -> Spans:
        """Return the first and last-plus-one character of each token of a query, without special tokens.

        A backend that has this sets `_knows_tokens`, `_frame_tokens` to the number of tokens around the two texts, and
        cuts passages at `max_length` in `_encode`. It then gets queries that fit.
        """
        raise NotImplementedError

    def _guess_tokens(self, pair: TextPair) -> int:
        return min(self.max_length, 3 + (len(pair[0]) + len(pair[1])) // 4)

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        """Prepare pairs for `_score_batch`; here the number of tokens is guessed at four characters per token."""
        return [EncodedPair(pair, tokens=self._guess_tokens(pair)) for pair in text_pairs]

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        """Divide encoded pairs into batches, one for each `_score_batch`."""
        return plan_batches(encoded, self.max_batch_tokens, self.max_batch_pairs)

    @abstractmethod
    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        """Score one batch in one forward pass.

        Returns:
            One number for each pair, in the order of the batch.
        """

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:  # noqa: ARG002
        """Like `_encode`, but divide a passage beyond `max_length` into overlapping windows instead of cutting it.

        Args:
            text_pairs: The pairs.
            overlap: Tokens that adjacent windows share.

        Returns:
            One or more items for each pair; those of a divided passage have `window`.

        Raises:
            InvalidInputError: If this backend does not know its tokens.
        """
        raise InvalidInputError(
            f"the {self.backend} backend of {self.name!r} does not expose its tokens, so passages cannot be divided "
            "into windows; use the onnx or torch backend, or split the documents."
        )

    def _warn_truncated(self, encoded: Sequence[EncodedPair]) -> None:
        cut = sum(item.truncated for item in encoded)
        if cut and not self._warned_truncated:
            self._warned_truncated = True
            _logger.warning(
                "%r reads %d tokens of a pair; %d of %d passages were longer and their ends were not read. Wrap the "
                "model in WindowedCrossEncoder to read them whole. This warning is logged once.",
                self.name,
                self.max_length,
                cut,
                len(encoded),
            )

    def can_read(self, text: str) -> bool:
        """Whether a text's script and words are known to the model; `True` if nothing is known about them.

        Scores of what it cannot read mean little; see `LanguageCheck` for the rule.
        """
        return self._language_check is None or self._language_check.problem(text) is None

    def _warn_unreadable(self, pairs: Sequence[TextPair]) -> None:
        """Warn once for each script that the model cannot read; the first few texts stand for all."""
        if self._language_check is None:
            return
        # One text of each script; queries before passages.
        queries, passages = zip(*pairs[:_TEXTS_CHECKED], strict=True) if pairs else ((), ())
        texts = {script_of(text): text for text in reversed((*queries, *passages))}
        for script in texts.keys() - self._scripts_warned_of:
            problem = self._language_check.problem(texts[script])
            if problem is None:
                continue
            self._scripts_warned_of.add(script)
            _logger.warning(
                "%r cannot read a text in %s script: %s, so its score means little. Use a model for its language, such "
                "as %r. This warning is logged once for each script.",
                self.name,
                script,
                problem,
                MULTILINGUAL_MODEL,
            )

    @cached_property
    def _scripts_warned_of(self) -> set[str]:
        return set()

    def _warn_query_truncated(self, query: str) -> None:
        if not self._warned_query_truncated:
            self._warned_query_truncated = True
            _logger.warning(
                "A query of %d characters takes more than half of the %d tokens that %r reads of a pair, so its middle "
                "was cut out. Shorten such queries, or use a model that reads more. This warning is logged once.",
                len(query),
                self.max_length,
                self.name,
            )

    def _guarded(
        self, work: Callable[[Any], Any], argument: Any, pairs: Sequence[TextPair], members: Iterable[TextPair]
    ) -> Any:
        """Call a backend's method and turn whatever it raises into an error of this package."""
        try:
            return work(argument)
        except CrossRerankError:
            raise
        except Exception as err:
            positions = _positions(pairs, members)
            raise ScoringError(
                f"{self.name!r} failed on {len(positions)} pairs ({type(err).__name__}: {err}); "
                "check the model, or rerank with on_error='keep_order' to continue without it.",
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
                f"{self.name!r} returned {len(values)} scores for {len(batch)} pairs at positions "
                f"{shorten(positions)}; a model must return exactly one score for each pair.",
                positions=positions,
            )
        return values

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A model never changes, and may hold gigabytes, threads and connections: copies share it.
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, backend={self.backend!r}, activation={self.activation!r}, "
            f"max_length={self.max_length}, max_batch_tokens={self.max_batch_tokens})"
        )


class AdaptedCrossEncoder(CrossEncoder):
    """Any other LangChain `BaseCrossEncoder`, with the checks, batching and steps of this package.

    Args:
        model: The model to call; its `score` receives one batch of pairs at a time.
        max_batch_tokens: Maximum tokens in one call, guessed at four characters per token.
    """

    backend = "adapted"
    max_length = 512

    def __init__(self, model: BaseCrossEncoder, *, max_batch_tokens: int = 16 * 512) -> None:
        self.model = model
        self.name = str(getattr(model, "model_name", None) or type(model).__name__)
        self.max_batch_tokens = max_batch_tokens
        # Nothing is known about the weights, so each object counts as a model of its own.
        self._identity = uuid4().hex
        # LangChain's HuggingFaceCrossEncoder keeps the sentence-transformers model, which knows its unit.
        activation = getattr(getattr(model, "client", None), "activation_fn", None)
        self.activation = "sigmoid" if type(activation).__name__ == "Sigmoid" else "identity"

    @property
    def fingerprint(self) -> str:
        """A text unique to this object: its scores are found again in this process only."""
        return f"adapted:{self.name}:{self._identity}"

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return self.model.score([item.text_pair for item in batch])


def as_cross_encoder(model: BaseCrossEncoder) -> CrossEncoder:
    """Adapt any LangChain cross-encoder to the checks, batching and steps of this package.

    Args:
        model: A `BaseCrossEncoder`; a `CrossEncoder` is returned unchanged.

    Raises:
        InvalidInputError: If it is something else, such as the name of a model.
    """
    if isinstance(model, CrossEncoder):
        return model
    if not isinstance(model, BaseCrossEncoder):
        shown = shorten(show_url(model) if isinstance(model, str) else model)
        raise InvalidInputError(
            f"model is {shown}, which is not a LangChain cross-encoder; pass a BaseCrossEncoder, or what "
            "load_cross_encoder returns for a name, a folder or a URL."
        )
    return AdaptedCrossEncoder(model)


def _positions(pairs: Sequence[TextPair], members: Iterable[TextPair]) -> list[int]:
    wanted = set(members)
    return [position for position, pair in enumerate(pairs) if pair in wanted]
