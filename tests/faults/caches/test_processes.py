"""SQLite caches of processes that write at once, are killed or fork: what was committed is kept."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import langchain_crossrerank
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.caches.cache_writer import pairs_of
from tests.faults.caches.cached_scores import true_scores

WATCHDOG = 120
"""Seconds after which a child process that hangs is ended and fails its test."""

KILLS = 50


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
