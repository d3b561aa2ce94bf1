"""From a call to scores: checks its size, waits for the model, and stops when the client goes away."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from starlette.requests import Request

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair
from langchain_crossrerank.cross_encoders.truncation import Spans, cut_end
from langchain_crossrerank.errors import CrossRerankError
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.server.dialects.base import Call, Scored
from langchain_crossrerank.server.metrics import Metrics
from langchain_crossrerank.server.models import ServedModels
from langchain_crossrerank.server.problems import Problem, as_problem

Result = TypeVar("Result")

_CHARACTERS_PER_TOKEN = 4
_FINISHED_REMEMBERED = 32
_LONGEST_RETRY = 60


class ClientGoneError(Exception):
    """The client closed the connection before it got its answer."""


class Queue:
    """The requests in progress in this process, up to a maximum.

    Args:
        size: Maximum requests.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._finished: deque[float] = deque(maxlen=_FINISHED_REMEMBERED)
        self.length = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue during the block.

        Raises:
            Problem: If the queue is full.
        """
        if self.length >= self._size:
            raise Problem(
                "busy",
                f"{self.length} requests are in progress, which is the most that this server accepts; try again later.",
                retry_after=self._seconds_to_a_place(),
            )
        self.length += 1
        try:
            yield
        finally:
            self.length -= 1
            self._finished.append(time.monotonic())

    def _seconds_to_a_place(self) -> int:
        """Estimate from how fast requests finished lately."""
        if len(self._finished) < 2:
            return 1
        pace = (self._finished[-1] - self._finished[0]) / (len(self._finished) - 1)
        return max(1, min(_LONGEST_RETRY, math.ceil(pace)))


class Scoring:
    """Scores calls with the models of a server.

    Args:
        models: The models.
        limits: Bounds of a call.
        metrics: Counts pairs and tokens.
    """

    def __init__(self, models: ServedModels, limits: Limits, metrics: Metrics) -> None:
        self._models = models
        self._limits = limits
        self._metrics = metrics

    async def run(self, call: Call) -> Scored:
        """Score a call.

        Raises:
            Problem: If it is too large, its model is not available, or scoring fails.
        """
        model, encoder = self._models.find(call.model)
        self._check_size(call.pairs, encoder)
        pairs = call.pairs
        try:
            if call.max_passage_tokens is not None or call.max_pair_tokens is not None:
                pairs = await asyncio.to_thread(_cut_passages, call, encoder)
            scored = await encoder.ascore_pairs(pairs) if pairs else []
        except CrossRerankError as err:
            raise as_problem(err) from err
        if not call.may_truncate:
            _check_truncated(scored, encoder)
        scores = [_in_unit(encoder, pair.score, logits=call.logits) for pair in scored]
        counts = [pair.tokens for pair in scored if pair.tokens is not None]
        tokens = sum(counts) if counts else None
        self._metrics.scored(model.name, pairs=len(pairs), tokens=tokens or 0)
        return Scored(uuid.uuid4().hex, model.name, scores, tokens)

    def _check_size(self, pairs: Sequence[TextPair], encoder: CrossEncoder) -> None:
        check_documents(len(pairs), self._limits)
        longest = encoder.max_length
        tokens = sum(min(longest, (len(query) + len(text)) // _CHARACTERS_PER_TOKEN) for query, text in pairs)
        # A query is handled as a whole before it is cut to what the model reads.
        tokens += sum(max(0, len(query) // _CHARACTERS_PER_TOKEN - longest) for query in {query for query, _ in pairs})
        if tokens > self._limits.tokens:
            raise Problem(
                "too_large",
                f"the request has about {tokens} tokens, but this server accepts {self._limits.tokens}; send fewer or "
                "shorter documents.",
            )


def check_documents(number: int, limits: Limits) -> None:
    """Raise a `Problem` if a request has more documents than allowed."""
    if number > limits.documents:
        raise Problem(
            "too_large",
            f"the request has {number} documents, but this server accepts {limits.documents}; send them in several "
            "requests.",
        )


def check_characters(texts: Iterable[str], limits: Limits) -> None:
    """Raise a `Problem` if texts that are read whole, by more than a model, have more characters than allowed."""
    characters, allowed = sum(map(len, texts)), _CHARACTERS_PER_TOKEN * limits.tokens
    if characters > allowed:
        raise Problem(
            "too_large",
            f"the request has {characters} characters, but this server accepts {allowed}; send fewer or shorter texts.",
        )


def _cut_passages(call: Call, encoder: CrossEncoder) -> list[TextPair]:
    """Cut passages to the tokens that the client allows, where that is less than the model reads.

    Raises:
        Problem: If that leaves nothing of a passage, or the model does not expose its tokens.
    """
    budgets = {
        query: _passage_budget(call, query, encoder) for query in dict.fromkeys(query for query, _ in call.pairs)
    }
    pairs = []
    for query, passage in call.pairs:
        budget = budgets[query]
        # A token is a character or more, at least in ASCII.
        if budget >= encoder.max_length or (passage.isascii() and len(passage) <= budget):
            pairs.append((query, passage))
        else:
            pairs.append((query, cut_end(passage, budget, lambda text: _spans(encoder, text))))
    return pairs


def _passage_budget(call: Call, query: str, encoder: CrossEncoder) -> int:
    """Return the number of tokens that the client allows a passage of a query."""
    budget = call.max_passage_tokens or encoder.max_length
    if call.max_pair_tokens is None or call.max_pair_tokens >= encoder.max_length:
        return budget
    _check_knows_tokens(encoder)
    # A query may be as long as the body of a request; what the model does not read of it is not tokenised.
    around = encoder._frame_tokens + len(encoder._query_spans(encoder._fitted_query(query)))
    if call.max_pair_tokens <= around:
        raise Problem(
            "invalid",
            f"truncate_prompt_tokens is {call.max_pair_tokens}, and the query alone takes {around} tokens with "
            "the model's special ones, so no document would be read; raise it, or leave it out.",
        )
    return min(budget, call.max_pair_tokens - around)


def _spans(encoder: CrossEncoder, text: str) -> Spans:
    _check_knows_tokens(encoder)
    return encoder._query_spans(text)


def _check_knows_tokens(encoder: CrossEncoder) -> None:
    if not encoder._knows_tokens:
        raise Problem(
            "invalid",
            f"the model {encoder.name!r} does not expose its tokens, so texts cannot be cut to a number of tokens; "
            "leave max_tokens_per_doc and truncate_prompt_tokens out.",
        )


def _check_truncated(scored: Sequence[PairScore], encoder: CrossEncoder) -> None:
    long = [place for place, pair in enumerate(scored) if pair.truncated or pair.query_truncated]
    if long:
        raise Problem(
            "too_large",
            f"{len(long)} texts, the first at position {long[0]}, are longer than the {encoder.max_length} tokens that "
            "the model reads together with the query; shorten them, or leave truncate=false out.",
        )


def _in_unit(encoder: CrossEncoder, score: float, *, logits: bool) -> float:
    """Return a score as a probability, or as the logit that the model returned."""
    if not logits:
        return encoder.probability(score)
    if encoder.activation == "sigmoid":
        raise Problem("invalid", f"the model {encoder.name!r} returns probabilities only; do not ask for raw scores.")
    return score


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do work as long as the client is there; the body must have been read.

    Raises:
        ClientGoneError: If the client closes the connection first; the work is cancelled.
    """
    async with _gone(request) as gone:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError
            return task.result()
        finally:
            task.cancel()
            # What it does on threads goes on for a moment, in which its place in the queue must not be taken.
            await asyncio.wait({task})


@asynccontextmanager
async def _gone(request: Request) -> AsyncIterator[asyncio.Task[None]]:
    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(disconnected())
    try:
        yield task
    finally:
        task.cancel()
