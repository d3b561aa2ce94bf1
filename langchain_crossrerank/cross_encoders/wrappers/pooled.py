"""A cross-encoder whose forward passes are filled with the pairs of all callers that wait for scores."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from itertools import islice

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank._process import ForkSafeLock, PerProcess
from langchain_crossrerank.cross_encoders.base import PLANNED_PAIRS
from langchain_crossrerank.cross_encoders.pairs import (
    EncodedPair,
    PairScore,
    TextPair,
    check_text_pairs,
    chunks_to_encode,
)
from langchain_crossrerank.cross_encoders.scheduling import MAX_INTERLEAVED
from langchain_crossrerank.cross_encoders.scores import check_finite
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, ScoringError

_CHUNKS_PER_PASS = 16
"""Chunks of pairs that are encoded between two forward passes, so that small calls that have just come in can join the
next pass, and a very large one does not hold up the others."""

_SIMILAR_LENGTH = 0.75
"""Share of a batch's longest pair that another caller's pair must have to join; a shorter one would be mostly padding
and is cheaper in a batch of its own."""


@dataclass(eq=False)
class _Caller:
    """One call, and how far it has come.

    Attributes:
        given: The pairs as passed.
        future: The scores to come.
        fitted: The pairs as the model reads them.
        waiting: Pairs that are encoded and not scored yet.
        scores: What is scored so far.
        is_last_part: Whether nothing is left to be encoded.
        preparing: Encodes the pairs, step by step.
    """

    given: list[TextPair]
    future: Future[list[PairScore]] = field(default_factory=Future)
    fitted: list[TextPair] = field(default_factory=list)
    waiting: list[EncodedPair] = field(default_factory=list)
    scores: dict[TextPair, PairScore] = field(default_factory=dict)
    is_last_part: bool = False
    preparing: Iterator[float] = field(default_factory=lambda: iter(()))

    def fail(self, err: Exception) -> None:
        # Fails only if the caller gave up meanwhile; then nobody is waiting.
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(err)

    def finish(self, model_name: str) -> None:
        results = [
            self.scores[pair] if pair[0] == query else replace(self.scores[pair], query_truncated=True)
            for (query, _), pair in zip(self.given, self.fitted, strict=True)
        ]
        try:
            check_finite([result.score for result in results], model_name)
        except CrossRerankError as err:
            self.fail(err)
            return
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(results)


_Item = tuple[_Caller, EncodedPair]


class _Pool:
    """The callers of one model in one process."""

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.preparing: deque[_Caller] = deque()
        self.scoring: deque[_Caller] = deque()
        self.is_pumping = False


class PooledCrossEncoder(WrapperCrossEncoder):
    """Scores the pairs of concurrent asynchronous calls together.

    Callers take turns, one forward pass each. A pass begins with pairs of the caller whose turn it is, and what is left
    of `max_batch_tokens` is filled with pairs of similar length from the others, so that many small calls cost little
    more than one large one. A caller's result is there as soon as its last pair is scored. If a mixed batch fails, the
    pairs of each caller are scored again on their own, so that nobody fails for another's text.

    `ascore`, `ascore_pairs` and `submit` work like this; `score` and calls with a deadline are passed on.

    Args:
        inner: The cross-encoder that computes the scores.

    Raises:
        InvalidInputError: If the scores of `inner` depend on the other pairs of a call, or it overrides `score_steps`.
    """

    def __init__(self, inner: BaseCrossEncoder) -> None:
        super().__init__(inner)
        if not self.inner.scores_pairs_alone or self.inner._plans_calls:
            raise InvalidInputError(
                f"{self.inner!r} scores a pair differently with other pairs in the call, or plans calls in its own "
                "way, so calls cannot be scored together; use it without PooledCrossEncoder."
            )
        self._pool = PerProcess(_Pool)

    async def ascore_pairs(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> list[PairScore]:
        """Score each pair together with those of other callers; cancelling the awaiting task drops them."""
        return await asyncio.wrap_future(self.submit(text_pairs, deadline=deadline))

    def submit(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> Future[list[PairScore]]:
        """Queue pairs to be scored together with those of other callers; see `CrossEncoder.submit`."""
        if deadline is not None:
            return self.inner.submit(text_pairs, deadline=deadline)
        caller = _Caller(check_text_pairs(text_pairs))
        caller.preparing = self._prepare(caller)
        pool = self._pool.get()
        with pool.lock:
            pool.preparing.append(caller)
            start, pool.is_pumping = not pool.is_pumping, True
        if start:
            # One job serves many callers, so it belongs to the context of none.
            try:
                contextvars.Context().run(self.scheduler.submit, self._pump(pool))
            except BaseException:
                # No thread can be started; others may have joined meanwhile.
                self._give_up(pool, [])
                raise
        return caller.future

    def _prepare(self, caller: _Caller) -> Iterator[float]:
        """Encode a caller's pairs; after each part, go on when it is scored."""
        caller.fitted = yield from self.inner._fit(caller.given)
        self.inner._warn_unreadable(caller.fitted)
        unique = list(dict.fromkeys(caller.fitted))
        for start in range(0, len(unique), PLANNED_PAIRS):
            encoded: list[EncodedPair] = []
            for chunk in chunks_to_encode(unique[start : start + PLANNED_PAIRS]):
                if encoded:
                    yield 0.0
                encoded += self._guarded(self._encode, chunk, caller.fitted, chunk)
            self.inner._warn_truncated(encoded)
            caller.waiting, caller.is_last_part = encoded, start + PLANNED_PAIRS >= len(unique)
            yield 0.0

    def _pump(self, pool: _Pool) -> Generator[None, None, None]:
        """Serve callers until none is left; each step is a chunk of encoding or a forward pass."""
        prepared = 0
        caller: _Caller | None = None
        try:
            while True:
                with pool.lock:
                    for queue in (pool.preparing, pool.scoring):
                        for cancelled in [waiting for waiting in queue if waiting.future.cancelled()]:
                            queue.remove(cancelled)
                    if not pool.preparing and not pool.scoring:
                        pool.is_pumping = False
                        return
                    may_prepare = bool(pool.preparing) and len(pool.scoring) < MAX_INTERLEAVED
                    prepares = may_prepare and (prepared < _CHUNKS_PER_PASS or not pool.scoring)
                    caller = (pool.preparing if prepares else pool.scoring).popleft()
                # Only this generator takes callers out of the queues, and each of its steps puts them back.
                if prepares:
                    self._advance(pool, caller)
                else:
                    self._serve_turn(pool, caller)
                prepared, caller = (prepared + 1 if prepares else 0), None
                yield
        except BaseException:
            # The process ends, or there is a fault in this class; nobody may wait forever.
            self._give_up(pool, [] if caller is None else [caller])
            raise

    def _give_up(self, pool: _Pool, callers: list[_Caller]) -> None:
        with pool.lock:
            pool.is_pumping = False
            callers += [*pool.preparing, *pool.scoring]
            pool.preparing.clear()
            pool.scoring.clear()
        for caller in callers:
            caller.fail(ScoringError(f"{self.name!r} stopped before it had scored all pairs; try again."))

    def _advance(self, pool: _Pool, caller: _Caller) -> None:
        try:
            is_encoded = next(caller.preparing, caller) is caller or bool(caller.waiting)
        except Exception as err:  # noqa: BLE001 - the caller gets it, whatever it is
            caller.fail(err)
            return
        if not is_encoded:
            with pool.lock:
                pool.preparing.append(caller)
        elif caller.waiting:
            with pool.lock:
                pool.scoring.append(caller)
        else:
            caller.finish(self.name)

    def _serve_turn(self, pool: _Pool, caller: _Caller) -> None:
        """Do one forward pass for the caller whose turn it is, and for others whose pairs fit in."""
        with pool.lock:
            others = list(pool.scoring)
        batch = self._next_batch(caller, others)
        owners = list(dict.fromkeys(owner for owner, _ in batch))
        try:
            self._score_items(batch)
        except CrossRerankError as err:
            if len(owners) == 1:
                caller.fail(err)
            else:
                self._score_apart(batch, owners)
        for owner in owners:
            self._settle(pool, owner, had_turn=owner is caller)

    def _next_batch(self, caller: _Caller, others: Sequence[_Caller]) -> list[_Item]:
        batch = self._plan(caller.waiting)[0]
        items = [(caller, pair) for pair in batch]
        longest = max(pair.tokens for pair in batch)
        # The backend's own plan says what fits into a batch: here, one more pair like the shortest.
        if others and len(self._plan([*batch, min(batch, key=lambda pair: pair.tokens)])) == 1:
            least = _SIMILAR_LENGTH * longest
            joining = ((owner, pair) for owner in others for pair in owner.waiting if least <= pair.tokens <= longest)
            candidates = list(islice(joining, max(0, self.max_batch_tokens // longest - len(batch))))
            fitting = bisect_left(
                range(1, len(candidates) + 1),
                True,
                key=lambda number: len(self._plan([*batch, *(pair for _, pair in candidates[:number])])) > 1,
            )
            items += candidates[:fitting]
        return items

    def _score_items(self, items: Sequence[_Item]) -> None:
        owners = {owner for owner, _ in items}
        pairs = next(iter(owners)).fitted if len(owners) == 1 else []
        values = self._checked_batch([pair for _, pair in items], pairs)
        for (owner, pair), value in zip(items, values, strict=True):
            best = owner.scores.get(pair.text_pair)
            # NaN compares false, so it stays to be found when the call is finished.
            if best is None or value > best.score or value != value:  # noqa: PLR0124
                owner.scores[pair.text_pair] = PairScore(
                    value, truncated=pair.truncated, window=pair.window, tokens=pair.tokens
                )
        scored = {id(pair) for _, pair in items}
        for owner in owners:
            owner.waiting = [pair for pair in owner.waiting if id(pair) not in scored]

    def _score_apart(self, items: Sequence[_Item], owners: Sequence[_Caller]) -> None:
        for owner in owners:
            try:
                self._score_items([item for item in items if item[0] is owner])
            except CrossRerankError as err:
                owner.fail(err)

    def _settle(self, pool: _Pool, owner: _Caller, *, had_turn: bool) -> None:
        """Put a caller whose pairs were scored where it belongs: back in turn, or finished."""
        is_over = owner.future.done()
        if owner.waiting and not is_over and not had_turn:
            return
        with pool.lock:
            if not had_turn:
                pool.scoring.remove(owner)
            if is_over:
                return
            if owner.waiting:
                pool.scoring.append(owner)
            elif not owner.is_last_part:
                pool.preparing.append(owner)
        if owner.is_last_part and not owner.waiting:
            owner.finish(self.name)
