"""Remembers scores: a wrapper over any cross-encoder, and the places where scores can be kept."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.stores import BaseStore

from langchain_crossrerank.cross_encoders.base import ScoreSteps, WrapperCrossEncoder
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair, check_text_pairs
from langchain_crossrerank.errors import InvalidInputError

_FORMAT = struct.Struct("<B?d?QQ")
_FORMAT_VERSION = 1
_CHECK_BYTES = 8
_ENTRY_OVERHEAD = 200
_SQLITE_CHUNK = 500
_RETRY_SECONDS = 0.02
_INHERITED: list[sqlite3.Connection] = []

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


class ScoreCache(ABC):
    """A place that keeps small values by key. Losing a value costs time; a failing place must not fail the caller."""

    @abstractmethod
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Give the values that are there."""

    @abstractmethod
    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, as far as possible."""


class MemoryScoreCache(ScoreCache):
    """Keeps scores in memory, the least recently used leaving first.

    Args:
        max_bytes: Bytes to take at most, Python's own overhead included by estimate.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes is {max_bytes}; pass a positive number of bytes.")
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._values: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Give the values that are there, and count them as used."""
        found = {}
        with self._lock:
            for key in keys:
                if key in self._values:
                    self._values.move_to_end(key)
                    found[key] = self._values[key]
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values; the least recently used make room."""
        with self._lock:
            for key, value in values.items():
                self._drop(key)
                self._values[key] = value
                self.size_bytes += self._cost(key, value)
            while self._values and self.size_bytes > self.max_bytes:
                self._drop(next(iter(self._values)))

    def _drop(self, key: bytes) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self.size_bytes -= self._cost(key, value)

    @staticmethod
    def _cost(key: bytes, value: bytes) -> int:
        return len(key) + len(value) + _ENTRY_OVERHEAD


class SQLiteScoreCache(ScoreCache):
    """Keeps scores in a SQLite file, for several processes at once and across restarts.

    The file is in write-ahead mode: a process killed at any moment loses at most what it had not committed. A file
    that is broken, locked for too long or on a full or read-only disk is reported once in the log, and then scores
    are computed as if the cache were empty. The file grows with what it keeps; delete it to start again.

    Args:
        path: The file; made if it is not there.
        busy_timeout: Seconds to wait while another process writes.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 2.0) -> None:
        self.path = Path(path)
        self.busy_timeout = busy_timeout
        self._local = threading.local()
        self._told = False

    def __repr__(self) -> str:
        return f"SQLiteScoreCache({str(self.path)!r})"

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Give the values that are there; none where the file cannot be read."""
        found: dict[bytes, bytes] = {}
        try:
            connection = self._connection()
            for start in range(0, len(keys), _SQLITE_CHUNK):
                chunk = keys[start : start + _SQLITE_CHUNK]
                places = ",".join("?" * len(chunk))
                query = f"SELECT key, value FROM scores WHERE key IN ({places})"  # noqa: S608 - only question marks
                found.update(connection.execute(query, chunk).fetchall())
        except (sqlite3.Error, OSError, ValueError) as err:
            self._fail("read", err)
            return {}
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values in one transaction, or none of them."""
        try:
            connection = self._connection()
            with connection:
                connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", list(values.items()))
        except (sqlite3.Error, OSError, ValueError) as err:
            self._fail("written", err)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _connection(self) -> sqlite3.Connection:
        # SQLite connections belong to one thread, and do not survive a fork.
        if getattr(self._local, "pid", None) != os.getpid() or not hasattr(self._local, "connection"):
            if hasattr(self._local, "connection"):
                # Closing what the parent still uses would take its log away.
                _INHERITED.append(self._local.connection)
            self._local.connection, self._local.pid = self._open(), os.getpid()
        return self._local.connection  # type: ignore[no-any-return]

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.busy_timeout
        while True:
            connection = sqlite3.connect(self.path, timeout=self.busy_timeout)
            # A damaged file may hold text where bytes were written, and that need not be UTF-8.
            connection.text_factory = bytes
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
            except sqlite3.Error as err:
                connection.close()
                # While another process makes the file, SQLite says that it is locked without waiting.
                if "locked" not in str(err) or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return connection

    def _fail(self, what: str, err: Exception) -> None:
        self.close()
        if not self._told:
            self._told = True
            _logger.warning(
                "The score cache %s cannot be %s (%s); scores are computed without it. Delete the file if it is "
                "broken, or make room. This is said once.",
                self.path,
                what,
                err,
            )


class StoreScoreCache(ScoreCache):
    """Keeps scores in any LangChain byte store, for example `LocalFileStore` or `RedisStore`.

    Args:
        store: The store; keys are hexadecimal text under `prefix`.
        prefix: What keys start with.
    """

    def __init__(self, store: BaseStore[str, bytes], *, prefix: str = "crossrerank-") -> None:
        self._store = store
        self._prefix = prefix
        self._told = False

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Give the values that are there; none where the store fails."""
        try:
            values = self._store.mget([self._prefix + key.hex() for key in keys])
            return {key: value for key, value in zip(keys, values, strict=True) if value is not None}
        except Exception as err:  # noqa: BLE001 - stores are other people's code over any medium
            self._fail(err)
            return {}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, unless the store fails."""
        try:
            self._store.mset([(self._prefix + key.hex(), value) for key, value in values.items()])
        except Exception as err:  # noqa: BLE001 - as above
            self._fail(err)

    def _fail(self, err: Exception) -> None:
        if not self._told:
            self._told = True
            _logger.warning(
                "The score cache in %s fails (%s: %s); scores are computed without it. This is said once.",
                type(self._store).__name__,
                type(err).__name__,
                err,
            )


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
        self.cache = _as_cache(cache)
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


def _as_cache(cache: ScoreCache | BaseStore[str, bytes] | str | os.PathLike[str] | None) -> ScoreCache:
    if cache is None:
        return MemoryScoreCache()
    if isinstance(cache, ScoreCache):
        return cache
    if isinstance(cache, BaseStore):
        return StoreScoreCache(cache)
    if isinstance(cache, str | os.PathLike):
        return SQLiteScoreCache(cache)
    raise InvalidInputError(f"cache is {cache!r}; pass a ScoreCache, a LangChain byte store, a path, or None.")


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
