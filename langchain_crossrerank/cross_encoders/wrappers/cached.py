"""A cross-encoder that remembers scores and computes only those that it does not know."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.stores import BaseStore

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair, check_text_pairs
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache, ScoreCache, StoreScoreCache
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.errors import InvalidInputError

_FORMAT = struct.Struct("<B??d?QQ")
_FORMAT_VERSION = 2
_CHECKSUM_BYTES = 8

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheCounts:
    """How often a score was known.

    Attributes:
        hits: Pairs whose score was in the cache.
        misses: Pairs that had to be scored.
    """

    hits: int
    misses: int


@dataclass
class _Tally:
    hits: int = 0
    misses: int = 0


class CachedCrossEncoder(WrapperCrossEncoder):
    """Scores only the pairs that were not scored before.

    The key of a score is a hash of the model's fingerprint and of both texts, so another model, setting, template or
    text never finds it. Each value carries a checksum; a damaged one is computed again.

    Args:
        inner: The cross-encoder that computes what is missing.
        cache: Where to keep scores: `None` for a new `MemoryScoreCache`, any `ScoreCache`, a LangChain byte store, or
            the path of a SQLite file.

    Raises:
        InvalidInputError: If `cache` is something else, or the scores of `inner` depend on the other pairs of a call.
    """

    def __init__(
        self,
        inner: BaseCrossEncoder,
        cache: ScoreCache | BaseStore[str, bytes] | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(inner)
        if not self.inner.scores_pairs_alone:
            raise InvalidInputError(
                f"{self.inner!r} scores a pair differently with other pairs in the call, so its scores cannot be "
                "cached. In a cascade, put the cache inside: CascadeCrossEncoder(cheap, CachedCrossEncoder(full)); "
                'for a model in eight bits, load it with precision="fp32".'
            )
        self.cache = as_score_cache(cache)
        self._warned = False
        self._tally = Guarded(_Tally)

    @property
    def counts(self) -> CacheCounts:
        """Pairs known and not known so far; equal pairs of one call count once."""
        with self._tally as tally:
            return CacheCounts(tally.hits, tally.misses)

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Look up the pairs, score the unknown ones, and keep their scores."""
        pairs = check_text_pairs(text_pairs)
        known = self._look_up(pairs)
        yield 0.0
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if missing:
            scored = dict(zip(missing, (yield from self.inner.score_steps(missing)), strict=True))
            self._keep(scored)
            known |= scored
        return [known[pair] for pair in pairs]

    async def ascore_pairs(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> list[PairScore]:
        """Score pairs like `score_steps`, without blocking the event loop."""
        pairs = check_text_pairs(text_pairs)
        known = await self.scheduler.run(_one_step(lambda: self._look_up(pairs)), deadline=deadline)
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if missing:
            scored = dict(zip(missing, await self.inner.ascore_pairs(missing, deadline=deadline), strict=True))
            kept = self.scheduler.submit(_one_step(lambda: self._keep(scored)))
            if deadline is None:
                await asyncio.shield(asyncio.wrap_future(kept))
            else:
                # Waiting for another turn could make the caller late, who would then get no scores.
                kept.add_done_callback(_report)
            known |= scored
        return [known[pair] for pair in pairs]

    def _look_up(self, pairs: Sequence[TextPair]) -> dict[TextPair, PairScore]:
        keys = _keys(self.inner.fingerprint, pairs)
        values = self.cache.get_many(list(keys.values()))
        found = {key: _unpack(key, value) for key, value in values.items()}
        self._warn_damaged({key: values[key] for key, scored in found.items() if scored is None})
        known = {pair: scored for pair, key in keys.items() if (scored := found.get(key)) is not None}
        with self._tally as tally:
            tally.hits += len(known)
            tally.misses += len(keys) - len(known)
        return known

    def _warn_damaged(self, damaged: Mapping[bytes, object]) -> None:
        if damaged and not self._warned:
            self._warned = True
            _logger.warning(
                "The score cache %s contains %d damaged values, the first of which is %s; they are computed again. "
                "Further damage is not logged.",
                self.cache,
                len(damaged),
                shorten(next(iter(damaged.values()))),
            )

    def _keep(self, scored: Mapping[TextPair, PairScore]) -> None:
        # The fingerprint is asked for again: scoring may have shown a server's unit to be another.
        keys = _keys(self.inner.fingerprint, scored)
        self.cache.put_many({key: _pack(key, scored[pair]) for pair, key in keys.items()})


def as_score_cache(cache: ScoreCache | BaseStore[str, bytes] | str | os.PathLike[str] | None) -> ScoreCache:
    """Return what a caller passed as a cache as a `ScoreCache`; see `CachedCrossEncoder`.

    Raises:
        InvalidInputError: If it is nothing that can keep scores.
    """
    if cache is None:
        return MemoryScoreCache()
    if isinstance(cache, ScoreCache):
        return cache
    if isinstance(cache, BaseStore):
        return StoreScoreCache(cache)
    if isinstance(cache, str | os.PathLike):
        return SQLiteScoreCache(cache)
    raise InvalidInputError(f"cache is {shorten(cache)}; pass a ScoreCache, a LangChain byte store, a path, or None.")


def _report(kept: Future[None]) -> None:
    err = None if kept.cancelled() else kept.exception()
    if err is not None:
        _logger.warning("Scores could not be cached (%s: %s); check the cache.", type(err).__name__, err)


def _one_step(work: Callable[[], Result]) -> Generator[None, None, Result]:
    # Done in the first step, so that a call waits for its turn once.
    yield from ()
    return work()


def _keys(fingerprint: str, pairs: Iterable[TextPair]) -> dict[TextPair, bytes]:
    """Return a key for each different pair: a hash of the model's fingerprint and both texts."""
    start = _hashed(hashlib.blake2b(digest_size=20), fingerprint.encode())
    queries: dict[str, Any] = {}
    keys: dict[TextPair, bytes] = {}
    for query, passage in pairs:
        if (query, passage) not in keys:
            if query not in queries:
                queries[query] = _hashed(start.copy(), query.encode())
            keys[query, passage] = _hashed(queries[query].copy(), passage.encode()).digest()
    return keys


def _hashed(digest: Any, part: bytes) -> Any:
    # With the lengths, ("ab", "c") and ("a", "bc") differ.
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
    return digest


def _pack(key: bytes, scored: PairScore) -> bytes:
    window = scored.window or (0, 0)
    flags = scored.truncated, scored.query_truncated
    value = _FORMAT.pack(_FORMAT_VERSION, *flags, scored.score, scored.window is not None, *window)
    return value + hashlib.blake2b(key + value, digest_size=_CHECKSUM_BYTES).digest()


def _unpack(key: bytes, packed: object) -> PairScore | None:
    if not isinstance(packed, bytes) or len(packed) != _FORMAT.size + _CHECKSUM_BYTES:
        return None
    value, check = packed[:-_CHECKSUM_BYTES], packed[-_CHECKSUM_BYTES:]
    if hashlib.blake2b(key + value, digest_size=_CHECKSUM_BYTES).digest() != check:
        return None
    version, truncated, query_truncated, score, has_window, start, end = _FORMAT.unpack(value)
    if version != _FORMAT_VERSION:
        return None
    return PairScore(score, truncated, (start, end) if has_window else None, query_truncated=query_truncated)
