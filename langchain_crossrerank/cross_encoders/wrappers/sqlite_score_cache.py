"""Scores kept in a SQLite file, for several processes at once and across restarts."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from langchain_crossrerank._process import PerProcess, QuietLock
from langchain_crossrerank.checks import check_whole_numbers, shorten
from langchain_crossrerank.cross_encoders.wrappers.score_caches import ScoreCache
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.files import PRIVATE, open_new

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
"""Bytes that a cache file keeps by default: about three million scores."""

_CHUNK = 500
_POLL_SECONDS = 0.02
_ROW_BYTES = 80
_EVICTED_SHARE = 50
_APPLICATION_ID = int.from_bytes(b"XRSC")
"""What the header of a SQLite file says of whose it is."""

_FAILURES = (sqlite3.Error, OSError, ValueError)
_REMEDY = "pass the file of a CachedCrossEncoder"

Result = TypeVar("Result")
Task = Literal["read", "write"]

_logger = logging.getLogger(__name__)


class _ForeignFileError(sqlite3.DatabaseError):
    """The file belongs to another application, and must not be changed."""


@dataclass(frozen=True)
class ScoreCacheInfo:
    """What a cache file holds.

    Attributes:
        path: The file.
        entries: Scores in it.
        size_bytes: Bytes of the file and of its write-ahead log.
        max_bytes: Bytes of scores that are kept.
    """

    path: Path
    entries: int
    size_bytes: int
    max_bytes: int


class SQLiteScoreCache(ScoreCache):
    """Keeps scores in a SQLite file.

    The file is in write-ahead mode: a process killed at any moment loses at most what it had not committed. When the
    scores take more than `max_bytes`, some are deleted at random. The file is readable by its owner only.

    A file that is broken, locked, or on a full or read-only disk is reported once in the log, and scores are computed
    without it. After a failure it is left alone for `retry_seconds`, so that not every call waits for it. A SQLite
    file of another application is reported, too, and never changed.

    A connection is never carried across a fork: it is closed just before, and parent and child open their own.

    Args:
        path: The file; created if it does not exist.
        busy_timeout: Seconds to wait while another process writes.
        max_bytes: Bytes of scores to keep.
        retry_seconds: Seconds to leave the file alone after a failure.

    Raises:
        InvalidInputError: If a setting is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 2.0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        retry_seconds: float = 30.0,
    ) -> None:
        check_whole_numbers(max_bytes=(max_bytes, 1))
        for what, value in (("busy_timeout", busy_timeout), ("retry_seconds", retry_seconds)):
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise InvalidInputError(f"{what} is {shorten(value)}; pass a number of seconds of 0 or more.")
        self.path = Path(path)
        self.busy_timeout = busy_timeout
        self.max_bytes = max_bytes
        self.retry_seconds = retry_seconds
        self._warned = False
        self._paused_until: dict[Task, float] = {"read": 0.0, "write": 0.0}
        self._connected = PerProcess(self._connect)
        # One connection for all threads: SQLite would make them wait for one another anyway.
        self._lock = QuietLock(self._disconnect)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are known; none if the file cannot be read."""
        return self._attempt("read", lambda connection: _select(connection, keys)) or {}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values in one transaction, or none of them; others make way for them."""
        rows = list(values.items())

        def insert(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
            while (used := _used_bytes(connection)) > self.max_bytes and _evict(connection, used):
                pass

        self._attempt("write", insert)

    def info(self) -> ScoreCacheInfo:
        """Return how many scores the file holds and what it takes.

        Raises:
            InvalidInputError: If there is no such file, or it is not a score cache that can be read.
        """
        count = self._maintain(lambda connection: connection.execute("SELECT count(*) FROM scores").fetchone()[0])
        files = [self.path, self.path.with_name(f"{self.path.name}-wal")]
        size = sum(file.stat().st_size for file in files if file.exists())
        return ScoreCacheInfo(self.path, int(count), size, self.max_bytes)

    def clear(self) -> int:
        """Delete all scores, shrink the file, and return how many there were.

        Raises:
            InvalidInputError: If there is no such file, or it is not a score cache that can be written.
        """

        def delete(connection: sqlite3.Connection) -> int:
            with connection:
                count = connection.execute("DELETE FROM scores").rowcount
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return count

        return self._maintain(delete)

    def close(self) -> None:
        """Close this process's connection; a later call opens another."""
        with self._lock:
            self._disconnect()

    def _attempt(self, task: Task, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Do `work` with the connection; `None` if it fails or failed a short while ago."""
        with self._lock:
            if time.monotonic() < self._paused_until[task]:
                return None
            try:
                return work(self._connected.get())
            except _FAILURES as err:
                self._disconnect()
                self._paused_until[task] = time.monotonic() + self.retry_seconds
                self._warn(task, err)
                return None

    def _maintain(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if not self.path.is_file():
            raise InvalidInputError(f"there is no score cache {str(self.path)!r}; {_REMEDY}.")
        with self._lock:
            try:
                return work(self._connected.get())
            except _FAILURES as err:
                self._disconnect()
                is_foreign = isinstance(err, _ForeignFileError)
                remedy = _REMEDY if is_foreign else "if it is broken, delete it"
                raise InvalidInputError(
                    f"{str(self.path)!r} cannot be used as a score cache ({err}); {remedy}."
                ) from err

    def _disconnect(self) -> None:
        connection = self._connected.take()
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite would create it readable by others. Its log and index get the same permissions.
        with contextlib.suppress(FileExistsError):
            open_new(self.path, mode=PRIVATE).close()
        deadline = time.monotonic() + self.busy_timeout
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            connection = sqlite3.connect(self.path, timeout=remaining, check_same_thread=False)
            # A damaged file may hold text where bytes were written, and that need not be UTF-8.
            connection.text_factory = bytes
            try:
                is_new = _is_new(connection)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                if is_new:
                    _create(connection)
                connection.execute(f"PRAGMA busy_timeout={round(self.busy_timeout * 1000)}")
            except sqlite3.Error as err:
                connection.close()
                # While another process creates the file, SQLite says that it is locked without waiting.
                if "locked" not in str(err) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return connection

    def _warn(self, task: Task, err: Exception) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "The score cache %s cannot be %s (%s), so scores are computed without it. Name another file, delete it "
                "if it is a broken cache, or free some disk space. Further failures are not logged.",
                self.path,
                "read" if task == "read" else "written",
                err,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled copy opens the file again where it is unpickled.
        return _reopened, (type(self), self.path, self.busy_timeout, self.max_bytes, self.retry_seconds)


def _reopened(
    kind: type[SQLiteScoreCache], path: Path, busy_timeout: float, max_bytes: int, retry_seconds: float
) -> SQLiteScoreCache:
    return kind(path, busy_timeout=busy_timeout, max_bytes=max_bytes, retry_seconds=retry_seconds)


def _is_new(connection: sqlite3.Connection) -> bool:
    """Return whether a file is empty, and not yet a score cache; raise if it is another application's."""
    # In this order, because another process may be creating the cache.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID and (application or tables):
        raise _ForeignFileError("it is a database of another application")
    return bool(application != _APPLICATION_ID)


def _create(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")


def _select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        places = ",".join("?" * len(chunk))
        query = f"SELECT key, value FROM scores WHERE key IN ({places})"  # noqa: S608 - only question marks
        found.update(connection.execute(query, chunk).fetchall())
    return found


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _evict(connection: sqlite3.Connection, used_bytes: int) -> bool:
    """Delete a share of the scores, and return whether there were any."""
    # Keys are hashes, so neighbours in the order of keys have nothing in common but the pages that they share.
    count, start = max(1, used_bytes // _ROW_BYTES // _EVICTED_SHARE), os.urandom(20)
    delete = "DELETE FROM scores WHERE key IN (SELECT key FROM scores WHERE key >= ? ORDER BY key LIMIT ?)"
    with connection:
        return any(connection.execute(delete, (first, count)).rowcount for first in (start, b""))
