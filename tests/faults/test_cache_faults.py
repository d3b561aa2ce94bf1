"""Caches that are killed, broken, full, locked or wrong: scores stay right, and only time is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.stores import BaseStore, InMemoryByteStore

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CacheCounts, CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.cache_writer import pairs_of

WATCHDOG = 120
"""Seconds after which a child process that hangs is ended and fails its test."""

Score = Callable[[CachedCrossEncoder, Sequence[TextPair]], list[float]]


def _score(model: CachedCrossEncoder, pairs: Sequence[TextPair]) -> list[float]:
    return model.score(pairs)


def _ascore(model: CachedCrossEncoder, pairs: Sequence[TextPair]) -> list[float]:
    async def run() -> list[float]:
        try:
            return await model.ascore(pairs)
        finally:
            # The model's worker thread has a connection of its own.
            await model.scheduler.run(close(model))

    return asyncio.run(run())


def close(model: CachedCrossEncoder) -> Any:
    """Close the connection of the thread that runs this, as one step of the model's scheduler."""
    if isinstance(model.cache, SQLiteScoreCache):
        model.cache.close()
    yield


@pytest.fixture(params=[_score, _ascore], ids=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, behind one signature."""
    way: Score = request.param
    return way


def true_scores(pairs: Sequence[TextPair]) -> list[float]:
    """The model's scores without a cache."""
    return FakeCrossEncoder().score(pairs)


# --- SQLite: kills, several processes, forks ---------------------------------------------------------------------


class Writers:
    """The process that starts writers, and what they report."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cache_writer.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, *tasks: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
        """Start writers together and yield their reports until all have ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(tasks) + "\n")
        self._process.stdin.flush()
        running = len(tasks)
        while running:
            words = self._process.stdout.readline().split(maxsplit=2)
            assert words, "the process that starts writers has ended"
            pid, what, detail = (*words, "")[:3]
            assert what != "failed", detail
            running -= what == "ended"
            yield int(pid), what, detail.strip()

    def close(self) -> None:
        """End the process that starts writers."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(WATCHDOG)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    """One process that starts writers for all tests, because its imports take a second."""
    import langchain_crossrerank

    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    place = str(Path(langchain_crossrerank.__file__).parent.parent)
    writers = Writers({**os.environ, "PYTHONPATH": place})
    yield writers
    writers.close()


def assert_kept(path: Path, pairs: Sequence[TextPair]) -> None:
    """Every pair is found in the file, with the right score and without asking the model."""
    asked = FakeCrossEncoder()
    cache = SQLiteScoreCache(path)
    model = CachedCrossEncoder(asked, cache)
    assert model.score(pairs) == true_scores(pairs)
    assert asked.batches == [], "a score that was committed is lost"
    cache.close()


def assert_nothing_wrong(path: Path, pairs: Sequence[TextPair], caplog: pytest.LogCaptureFixture) -> None:
    """Whether or not a pair is in the file, its score is right, and nothing is logged."""
    cache = SQLiteScoreCache(path)
    assert CachedCrossEncoder(FakeCrossEncoder(), cache).score(pairs) == true_scores(pairs)
    cache.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert caplog.records == []


KILLS = 50


def test_no_committed_score_is_lost_when_a_writer_is_killed(
    writers: Writers, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Of 50 writers killed while they write, every committed score is there afterwards and is right."""
    path, plan = tmp_path / "scores.db", random.Random(0)
    committed: list[TextPair] = []
    stages: list[str] = []
    size = 40
    for kill in range(KILLS):
        stage = ("free", "insert", "commit")[kill % 3]
        batches = plan.randint(1, 6)
        # A free writer has batches left when it is killed, the others stop by themselves in their last one.
        starts = [(kill * 20 + batch) * size for batch in range(batches + (10 if stage == "free" else 0))]
        done = 0
        killed = False
        task = {"path": str(path), "starts": starts, "size": size, "stage": stage, "steps": plan.randint(1, 400)}
        for pid, what, detail in writers.start(task):
            if what == "committed":
                committed += pairs_of(int(detail), size)
                done += 1
            if what == "inside" or (stage == "free" and done == batches and not killed):
                os.kill(pid, signal.SIGKILL)
                killed = True
            if what == "ended":
                assert detail == str(-signal.SIGKILL), "the writer ended before it was killed"
        stages.append(stage)
        assert_kept(path, committed[-20 * size :])
        assert_nothing_wrong(path, pairs_of(starts[0], len(starts) * size), caplog)
    assert_kept(path, committed)
    assert len(committed) >= KILLS * size
    tally("a writer killed in the middle of its work", stages.count("free"))
    tally("a writer killed in an open transaction", stages.count("insert"))
    tally("a writer killed at its commit", stages.count("commit"))


def test_several_processes_write_at_once(
    writers: Writers, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Processes that create a file together and write the same and different scores keep all that they committed."""
    tally("processes writing at once", 4)
    path, size = tmp_path / "new" / "scores.db", 20
    tasks = [
        {"path": str(path), "starts": [*range(0, 200, size), *range(own, own + 200, size)], "size": size}
        for own in (1000, 2000, 3000, 4000)
    ]
    said = [what for _, what, _ in writers.start(*tasks)]
    assert (said.count("quiet"), said.count("committed")) == (4, 80)
    everything = [pair for own in (0, 1000, 2000, 3000, 4000) for pair in pairs_of(own, 200)]
    assert_kept(path, everything)
    assert_nothing_wrong(path, everything, caplog)


def test_a_killed_writer_does_not_harm_the_others(
    writers: Writers, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """One of three processes dies with its transaction open; the other two go on as soon as it is dead."""
    tally("a writer killed beside others")
    path, size = tmp_path / "scores.db", 20
    tasks: list[dict[str, Any]] = [
        {"path": str(path), "starts": [*range(own, own + 200, size)], "size": size} for own in (1000, 2000)
    ]
    tasks.append({"path": str(path), "starts": [0, size], "size": size, "stage": "insert", "steps": 50})
    said = []
    for pid, what, _ in writers.start(*tasks):
        if what == "inside":
            os.kill(pid, signal.SIGKILL)
        said.append(what)
    assert (said.count("quiet"), said.count("committed"), said.count("inside")) == (2, 21, 1)
    everything = [*pairs_of(0, size), *pairs_of(1000, 200), *pairs_of(2000, 200)]
    assert_kept(path, everything)
    assert_nothing_wrong(path, everything, caplog)


def test_a_cache_works_on_both_sides_of_a_fork(
    writers: Writers, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A connection from before the fork is used by the parent alone; both keep what they write."""
    tally("a fork with an open cache")
    path = tmp_path / "scores.db"
    said = [what for _, what, _ in writers.start({"path": str(path), "fork": True})]
    assert said == ["quiet", "ended"]
    assert_kept(path, [*pairs_of(0, 60), *pairs_of(100, 60)])
    assert_nothing_wrong(path, pairs_of(0, 200), caplog)


# --- SQLite: broken files and disks ------------------------------------------------------------------------------

PAIRS = pairs_of(0, 30)


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache file with the scores of `PAIRS`, with nothing left in its log."""
    path = tmp_path_factory.mktemp("cache") / "good.db"
    cache = SQLiteScoreCache(path)
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS)
    cache._connected.get().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    return path


def make_broken(kind: str, path: Path, good: Path) -> None:
    """Put something other than a working cache file at `path`."""
    content = good.read_bytes()
    if kind == "random bytes":
        path.write_bytes(random.Random(0).randbytes(5000))
    elif kind == "text":
        path.write_text("scores go here\n" * 100)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a bare header":
        path.write_bytes(content[:100])
    elif kind == "its second half gone":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "its first page zeroed":
        path.write_bytes(bytes(4096) + content[4096:])
    elif kind == "its other pages zeroed":
        path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    elif kind == "another program's table":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE scores (id INTEGER, team TEXT, points INTEGER)")
        connection.close()
    else:
        raise AssertionError(kind)


BROKEN = [
    "random bytes",
    "text",
    "a folder",
    "a bare header",
    "its second half gone",
    "its first page zeroed",
    "its other pages zeroed",
    "another program's table",
]


def assert_right_with_one_warning(
    model: CachedCrossEncoder, score: Score, caplog: pytest.LogCaptureFixture, *, word: str, logger: str
) -> None:
    """Score three times; all scores are right, and one warning in all, from the given module, names the place."""
    with caplog.at_level(logging.DEBUG, logger="langchain_crossrerank"):
        for _ in range(3):
            assert score(model, PAIRS) == true_scores(PAIRS)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (
        logging.WARNING,
        f"langchain_crossrerank.cross_encoders.wrappers.{logger}",
    )
    assert word in record.getMessage()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_costs_time_and_one_warning(
    kind: str, good_file: Path, tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Whatever is in place of the cache file, scores are computed, with one warning."""
    tally(f"a cache file that is {kind}")
    path = tmp_path / "scores.db"
    make_broken(kind, path, good_file)
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, path)
    assert_right_with_one_warning(model, score, caplog, word=str(path), logger="sqlite_score_cache")
    assert model.counts.hits == 0
    assert sum(len(batch) for batch in asked.batches) == 3 * len(PAIRS)


def test_a_path_under_a_file_costs_time_and_one_warning(
    tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A folder that cannot be created is reported in the same way."""
    tally("a cache path under a file")
    (tmp_path / "file").write_text("")
    model = CachedCrossEncoder(FakeCrossEncoder(), tmp_path / "file" / "scores.db")
    assert_right_with_one_warning(model, score, caplog, word="scores.db", logger="sqlite_score_cache")


@pytest.mark.parametrize("fault", ["PRAGMA max_page_count=2", "PRAGMA query_only=ON"], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_costs_time_and_one_warning(
    fault: str,
    tmp_path: Path,
    score: Score,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
) -> None:
    """If the disk is full or read-only, scores are computed, with one warning."""
    tally(f"a disk that is {'full' if 'page' in fault else 'read-only'}")
    path = tmp_path / "scores.db"
    cache = SQLiteScoreCache(path)
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS[:1])
    cache.close()

    class Limited(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.execute(fault)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Limited, **kwargs))
    model = CachedCrossEncoder(FakeCrossEncoder(), path)
    more = [("q", f"{place} {'x' * 500}") for place in range(200)]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert score(model, [*PAIRS, *more]) == true_scores([*PAIRS, *more])
    (record,) = caplog.records
    assert "is full" in record.getMessage() or "readonly" in record.getMessage()
    assert model.counts.hits >= 2, "what the file has can still be read"


def test_a_file_that_another_process_holds_costs_one_warning(
    tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A file that stays locked is waited for during `busy_timeout` only, and used again once it is free."""
    tally("a cache file that is locked")
    path = tmp_path / "scores.db"
    SQLiteScoreCache(path).get_many([b""])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    model = CachedCrossEncoder(FakeCrossEncoder(), SQLiteScoreCache(path, busy_timeout=0.001, retry_seconds=0))
    assert_right_with_one_warning(model, score, caplog, word="locked", logger="sqlite_score_cache")
    holder.execute("ROLLBACK")
    holder.close()
    assert score(model, PAIRS) == score(model, PAIRS) == true_scores(PAIRS)
    assert model.counts.hits == len(PAIRS), "once it is free, it is used"


def test_a_truncated_file_never_changes_a_score(
    good_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Cut short at any place, the file yields right scores or none, and no more than one warning."""
    content = good_file.read_bytes()
    lengths = [0, 1, 15, 16, 99, 100, 101, 1000, 4095, 4096, 4097, *range(5000, len(content), 512), len(content) - 1]
    for length in lengths:
        path = tmp_path / f"{length}.db"
        path.write_bytes(content[:length])
        assert_survives(path, caplog)
    tally("a cache file cut short", len(lengths))


def assert_survives(path: Path, caplog: pytest.LogCaptureFixture) -> int:
    """Check that scores are right with one warning or none, and return how many were found in the file."""
    caplog.clear()
    cache = SQLiteScoreCache(path)
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    assert model.score(PAIRS) == true_scores(PAIRS)
    found = model.counts.hits
    assert model.score(PAIRS) == true_scores(PAIRS)
    cache.close()
    assert len(caplog.records) <= 1
    return found


def test_a_flipped_byte_never_changes_a_score(
    good_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """With any one byte of the file damaged, scores are right, and usually no more than the damaged score is lost."""
    content = good_file.read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    plan = random.Random(1)
    found = []
    for place in plan.sample(used, 400):
        path = tmp_path / "scores.db"
        path.write_bytes(content[:place] + bytes([content[place] ^ plan.randint(1, 255)]) + content[place + 1 :])
        found.append(assert_survives(path, caplog))
        for file in tmp_path.iterdir():
            file.unlink()
    assert found.count(len(PAIRS) - 1) > 100
    tally("a flipped byte in a cache file", len(found))


def damage(path: Path, value: Any) -> None:
    """Replace every value of a cache file; a callable computes the new value from the old one."""
    with sqlite3.connect(path) as connection:
        for key, old in connection.execute("SELECT key, value FROM scores").fetchall():
            new = value(old) if callable(value) else value
            connection.execute("UPDATE scores SET value = ? WHERE key = ?", (new, key))
    connection.close()


VALUES: dict[str, Any] = {
    "NULL": None,
    "a whole number": 5,
    "a number": 0.75,
    "text": "x" * 34,
    "nothing": b"",
    "one byte": b"\x01",
    "cut short": lambda old: old[:-1],
    "too long": lambda old: old + b"\0",
    "with its checksum zeroed": lambda old: old[:-8] + bytes(8),
    "with its score changed": lambda old: old[:2] + bytes([old[2] ^ 1]) + old[3:],
    "all zeros": lambda old: bytes(len(old)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_damaged_value_is_recomputed_and_replaced(
    kind: str, good_file: Path, tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Damaged values count as missing, are reported once, and are written again."""
    tally(f"a cached value that is {kind}")
    path = tmp_path / "scores.db"
    shutil.copy(good_file, path)
    damage(path, VALUES[kind])
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, path)
    assert_right_with_one_warning(model, score, caplog, word="cache", logger="cached")
    assert sum(len(batch) for batch in asked.batches) == len(PAIRS)
    assert model.counts == CacheCounts(hits=2 * len(PAIRS), misses=len(PAIRS))


def test_every_flipped_bit_of_a_value_is_noticed(tally: Tally) -> None:
    """A stored value with any single bit flipped is not used."""
    cache = Recording()
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    model.score(PAIRS[:1])
    ((key, value),) = cache.values.items()
    for bit in range(8 * len(value)):
        cache.values[key] = (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")
        before = model.counts.misses
        assert model.score(PAIRS[:1]) == true_scores(PAIRS[:1])
        assert model.counts.misses == before + 1
    tally("a flipped bit in a cached value", 8 * len(value))


def test_a_value_of_another_pair_is_noticed(tally: Tally) -> None:
    """A value under a wrong key, as after damage to an index, is not used."""
    tally("swapped values")
    cache = Recording()
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS)
    keys = list(cache.values)
    cache.values = dict(zip(keys, [cache.values[key] for key in [*keys[1:], keys[0]]], strict=True))
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    assert model.score(PAIRS) == true_scores(PAIRS)
    assert model.counts.hits == 0


# --- LangChain's byte stores -------------------------------------------------------------------------------------


class Recording(MemoryScoreCache):
    """A cache whose content a test can read and change."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the known values."""
        return {key: self.values[key] for key in keys if key in self.values}

    def put_many(self, values: Any) -> None:
        """Keep everything."""
        self.values.update(values)


class BadStore(InMemoryByteStore):
    """A byte store that fails in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """Read, or fail."""
        if self.fault == "raises on reading":
            raise ConnectionError("no route to the store")
        found: list[Any] = super().mget(keys)
        answers: dict[str, list[Any]] = {
            "returns too few": found[:-1],
            "returns too many": [*found, None],
            "returns nothing at all": [],
            "returns text": ["x" * 34 for _ in found],
            "returns numbers": [0.5 for _ in found],
            "returns other bytes": [b"?" * 34 for _ in found],
        }
        return answers.get(self.fault, found)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Write, or fail."""
        if self.fault == "raises on writing":
            raise PermissionError("the store is read-only")
        super().mset(key_value_pairs)


STORE_FAULTS = [
    "raises on reading",
    "raises on writing",
    "returns too few",
    "returns too many",
    "returns nothing at all",
    "returns text",
    "returns numbers",
    "returns other bytes",
]


DAMAGED = ["returns text", "returns numbers", "returns other bytes"]
"""Faults that only show when a value is read."""


@pytest.mark.parametrize("fault", STORE_FAULTS)
def test_a_failing_store_costs_time_and_one_warning(
    fault: str, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A store that raises or returns nonsense never fails a call and never changes a score."""
    tally(f"a byte store that {fault}")
    model = CachedCrossEncoder(FakeCrossEncoder(), BadStore(fault))
    assert_right_with_one_warning(
        model, score, caplog, word="cache", logger="cached" if fault in DAMAGED else "score_caches"
    )
    assert model.counts.hits == 0


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_langchains_stores_keep_scores(kind: str, tmp_path: Path, score: Score, tally: Tally) -> None:
    """`InMemoryByteStore` and `LocalFileStore` work as caches: the second time nothing is scored."""
    tally(f"a byte store in {kind}")
    store: BaseStore[str, bytes] = InMemoryByteStore() if kind == "memory" else LocalFileStore(tmp_path)
    assert score(CachedCrossEncoder(FakeCrossEncoder(), store), PAIRS) == true_scores(PAIRS)
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, store)
    assert score(model, PAIRS) == true_scores(PAIRS)
    assert (asked.batches, model.counts) == ([], CacheCounts(hits=len(PAIRS), misses=0))


def test_files_that_were_cut_in_a_store_are_recomputed(tmp_path: Path, score: Score, tally: Tally) -> None:
    """A `LocalFileStore` whose writer was killed has short files; their scores are computed again."""
    store = LocalFileStore(tmp_path)
    CachedCrossEncoder(FakeCrossEncoder(), store).score(PAIRS)
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    assert len(files) == len(PAIRS)
    for place, file in enumerate(files[:20]):
        file.write_bytes(file.read_bytes()[:place])
    model = CachedCrossEncoder(FakeCrossEncoder(), store)
    assert score(model, PAIRS) == true_scores(PAIRS)
    assert model.counts == CacheCounts(hits=len(PAIRS) - 20, misses=20)
    tally("a file cut short in a byte store", 20)


def test_a_reranker_does_not_notice_a_broken_cache(tmp_path: Path, tally: Tally) -> None:
    """A broken cache is not a failure of the model: the result is reranked."""
    tally("a rerank over a broken cache")
    path = tmp_path / "scores.db"
    path.write_text("no database")
    candidates = [Document(text) for _, text in PAIRS]
    reranker = CrossEncoderReranker(model=CachedCrossEncoder(FakeCrossEncoder(), path), on_error="keep_order")
    expected = CrossEncoderReranker(model=FakeCrossEncoder()).compress_documents(candidates, PAIRS[0][0])
    assert reranker.compress_documents(candidates, PAIRS[0][0]) == expected
