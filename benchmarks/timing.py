"""The one timer of the benchmarks: calls in turns, and whole processes with their peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass
class Stopwatch:
    """Seconds of the calls that went through it.

    Attributes:
        seconds: One entry for each call.
    """

    seconds: list[float]

    def __init__(self) -> None:
        self.seconds = []

    def time(self, work: Callable[[], Result]) -> Result:
        """Call `work`, and note how long it took."""
        started = time.perf_counter()
        result = work()
        self.seconds.append(time.perf_counter() - started)
        return result

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)


def seconds(work: Callable[[], object]) -> float:
    """Time one call, in seconds."""
    stopwatch = Stopwatch()
    stopwatch.time(work)
    return stopwatch.seconds[0]


def in_turns(
    ways: Mapping[str, Callable[[int], object]], *, rounds: int, warm_up: int = 1, pause: float = 0.0
) -> dict[str, Stopwatch]:
    """Time several ways in turns within every round, so that other load on the machine affects all of them alike.

    Args:
        ways: What to call, by name, with the number of the round, from 0.
        rounds: Rounds that are timed.
        warm_up: Rounds before them that are not.
        pause: Seconds to wait before each call, for threads of the last one that still spin.

    Returns:
        The stopwatch of each way.
    """
    watches = {name: Stopwatch() for name in ways}
    for round_ in range(warm_up + rounds):
        for name, way in ways.items():
            time.sleep(pause)
            if round_ < warm_up:
                way(round_)
            else:
                watches[name].time(lambda way=way, round_=round_: way(round_))  # type: ignore[misc]
    return watches


@dataclass
class ProcessFigures:
    """One process from its start to its end.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time, user and system, of all its threads; it depends less on other load than wall time.
        peak_mib: Peak resident memory in MiB, by the operating system. It starts at the parent's, so keep that small.
        output: What the process wrote to standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str


def time_process(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ProcessFigures:
    """Run Python with `arguments` in a fresh process.

    Raises:
        RuntimeError: If it fails, with the command to repeat by hand.
    """
    command = [sys.executable, *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    spent = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {command!r}; run it by hand to see why")
    return ProcessFigures(spent, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)
