"""Where scores can be kept: in memory, in a SQLite file, in any LangChain byte store."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from langchain_core.stores import BaseStore

from langchain_crossrerank.errors import InvalidInputError

_ENTRY_OVERHEAD = 200
_SQLITE_CHUNK = 500
_RETRY_SECONDS = 0.02
_INHERITED: list[sqlite3.Connection] = []

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


def as_score_cache(cache: ScoreCache | BaseStore[str, bytes] | str | os.PathLike[str] | None) -> ScoreCache:
    """Turn what a caller may pass for a cache into a `ScoreCache`; see `CachedCrossEncoder`."""
    if cache is None:
        return MemoryScoreCache()
    if isinstance(cache, ScoreCache):
        return cache
    if isinstance(cache, BaseStore):
        return StoreScoreCache(cache)
    if isinstance(cache, str | os.PathLike):
        return SQLiteScoreCache(cache)
    raise InvalidInputError(f"cache is {cache!r}; pass a ScoreCache, a LangChain byte store, a path, or None.")
