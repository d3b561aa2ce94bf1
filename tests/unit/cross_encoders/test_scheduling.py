"""The scheduler: turns, cancellation, a bounded queue, errors, threads and forks."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders import scheduling
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, drain
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from langchain_crossrerank.testing import FakeCrossEncoder

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

Steps = Generator[None, None, str]


class Gate:
    """A step that says it has begun and then waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.begun.set()
        assert self.opened.wait(WATCHDOG), "nobody opened the gate"


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


def test_a_short_job_finishes_before_a_long_one_submitted_first(scheduler: StepScheduler, gate: Gate) -> None:
    """Jobs take turns step by step, so nobody waits for another's whole work."""
    log: list[str] = []
    long = scheduler.submit(counted("long", 4, log, gate=gate))
    assert gate.begun.wait(WATCHDOG)
    short = scheduler.submit(counted("short", 1, log))
    short.add_done_callback(lambda _: log.append("short done"))
    long.add_done_callback(lambda _: log.append("long done"))
    gate.opened.set()
    assert (long.result(WATCHDOG), short.result(WATCHDOG)) == ("long", "short")
    expected = ["long0", "short0", "long1", "short done", "long2", "long3"]
    assert log[: len(expected)] == expected


def test_several_jobs_take_turns_in_the_order_they_came(scheduler: StepScheduler, gate: Gate) -> None:
    """Each job does one step a round."""
    log: list[str] = []
    first = scheduler.submit(counted("gate", 1, [], gate=gate))
    assert gate.begun.wait(WATCHDOG)
    jobs = [scheduler.submit(counted(name, 2, log)) for name in "abc"]
    gate.opened.set()
    assert [job.result(WATCHDOG) for job in [first, *jobs]] == ["gate", "a", "b", "c"]
    assert log == ["a0", "b0", "c0", "a1", "b1", "c1"]


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


def test_a_full_queue_refuses_further_jobs(gate: Gate) -> None:
    """Above `max_pending` jobs, `submit` raises at once; the jobs in hand finish, and then there is room again."""
    scheduler = StepScheduler(name="small", max_pending=2)
    jobs = [scheduler.submit(counted("first", 1, [], gate=gate)), scheduler.submit(counted("second", 1, []))]
    with pytest.raises(OverloadedError, match=r"2 reranks are already waiting for 'small'"):
        scheduler.submit(counted("third", 1, []))
    gate.opened.set()
    assert [job.result(WATCHDOG) for job in jobs] == ["first", "second"]
    assert scheduler.submit(counted("fourth", 1, [])).result(WATCHDOG) == "fourth"


async def test_a_full_queue_reaches_the_awaiting_caller(gate: Gate) -> None:
    """The asynchronous call raises the same error, and does not wait."""
    scheduler = StepScheduler(max_pending=1)
    held = asyncio.create_task(scheduler.run(counted("held", 1, [], gate=gate)))
    assert await asyncio.to_thread(gate.begun.wait, WATCHDOG)
    with pytest.raises(OverloadedError):
        await scheduler.run(counted("refused", 1, []))
    gate.opened.set()
    assert await held == "held"


def test_a_cancelled_job_gives_its_place_back(gate: Gate) -> None:
    """Jobs that were cancelled do not fill the queue for ever."""
    scheduler = StepScheduler(max_pending=3)
    log: list[str] = []
    scheduler.submit(counted("gate", 1, log, gate=gate))
    cancelled, last = (scheduler.submit(counted(name, 1, log)) for name in ("cancelled", "last"))
    cancelled.cancel()
    gate.opened.set()
    assert last.result(WATCHDOG) == "last"
    jobs = [scheduler.submit(counted("again", 1, log)) for _ in range(2)]
    assert [job.result(WATCHDOG) for job in jobs] == ["again", "again"]


def test_a_finished_job_gives_its_place_back_before_its_result(gate: Gate) -> None:
    """Who has the result may submit the next job at once, even with room for a single one."""
    scheduler = StepScheduler(max_pending=1)
    outcome: list[Exception | None] = []
    job = scheduler.submit(counted("first", 1, [], gate=gate))
    noted = threading.Event()

    def submit_next(_: object) -> None:
        try:
            scheduler.submit(counted("next", 1, []))
        except OverloadedError as err:
            outcome.append(err)
        else:
            outcome.append(None)
        noted.set()

    job.add_done_callback(submit_next)
    gate.opened.set()
    assert noted.wait(WATCHDOG)
    if outcome[0] is not None:
        raise outcome[0]
    assert outcome == [None]


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


@pytest.mark.parametrize(
    "run", [drain, lambda steps: StepScheduler().submit(steps).result(WATCHDOG)], ids=["drain", "submit"]
)
def test_the_result_is_the_generators_return_value(run: Callable[[Steps], str]) -> None:
    """On the caller's thread and on the scheduler's, the same steps give the same result."""
    log: list[str] = []
    assert run(counted("job", 3, log)) == "job"
    assert log == ["job0", "job1", "job2"]


def test_a_model_has_one_scheduler() -> None:
    """All asynchronous calls of one model share its worker, those of another model do not."""
    model = FakeCrossEncoder()
    assert model.scheduler is model.scheduler
    assert model.scheduler is not FakeCrossEncoder().scheduler


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

scheduler = StepScheduler(max_pending={max_pending})
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
@pytest.mark.parametrize("max_pending", [1, 8])
def test_a_forked_child_can_use_an_inherited_scheduler(max_pending: int) -> None:
    """Forked while the worker is busy and the queue full, the child starts afresh and the parent goes on."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK.format(max_pending=max_pending)],
        capture_output=True,
        text=True,
        timeout=4 * WATCHDOG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
