"""Jobs for a scheduler whose steps a test can hold, count and let fail."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import Any

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""


Steps = Generator[float | None, None, str]


class Gate:
    """A step that says it has begun and then waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.begun.set()
        assert self.opened.wait(WATCHDOG), "nobody opened the gate"


def counted(name: str, number: int, log: list[str], *, gate: Gate | None = None, closed: Any = None) -> Steps:
    """Write each step into `log`; the first one waits at `gate`."""
    try:
        for step in range(number):
            if gate is not None and step == 0:
                gate.hold()
            log.append(f"{name}{step}")
            yield
        return name
    finally:
        if closed is not None:
            closed.set()


def raising(err: BaseException) -> Steps:
    """Fail in the second step."""
    yield
    raise err


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def working(clock: Clock, seconds: float, steps: int, log: list[str], name: str, *, gate: Gate | None = None) -> Steps:
    """Take `seconds` of the clock's time in equal steps, and say after each how much is done."""
    if gate is not None:
        gate.hold()
    for step in range(1, steps + 1):
        clock.now += seconds / steps
        log.append(name)
        yield step / steps
    return name


def outcomes(jobs: Sequence[Future[str]]) -> list[str]:
    """Wait for jobs and give each one's result, or the name of its error."""
    return [type(err).__name__ if (err := job.exception(WATCHDOG)) else job.result() for job in jobs]
