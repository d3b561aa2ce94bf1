"""The scheduler: turns, deadlines, cancellation, errors, threads and forks."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders import scheduling
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, drain, interruptible
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from langchain_crossrerank.testing import FakeCrossEncoder

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


def test_without_deadlines_nothing_is_refused(scheduler: StepScheduler, gate: Gate) -> None:
    """However many jobs wait, further ones wait too, and all of them get their result."""
    first = scheduler.submit(counted("gate", 1, [], gate=gate))
    assert gate.begun.wait(WATCHDOG)
    jobs = [scheduler.submit(counted(str(number), 2, [])) for number in range(3000)]
    assert scheduler.waiting == 3000
    gate.opened.set()
    assert first.result(WATCHDOG) == "gate"
    assert [job.result(WATCHDOG) for job in jobs] == [str(number) for number in range(3000)]


def test_only_so_many_jobs_are_begun_at_a_time(
    scheduler: StepScheduler, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs beyond the limit begin when one that takes turns is done, in the order in which they came."""
    monkeypatch.setattr(scheduling, "MAX_INTERLEAVED", 2)
    log: list[str] = []
    scheduler.submit(counted("gate", 1, [], gate=gate))
    assert gate.begun.wait(WATCHDOG)
    jobs = [scheduler.submit(counted(name, 4, log)) for name in "abcd"]
    gate.opened.set()
    assert [job.result(WATCHDOG) for job in jobs] == ["a", "b", "c", "d"]
    begun_at_once = [
        sum(f"{name}0" in log[:place] and f"{name}3" not in log[:place] for name in "abcd") for place in range(len(log))
    ]
    assert max(begun_at_once) == 2
    assert [entry for entry in log if entry.endswith("0")] == ["a0", "b0", "c0", "d0"]


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the scheduler."""
    clock = Clock()
    monkeypatch.setattr(scheduling, "time", clock)
    return clock


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


@pytest.fixture
def busy(scheduler: StepScheduler, clock: Clock, gate: Gate) -> StepScheduler:
    """A scheduler that knows that a unit of work takes a second, and is held at the gate by a job without work."""
    scheduler.submit(working(clock, 8.0, 8, [], "measured"), work=8.0).result(WATCHDOG)
    scheduler.submit(counted("gate", 1, [], gate=gate), deadline=clock.now + 1000.0)
    assert gate.begun.wait(WATCHDOG)
    return scheduler


def test_jobs_with_deadlines_run_to_their_end_one_after_another(busy: StepScheduler, clock: Clock, gate: Gate) -> None:
    """Under deadlines nobody takes turns: the job that is due first is done first, whole."""
    log: list[str] = []
    jobs = [
        busy.submit(working(clock, 1.0, 3, log, name), deadline=clock.now + due, work=1.0)
        for name, due in (("c", 30.0), ("a", 10.0), ("b", 20.0))
    ]
    gate.opened.set()
    assert outcomes(jobs) == ["c", "a", "b"]
    assert log == [*"aaabbbccc"]


@pytest.mark.parametrize("times", [2, 4, 8])
@pytest.mark.parametrize("known", [True, False], ids=["speed known", "speed unknown"])
def test_a_burst_beyond_capacity_is_done_as_far_as_capacity_goes(
    scheduler: StepScheduler, clock: Clock, gate: Gate, times: int, known: bool
) -> None:
    """Of a burst of 2, 4 or 8 times what the time allows, nine tenths of what it allows is done in time, not less."""
    if known:
        scheduler.submit(working(clock, 8.0, 8, [], "measured"), work=8.0).result(WATCHDOG)
    scheduler.submit(counted("gate", 1, [], gate=gate), deadline=clock.now + 1000.0)
    assert gate.begun.wait(WATCHDOG)
    log: list[str] = []
    jobs, refused = [], 0
    for number in range(10 * times):
        try:
            jobs.append(scheduler.submit(working(clock, 1.0, 4, log, str(number)), deadline=clock.now + 10.0, work=1.0))
        except OverloadedError:
            refused += 1
    gate.opened.set()
    done = [outcome for outcome in outcomes(jobs) if outcome.isdecimal()]
    assert len(done) >= 9
    # What was done for nothing is at most one job's work.
    assert len(log) <= 4 * (len(done) + 1)
    assert (refused > 0) == known


def test_a_job_that_cannot_be_in_time_is_refused_at_once(busy: StepScheduler, clock: Clock) -> None:
    """By the measured speed ten seconds of work are ahead, so ten more cannot be done in thirteen."""
    busy.submit(working(clock, 10.0, 1, [], "ahead"), deadline=clock.now + 11.0, work=10.0)
    with pytest.raises(OverloadedError, match=r"'test'.* 7\.0 s after") as raised:
        busy.submit(working(clock, 10.0, 1, [], "late"), deadline=clock.now + 13.0, work=10.0)
    assert raised.value.retry_after == pytest.approx(7.0)


def test_a_new_job_does_not_make_an_accepted_one_late(busy: StepScheduler, clock: Clock, gate: Gate) -> None:
    """An earlier deadline goes first only if those who are waiting are still in time."""
    log: list[str] = []
    accepted = busy.submit(working(clock, 9.0, 3, log, "accepted"), deadline=clock.now + 10.0, work=9.0)
    with pytest.raises(OverloadedError):
        busy.submit(working(clock, 2.0, 1, log, "pushing"), deadline=clock.now + 5.0, work=2.0)
    quick = busy.submit(working(clock, 0.5, 1, log, "quick"), deadline=clock.now + 5.0, work=0.5)
    gate.opened.set()
    assert outcomes([quick, accepted]) == ["quick", "accepted"]


def test_a_job_alone_is_always_tried(scheduler: StepScheduler, clock: Clock) -> None:
    """With nothing else to do a job runs whatever was measured, so that the measurement can recover."""
    scheduler.submit(working(clock, 800.0, 8, [], "slow"), work=8.0).result(WATCHDOG)
    job = scheduler.submit(working(clock, 8.0, 8, [], "quick again"), deadline=clock.now + 10.0, work=8.0)
    assert job.result(WATCHDOG) == "quick again"


def test_a_job_past_its_deadline_is_not_begun(busy: StepScheduler, clock: Clock, gate: Gate) -> None:
    """What nobody waits for any more costs nothing."""
    log: list[str] = []
    late = busy.submit(working(clock, 1.0, 1, log, "late"), deadline=clock.now + 1.0)
    clock.now += 2.0
    gate.opened.set()
    assert isinstance(late.exception(WATCHDOG), OverloadedError | RerankTimeoutError)
    assert log == []


def test_work_that_can_no_longer_be_in_time_makes_way(busy: StepScheduler, clock: Clock, gate: Gate) -> None:
    """A job that turns out slower than measured is given up when it cannot be done, and the next one is in time."""
    log: list[str] = []

    def slower_than_measured() -> Steps:
        for step in range(1, 11):
            clock.now += 3.0
            log.append("slow")
            yield step / 10
        return "slow"

    slow = busy.submit(slower_than_measured(), deadline=clock.now + 12.0, work=10.0)
    after = busy.submit(working(clock, 1.0, 1, log, "after"), deadline=clock.now + 40.0, work=1.0)
    gate.opened.set()
    assert outcomes([slow, after]) == ["OverloadedError", "after"]
    assert log.count("slow") < 5


def test_jobs_with_and_without_deadlines_alternate(busy: StepScheduler, clock: Clock, gate: Gate) -> None:
    """Neither kind starves the other."""
    log: list[str] = []
    jobs = [
        busy.submit(working(clock, 1.0, 3, log, "due"), deadline=clock.now + 100.0, work=1.0),
        busy.submit(working(clock, 1.0, 3, log, "any"), work=1.0),
    ]
    gate.opened.set()
    assert outcomes(jobs) == ["due", "any"]
    assert sorted(log[:2]) == sorted(log[2:4]) == ["any", "due"]


def test_a_network_is_not_judged_by_its_speed(clock: Clock, gate: Gate) -> None:
    """Work that waits for a server is not refused by what it took before, because many requests run side by side."""
    scheduler = StepScheduler(network=True)
    scheduler.submit(working(clock, 80.0, 8, [], "measured"), work=8.0).result(WATCHDOG)
    scheduler.submit(counted("gate", 1, [], gate=gate))
    assert gate.begun.wait(WATCHDOG)
    jobs = [
        scheduler.submit(working(clock, 0.1, 1, [], str(number)), deadline=clock.now + 10.0, work=8.0)
        for number in range(20)
    ]
    gate.opened.set()
    assert outcomes(jobs) == [str(number) for number in range(20)]


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
