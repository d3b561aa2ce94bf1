"""Remembers scores: scores only the pairs that were not scored before."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.stores import BaseStore

from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair, check_text_pairs
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import ScoreCache, as_score_cache
from langchain_crossrerank.errors import InvalidInputError

_FORMAT = struct.Struct("<B?d?QQ")
_FORMAT_VERSION = 1
_CHECK_BYTES = 8

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheCounts:
    """How often a pair was found.

    Attributes:
        hits: Pairs whose score was kept.
        misses: Pairs that had to be scored.
    """

    hits: int
    misses: int


class CachedCrossEncoder(WrapperCrossEncoder):
    """Scores only the pairs that were not scored before.

    A score is kept under a hash of the model's fingerprint (content hash of its weights or commit, activation,
    `max_length`, windows) and of both texts, so another model, setting, template or text never finds it. Each value
    carries a checksum; a damaged one is recomputed.

    Args:
        inner: The cross-encoder to ask for what is missing.
        cache: Where to keep scores; `None` for a `MemoryScoreCache` of its own, a LangChain byte store, or a path
            for a SQLite file.
    """

    def __init__(
        self,
        inner: BaseCrossEncoder,
        cache: ScoreCache | BaseStore[str, bytes] | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(inner)
        if not self.inner.scores_pairs_alone:
            raise InvalidInputError(
                f"{self.inner!r} scores a pair by the others it comes with, so its scores cannot be kept. In a "
                "cascade, put the cache inside: CascadeCrossEncoder(cheap, CachedCrossEncoder(full)); instead of "
                'eight bits, load with precision="fp32".'
            )
        self.cache = as_score_cache(cache)
        self._hits = 0
        self._misses = 0
        self._told = False
        self._count_lock = threading.Lock()

    @property
    def counts(self) -> CacheCounts:
        """Pairs found and not found so far; equal pairs of one call count once."""
        return CacheCounts(self._hits, self._misses)

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Look pairs up, score the missing ones, and keep those."""
        pairs = check_text_pairs(text_pairs)
        keys, known = self._look_up(pairs)
        yield
        missing = [pair for pair in keys if pair not in known]
        if missing:
            known.update(zip(missing, (yield from self.inner.score_steps(missing)), strict=True))
            self._keep({keys[pair]: known[pair] for pair in missing})
        return [known[pair] for pair in pairs]

    async def ascore_pairs(self, text_pairs: Iterable[TextPair]) -> list[PairScore]:
        """Like `score_steps`, leaving the missing pairs to the wrapped model's own way of not blocking the loop."""
        pairs = check_text_pairs(text_pairs)
        keys, known = await self.scheduler.run(_one_step(lambda: self._look_up(pairs)))
        missing = [pair for pair in keys if pair not in known]
        if missing:
            known.update(zip(missing, await self.inner.ascore_pairs(missing), strict=True))
            await self.scheduler.run(_one_step(lambda: self._keep({keys[pair]: known[pair] for pair in missing})))
        return [known[pair] for pair in pairs]

    def _look_up(self, pairs: Sequence[TextPair]) -> tuple[dict[TextPair, bytes], dict[TextPair, PairScore]]:
        identity = self.inner.fingerprint.encode()
        keys = _keys(identity, pairs)
        values = self.cache.get_many(list(keys.values()))
        found = {key: _unpack(key, value) for key, value in values.items()}
        self._tell_of_damage({key: values[key] for key, scored in found.items() if scored is None})
        known = {pair: scored for pair, key in keys.items() if (scored := found.get(key)) is not None}
        with self._count_lock:
            self._hits += len(known)
            self._misses += len(keys) - len(known)
        return keys, known

    def _tell_of_damage(self, damaged: Mapping[bytes, object]) -> None:
        if damaged and not self._told:
            self._told = True
            _logger.warning(
                "The score cache %s holds %d damaged values, the first %r; they are computed anew. This is said once.",
                self.cache,
                len(damaged),
                next(iter(damaged.values())),
            )

    def _keep(self, scored: Mapping[bytes, PairScore]) -> None:
        self.cache.put_many({key: _pack(key, score) for key, score in scored.items()})


def _one_step(work: Callable[[], Result]) -> Generator[None, None, Result]:
    yield
    return work()


def _keys(identity: bytes, pairs: Iterable[TextPair]) -> dict[TextPair, bytes]:
    """Hash each different pair together with the model's identity."""
    start = _hashed(hashlib.blake2b(digest_size=20), identity)
    queries: dict[str, Any] = {}
    keys: dict[TextPair, bytes] = {}
    for query, passage in pairs:
        if (query, passage) not in keys:
            if query not in queries:
                queries[query] = _hashed(start.copy(), query.encode())
            keys[query, passage] = _hashed(queries[query].copy(), passage.encode()).digest()
    return keys


def _hashed(digest: Any, part: bytes) -> Any:
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
    return digest


def _pack(key: bytes, scored: PairScore) -> bytes:
    window = scored.window or (0, 0)
    value = _FORMAT.pack(_FORMAT_VERSION, scored.truncated, scored.score, scored.window is not None, *window)
    return value + hashlib.blake2b(key + value, digest_size=_CHECK_BYTES).digest()


def _unpack(key: bytes, packed: object) -> PairScore | None:
    if not isinstance(packed, bytes) or len(packed) != _FORMAT.size + _CHECK_BYTES:
        return None
    value, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
    if hashlib.blake2b(key + value, digest_size=_CHECK_BYTES).digest() != check:
        return None
    version, truncated, score, has_window, start, end = _FORMAT.unpack(value)
    return PairScore(score, truncated, (start, end) if has_window else None) if version == _FORMAT_VERSION else None
