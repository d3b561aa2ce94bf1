"""The threads of a scheduler: errors, contexts, idleness and forks."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Generator

import pytest

from langchain_crossrerank.cross_encoders import scheduling
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Gate, Steps, counted, raising


@pytest.mark.parametrize("err", [ValueError("no"), OverloadedError("busy"), RerankTimeoutError("late")], ids=repr)
async def test_an_exception_reaches_the_awaiting_caller(scheduler: StepScheduler, err: Exception) -> None:
    """What a step raises is raised where the result is awaited, and the worker goes on."""
    with pytest.raises(type(err)) as raised:
        await scheduler.run(raising(err))
    assert raised.value is err
    assert await scheduler.run(counted("after", 2, [])) == "after"


@pytest.mark.parametrize("err", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_no_exception_ends_the_worker(scheduler: StepScheduler, err: BaseException) -> None:
    """Even what is no `Exception` goes to the caller and leaves the worker alive."""
    assert scheduler.submit(raising(err)).exception(WATCHDOG) is err
    assert scheduler.submit(counted("after", 2, [])).result(WATCHDOG) == "after"


def test_a_stray_stop_iteration_is_an_error_and_not_a_result(scheduler: StepScheduler) -> None:
    """A `StopIteration` that leaks from a step does not pass for the end of the work."""
    assert isinstance(scheduler.submit(raising(StopIteration("leak"))).exception(WATCHDOG), RuntimeError)


@pytest.mark.parametrize("deadline", [None, float("inf")], ids=["no deadline", "deadline"])
def test_a_thread_that_cannot_be_started_costs_one_call(
    scheduler: StepScheduler, monkeypatch: pytest.MonkeyPatch, deadline: float | None
) -> None:
    """If the system has no thread left, the call that needs one fails and is not queued, and a later call works."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    log: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            scheduler.submit(counted("refused", 1, log), deadline=deadline)
    assert scheduler.waiting == 0
    assert scheduler.submit(counted("after", 1, log)).result(WATCHDOG) == "after"
    assert log == ["after0"]


def test_a_generator_that_fails_to_close_does_not_end_the_worker(
    scheduler: StepScheduler, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled job whose clean-up raises harms no other job."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    closing = threading.Event()

    def bad_clean_up() -> Steps:
        try:
            gate.hold()
            yield
            return "never"
        finally:
            closing.set()
            raise ValueError("clean-up")

    job = scheduler.submit(bad_clean_up())
    assert gate.begun.wait(WATCHDOG)
    job.cancel()
    gate.opened.set()
    assert closing.wait(WATCHDOG)
    try:
        assert scheduler.submit(counted("after", 1, [])).result(2) == "after"
    except TimeoutError as err:  # concurrent.futures has its own class before Python 3.11
        raise TimeoutError from err


async def test_the_event_loop_runs_on_while_a_step_works(scheduler: StepScheduler, gate: Gate) -> None:
    """A step that is busy leaves the loop free: here it ends only because the loop lets it."""
    threads: list[threading.Thread] = []
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def busy() -> Steps:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        gate.hold()
        yield
        return "done"

    async def open_when_begun() -> None:
        await begun.wait()
        gate.opened.set()

    result, _ = await asyncio.gather(scheduler.run(busy()), open_when_begun())
    assert result == "done"
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


def test_steps_see_the_context_of_the_caller(scheduler: StepScheduler) -> None:
    """Context variables, which carry callbacks and traces, are those of the call that submitted the job."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def reading() -> Steps:
        first = variable.get()
        variable.set("changed inside")
        yield
        return f"{first}, {variable.get()}"

    variable.set("caller")
    assert scheduler.submit(reading()).result(WATCHDOG) == "caller, changed inside"
    assert variable.get() == "caller"


def test_more_workers_run_jobs_side_by_side() -> None:
    """With two workers two steps run at the same time: here each waits for the other."""
    together = threading.Barrier(2)

    def meeting() -> Steps:
        together.wait(WATCHDOG)
        yield
        return "met"

    scheduler = StepScheduler(workers=2)
    jobs = [scheduler.submit(meeting()) for _ in range(2)]
    assert [job.result(WATCHDOG) for job in jobs] == ["met", "met"]


def test_one_worker_never_runs_two_steps_at_once(scheduler: StepScheduler) -> None:
    """A model that fills the processors by itself gets one forward pass at a time, on one thread."""
    threads: set[threading.Thread] = set()

    def noting() -> Steps:
        for _ in range(3):
            threads.add(threading.current_thread())
            yield
        return "done"

    jobs = [scheduler.submit(noting()) for _ in range(8)]
    assert [job.result(WATCHDOG) for job in jobs] == ["done"] * 8
    assert len(threads) == 1


def test_an_idle_thread_ends_and_the_next_job_starts_another(
    scheduler: StepScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler without work keeps no thread, and still takes jobs afterwards."""
    monkeypatch.setattr(scheduling, "_IDLE_SECONDS", 0.0)

    def which() -> Generator[None, None, threading.Thread]:
        yield
        return threading.current_thread()

    first = scheduler.submit(which()).result(WATCHDOG)
    first.join(WATCHDOG)
    assert not first.is_alive()
    assert scheduler.submit(which()).result(WATCHDOG) is not first


_FORK = """
import os, signal, sys, threading
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler

begun, opened = threading.Event(), threading.Event()

def held():
    begun.set()
    opened.wait(30)
    yield
    return "held"

def quick():
    yield
    return "quick"

scheduler = StepScheduler()
job = scheduler.submit(held())
assert begun.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if scheduler.submit(quick()).result(20) == "quick" else 3)
_, status = os.waitpid(child, 0)
opened.set()
assert job.result(30) == "held"
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_can_use_an_inherited_scheduler() -> None:
    """Forked while the worker is busy, the child starts without jobs and the parent continues."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK],
        capture_output=True,
        text=True,
        timeout=4 * WATCHDOG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
