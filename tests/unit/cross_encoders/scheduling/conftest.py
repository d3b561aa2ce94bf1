"""Schedulers, and what holds their jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from langchain_crossrerank.cross_encoders import scheduling
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Clock, Gate, counted, working


@pytest.fixture
def scheduler() -> StepScheduler:
    """A scheduler of its own for each test."""
    return StepScheduler(name="test")


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open at the end, so that no thread outlives its test."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the scheduler."""
    clock = Clock()
    monkeypatch.setattr(scheduling, "time", clock)
    return clock


@pytest.fixture
def busy(scheduler: StepScheduler, clock: Clock, gate: Gate) -> StepScheduler:
    """A scheduler that knows that a unit of work takes a second, and is held at the gate by a job without work."""
    scheduler.submit(working(clock, 8.0, 8, [], "measured"), work=8.0).result(WATCHDOG)
    scheduler.submit(counted("gate", 1, [], gate=gate), deadline=clock.now + 1000.0)
    assert gate.begun.wait(WATCHDOG)
    return scheduler
