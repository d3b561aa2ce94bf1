"""Scores in a SQLite file: its bound, its permissions, its pauses after a failure, and what `info` and `clear` say."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.wrappers import sqlite_score_cache
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.errors import InvalidInputError

VALUE = b"v" * 34


def hashes(start: int, number: int) -> list[bytes]:
    """Keys spread like real ones."""
    return [hashlib.blake2b(key, digest_size=20).digest() for key in keys(start, number)]


def keys(start: int, number: int) -> list[bytes]:
    """Keys numbered from `start`, as long as real ones."""
    return [place.to_bytes(20, "big") for place in range(start, start + number)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "folder" / "scores.db"


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """A file in which another connection holds the write lock until it ends its transaction."""
    cache = SQLiteScoreCache(path)
    cache.put_many(dict.fromkeys(keys(0, 10), VALUE))
    cache.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.close()


def test_a_file_stays_within_its_bytes(path: Path) -> None:
    """However much is written, the file stays near `max_bytes`, its log aside, and is well filled."""
    bound = 200_000
    cache = SQLiteScoreCache(path, max_bytes=bound)
    for start in range(0, 20_000, 500):
        cache.put_many(dict.fromkeys(hashes(start, 500), VALUE))
        assert path.stat().st_size < 1.5 * bound
    entries = cache.info().entries
    assert entries * (20 + len(VALUE)) > bound / 3
    assert len(cache.get_many(hashes(0, 20_000))) == entries
    assert len(cache.get_many(hashes(0, 10_000))) < entries / 2, "older scores had more occasions to go"


def test_a_bound_below_the_smallest_file_keeps_nothing(path: Path) -> None:
    """A bound that not even an empty file meets deletes every score and does not go on for ever."""
    cache = SQLiteScoreCache(path, max_bytes=1)
    cache.put_many(dict.fromkeys(keys(0, 50), VALUE))
    assert cache.get_many(keys(0, 50)) == {}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_can_read_the_file(path: Path) -> None:
    """The file and its log are private, whatever the umask."""
    before = os.umask(0)
    try:
        cache = SQLiteScoreCache(path)
        cache.put_many({b"key": VALUE})
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) >= {"scores.db", "scores.db-wal"}
    assert set(modes.values()) == {0o600}


def test_a_locked_file_is_waited_for_once(
    path: Path, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After one failed attempt the file is left alone until `retry_seconds` are over, and then used again."""
    now = 100.0
    monkeypatch.setattr(sqlite_score_cache.time, "monotonic", lambda: now)
    cache = SQLiteScoreCache(path, busy_timeout=0.001, retry_seconds=30)
    attempts: list[str] = []
    monkeypatch.setattr(
        sqlite_score_cache.sqlite3,
        "connect",
        lambda *args, _connect=sqlite3.connect, **kwargs: attempts.append("connect") or _connect(*args, **kwargs),
    )
    fresh = {keys(50, 1)[0]: VALUE}
    for _ in range(5):
        cache.put_many(fresh)
    assert attempts == ["connect"]
    assert cache.get_many(keys(0, 10)), "reading goes on"
    locked.execute("ROLLBACK")
    cache.put_many(fresh)
    assert cache.get_many(list(fresh)) == {}, "still left alone"
    now += 31
    cache.put_many(fresh)
    assert cache.get_many(list(fresh)) == fresh
    (record,) = caplog.records
    assert "locked" in record.getMessage()


def test_threads_share_a_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that come and go leave no connections behind, and lose nothing."""
    opened: list[Any] = []
    monkeypatch.setattr(
        sqlite_score_cache.sqlite3,
        "connect",
        lambda *args, _connect=sqlite3.connect, **kwargs: opened.append(args) or _connect(*args, **kwargs),
    )
    cache = SQLiteScoreCache(path)
    threads = [
        threading.Thread(target=cache.put_many, args=(dict.fromkeys(keys(100 * n, 100), VALUE),)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.get_many(keys(0, 800))) == 800
    assert len(opened) == 1


def test_info_and_clear(path: Path) -> None:
    """`info` counts what is there, `clear` deletes it, says how many there were, and shrinks the file."""
    cache = SQLiteScoreCache(path, max_bytes=10**7)
    cache.put_many(dict.fromkeys(keys(0, 5000), VALUE))
    before = cache.info()
    assert (before.path, before.entries, before.max_bytes) == (path, 5000, 10**7)
    assert before.size_bytes >= 5000 * (20 + len(VALUE))
    assert cache.clear() == 5000
    after = cache.info()
    assert after.entries == 0
    assert after.size_bytes < before.size_bytes / 4
    assert cache.clear() == 0
    cache.put_many({b"key": VALUE})
    assert cache.info().entries == 1


@pytest.mark.parametrize("content", [None, b"no database, but a text that is long enough to be looked at" * 20])
@pytest.mark.parametrize("method", ["info", "clear"])
def test_info_and_clear_need_a_cache(path: Path, content: bytes | None, method: str) -> None:
    """A missing file is not created and a file of another kind is not touched; the error names it."""
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"scores\.db"):
        getattr(SQLiteScoreCache(path), method)()
    assert path.exists() == (content is not None)
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("table", ["scores (key BLOB PRIMARY KEY, value BLOB)", "orders (id INTEGER)"])
@pytest.mark.parametrize("application", [0, 5])
def test_the_database_of_another_application_is_left_alone(path: Path, table: str, application: int) -> None:
    """Nothing in it is read, deleted or added, not even by mistake for a cache; the error says what to pass."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table}")
        connection.execute(f"PRAGMA application_id={application}")
    content = path.read_bytes()
    cache = SQLiteScoreCache(path)
    for method in (cache.info, cache.clear):
        with pytest.raises(InvalidInputError, match=r"another application.*pass the file of a CachedCrossEncoder"):
            method()
    cache.put_many({b"key": VALUE})
    assert cache.get_many([b"key"]) == {}
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["busy_timeout", "retry_seconds"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_times_are_seconds(path: Path, name: str, value: Any) -> None:
    """A time that is not a finite number of seconds is refused."""
    with pytest.raises(InvalidInputError, match=f"{name} is"):
        SQLiteScoreCache(path, **{name: value})
