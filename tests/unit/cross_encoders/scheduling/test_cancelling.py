"""A cancelled job stops: before it begins, between steps, and inside one that can be interrupted."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, interruptible
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Gate, Steps, counted


def test_a_cancelled_job_stops_at_its_next_step(scheduler: StepScheduler, gate: Gate) -> None:
    """The step in progress ends, and no further one begins; the generator is closed."""
    log: list[str] = []
    closed = threading.Event()
    # Held on to, so that the scheduler closes it and not the collector of garbage.
    steps = counted("job", 5, log, gate=gate, closed=closed)
    job = scheduler.submit(steps)
    assert gate.begun.wait(WATCHDOG)
    assert job.cancel()
    gate.opened.set()
    assert closed.wait(WATCHDOG)
    assert log == ["job0"]


def test_a_job_cancelled_while_it_waits_never_begins(scheduler: StepScheduler, gate: Gate) -> None:
    """Who gives up before the first turn costs nothing."""
    log: list[str] = []
    scheduler.submit(counted("gate", 1, [], gate=gate))
    assert gate.begun.wait(WATCHDOG)
    waiting = scheduler.submit(counted("waiting", 3, log))
    after = scheduler.submit(counted("after", 2, log))
    assert waiting.cancel()
    gate.opened.set()
    assert after.result(WATCHDOG) == "after"
    assert log == ["after0", "after1"]


def test_a_job_cancelled_in_its_last_step_harms_nobody(scheduler: StepScheduler, gate: Gate) -> None:
    """A result that nobody waits for any more is dropped, and the worker goes on."""

    def last_step() -> Steps:
        gate.hold()
        return "too late"
        yield

    job = scheduler.submit(last_step())
    assert gate.begun.wait(WATCHDOG)
    assert job.cancel()
    gate.opened.set()
    assert scheduler.submit(counted("after", 1, [])).result(WATCHDOG) == "after"
    assert job.cancelled()


async def test_cancelling_the_awaiting_task_stops_the_work(scheduler: StepScheduler, gate: Gate) -> None:
    """A caller that goes away, or times out, stops the scoring it asked for."""
    log: list[str] = []
    closed = threading.Event()
    task = asyncio.create_task(scheduler.run(counted("job", 5, log, gate=gate, closed=closed)))
    assert await asyncio.to_thread(gate.begun.wait, WATCHDOG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    assert await asyncio.to_thread(closed.wait, WATCHDOG)
    assert log == ["job0"]


async def test_cancelling_ascore_stops_at_the_next_batch(gate: Gate) -> None:
    """The same holds for a model's asynchronous call: no batch is scored after the one in progress."""
    closed = threading.Event()

    class Gated(FakeCrossEncoder):
        def _score_batch(self, batch: Any) -> Any:
            scores = super()._score_batch(batch)
            gate.hold()
            return scores

        def score_steps(self, text_pairs: Any) -> Any:
            try:
                return (yield from super().score_steps(text_pairs))
            finally:
                closed.set()

    model = Gated(max_batch_tokens=1)
    task = asyncio.create_task(model.ascore([("q", str(n)) for n in range(5)]))
    assert await asyncio.to_thread(gate.begun.wait, WATCHDOG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    assert await asyncio.to_thread(closed.wait, WATCHDOG)
    assert len(model.batches) == 1


def test_cancelling_stops_inside_a_step_that_can_be_interrupted(scheduler: StepScheduler) -> None:
    """A job that is cancelled while it is inside `interruptible` is stopped there, and frees its worker at once."""
    begun, stopped = threading.Event(), threading.Event()

    def blocking() -> Steps:
        with interruptible(stopped.set):
            begun.set()
            assert stopped.wait(WATCHDOG), "nobody stopped the work"
        yield
        return "never"

    job = scheduler.submit(blocking())
    assert begun.wait(WATCHDOG)
    assert job.cancel()
    assert stopped.wait(WATCHDOG)
    assert scheduler.submit(counted("after", 1, [])).result(WATCHDOG) == "after"


def test_a_cancelled_job_does_not_enter_what_can_be_interrupted(scheduler: StepScheduler, gate: Gate) -> None:
    """Between the cancellation and the next step no new blocking work begins."""
    entered: list[str] = []
    noted = threading.Event()

    def late() -> Steps:
        gate.hold()
        try:
            with interruptible(lambda: None):
                entered.append("inside")
        finally:
            noted.set()
        yield
        return "never"

    job = scheduler.submit(late())
    assert gate.begun.wait(WATCHDOG)
    job.cancel()
    gate.opened.set()
    assert noted.wait(WATCHDOG)
    assert entered == []


def test_outside_a_job_nothing_is_interrupted() -> None:
    """On the caller's own thread the block simply runs."""
    with interruptible(lambda: pytest.fail("stopped")):
        pass
