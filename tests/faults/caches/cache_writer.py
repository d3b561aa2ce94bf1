"""Writes to a SQLite score cache in processes that a test kills; a script that reads its tasks from standard input.

This process only imports and forks, so that a new writer starts within milliseconds. A line of input is a JSON list of
writers that start together; the lines of output say by process id what each of them did and when it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder

PATIENCE = 60.0
"""Seconds that a writer waits for another one to commit; only a broken test waits that long."""


def pairs_of(start: int, number: int) -> list[TextPair]:
    """Return the pairs numbered from `start`, the same in every process."""
    return [("how does lora work", f"passage {place} on low rank adapters") for place in range(start, start + number)]


def say(what: str, detail: object = "") -> None:
    """Report to the test, at once and in one piece."""
    os.write(1, f"{os.getpid()} {what} {detail}\n".encode())


def open_cache(path: str) -> tuple[SQLiteScoreCache, CachedCrossEncoder]:
    """Return the cache and a model that uses it."""
    cache = SQLiteScoreCache(path, busy_timeout=PATIENCE)
    return cache, CachedCrossEncoder(FakeCrossEncoder(), cache)


def write(path: str, starts: list[int], size: int, stage: str = "free", steps: int = 1) -> None:
    """Score a batch of pairs from each start through the cache, and say when each is committed.

    In the stage `"free"` all are written. In `"insert"` the last one stops after `steps` steps of SQLite's machine with
    its transaction open, in `"commit"` at the moment of its commit; both wait there for the end.
    """

    def stop() -> int:
        say("inside")
        while True:
            signal.pause()

    def watch(statement: str) -> None:
        if stage == "insert" and statement.startswith("INSERT"):
            connection.set_progress_handler(stop, steps)
        if stage == "commit" and statement.startswith("COMMIT"):
            stop()

    cache, model = open_cache(path)
    connection = cache._connected.get()
    for start in starts:
        if start == starts[-1]:
            connection.set_trace_callback(watch)
        model.score(pairs_of(start, size))
        say("committed", start)
    say("warned" if cache._warned else "quiet")
    cache.close()


def fork(path: str) -> None:
    """Use one cache before a fork, and after it in parent and child at the same time."""
    cache, model = open_cache(path)
    model.score(pairs_of(0, 20))
    child = os.fork()
    for start in range(0, 60, 10):
        model.score(pairs_of(start + (100 if child else 0), 10))
    if child == 0:
        os._exit(1 if cache._warned else 0)
    _, status = os.waitpid(child, 0)
    say("warned" if cache._warned or status else "quiet")
    cache.close()


def start_writer(task: dict[str, Any], others: tuple[int, int]) -> None:
    """Fork a process that does a task as soon as all others of its line have started."""
    if os.fork():
        return
    try:
        os.close(others[1])
        os.read(others[0], 1)
        fork(**task) if task.pop("fork", False) else write(**task)
    except BaseException as err:  # noqa: BLE001 - the test is told, and the process ends
        say("failed", repr(err))
    os._exit(0)


def main() -> None:
    """Start the writers of each line and say how each of them ended."""
    for line in sys.stdin:
        tasks = json.loads(line)
        others = os.pipe()
        for task in tasks:
            start_writer(task, others)
        for end in others:
            os.close(end)
        for _ in tasks:
            child, status = os.wait()
            os.write(1, f"{child} ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
