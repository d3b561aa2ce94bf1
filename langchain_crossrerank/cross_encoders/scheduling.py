"""Runs scoring generators step by step on background threads: in turn without deadlines, in order of deadline with."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from bisect import insort_left, insort_right
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from langchain_crossrerank._process import ForkSafeCondition, ForkSafeLock, PerProcess
from langchain_crossrerank._threads import interrupt_at_exit, native_work, process_is_ending, start_thread
from langchain_crossrerank.errors import CrossRerankError, OverloadedError, RerankTimeoutError

Result = TypeVar("Result")

Steps = Generator[float | None, None, Result]
"""Work in bounded pieces, one for each `next()`. A piece may yield the share of the work done so far, from 0 to 1."""

MAX_INTERLEAVED = 64
"""Jobs without a deadline that take turns; further ones wait until one of these is done, so that memory is bounded."""

_IDLE_SECONDS = 5.0

# A queued job is refused early only if it is clearly too late. If it is refused wrongly, capacity is lost; if it is
# kept wrongly, it is refused when its turn comes, which costs nothing.
_CLEARLY_LATE = 1.25

# A job that is nearly in time is worth finishing, since most of its work is done.
_TOLERATED_SHARE = 0.1


class StepScheduler:
    """Runs the steps of many generators on a few threads.

    Jobs without a deadline take turns step by step, so that a short one does not wait for all of a long one. Jobs with
    a deadline run to their end in order of their deadlines, because turns would make everybody late once there is too
    much to do; a job that cannot be done in time, by the speed measured so far, is refused and leaves its time to the
    others. While there are jobs of both kinds, they alternate.

    Threads start with the first job and end after some idle seconds. A forked child starts without jobs and threads.

    Args:
        name: What is run, for the names of threads and for errors.
        workers: Number of threads; one if the work keeps all processors busy, more if it waits for a network.
        network: Whether steps wait for a network. Then the measured speed says little about when work will be done,
            so nothing is refused by it, and the end of the process does not wait for a step.
    """

    def __init__(self, *, name: str = "crossrerank", workers: int = 1, network: bool = False) -> None:
        self._queue = PerProcess(partial(_Queue, name, workers, network))

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for their next step."""
        return self._queue.get().waiting

    def submit(self, steps: Steps[Result], *, deadline: float | None = None, work: float = 0.0) -> Future[Result]:
        """Queue a generator.

        Args:
            steps: The work. Cancelling the future stops it: at its next step, or at once inside `interruptible`.
            deadline: When the result is needed, on `time.monotonic()`; `None` for no limit.
            work: Size of the job, in any unit that is the same for all jobs of this scheduler.

        Returns:
            The result to come. It raises `OverloadedError` if it turns out later that the deadline cannot be kept.

        Raises:
            OverloadedError: If it is known now that the deadline cannot be kept.
        """
        job = _Job(steps, work, deadline)
        self._queue.get().add(job)
        return job.future

    async def run(self, steps: Steps[Result], *, deadline: float | None = None, work: float = 0.0) -> Result:
        """Queue a generator and wait for its result without blocking the event loop; see `submit`."""
        return await asyncio.wrap_future(self.submit(steps, deadline=deadline, work=work))


def drain(steps: Steps[Result]) -> Result:
    """Run a generator to its end on the calling thread and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result


@contextlib.contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called from another thread if the job that this block belongs to is cancelled while it runs.

    Outside a job this does nothing.

    Args:
        stop: Ends the blocking work of the block, which may then raise; must be quick.

    Raises:
        concurrent.futures.CancelledError: If the job is cancelled already.
    """
    interruption = _interruption.get()
    if interruption is None:
        yield
        return
    with interruption.calling(stop):
        yield


class _Interruption:
    """Says once that a job is cancelled, and stops what is under way."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._stops: list[Callable[[], None]] = []
        self._happened = False

    def interrupt(self) -> None:
        with self._lock:
            self._happened = True
            for stop in self._stops:
                stop()

    @contextlib.contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            if self._happened:
                raise CancelledError
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)


_interruption: contextvars.ContextVar[_Interruption | None] = contextvars.ContextVar("interruption", default=None)


@dataclass(eq=False)
class _Job(Generic[Result]):
    """A generator with what is known of it.

    Attributes:
        share: The share of the work that is done, from 0 to 1.
        refusal: Why the job will not be finished, once that is decided.
    """

    steps: Steps[Result]
    work: float
    deadline: float | None
    future: Future[Result] = field(default_factory=Future)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    share: float = 0.0
    begun: bool = False
    refusal: CrossRerankError | None = None

    def __post_init__(self) -> None:
        interruption = _Interruption()
        self.context.run(_interruption.set, interruption)
        self.future.add_done_callback(lambda future: interruption.interrupt() if future.cancelled() else None)

    @property
    def remaining(self) -> float:
        """The work that is left; none of a job that is cancelled."""
        return 0.0 if self.future.cancelled() else self.work * (1.0 - self.share)

    @property
    def due(self) -> float:
        """The deadline, as a number to sort by."""
        return float("inf") if self.deadline is None else self.deadline

    def advance(self) -> Callable[[], None] | None:
        """Do one step; when it was the last, return a function that tells the caller the outcome."""
        if self.future.cancelled() or self.refusal is not None:
            return self._close()
        self.begun = True
        try:
            share = self.context.run(next, self.steps)
        except StopIteration as stop:
            value, self.share = stop.value, 1.0
            return lambda: self.future.set_result(value)
        except BaseException as err:  # noqa: BLE001 - the caller gets it, whatever it is
            failure = err
            return lambda: self.future.set_exception(failure)
        self.share = max(self.share, min(share or 0.0, 1.0))
        return None

    def _close(self) -> Callable[[], None]:
        # Nobody is left to hear how the clean-up went.
        with contextlib.suppress(Exception):
            self.steps.close()
        refusal = self.refusal
        return (lambda: None) if refusal is None else (lambda: self.future.set_exception(refusal))


class _Pace:
    """How many seconds a unit of work takes, as measured lately."""

    HALF_LIFE = 3.0
    """Busy seconds after which a measurement counts half."""

    STEPS_TO_TRUST = 3
    """Steps measured before the figure is used. The first one, which warms the model up, is not among them."""

    def __init__(self) -> None:
        self._seconds = self._work = 0.0
        self._steps = -1

    def add(self, seconds: float, work: float) -> None:
        """Take in a busy time and the work done in it."""
        if self._steps >= 0:
            kept = 0.5 ** (seconds / self.HALF_LIFE)
            self._seconds, self._work = kept * self._seconds + seconds, kept * self._work + work
        if work > 0:
            self._steps += 1

    @property
    def seconds_per_unit(self) -> float | None:
        """Seconds that a unit of work takes; `None` as long as too little was measured."""
        return self._seconds / self._work if self._steps >= self.STEPS_TO_TRUST and self._work > 0 else None


class _Queue:
    """The jobs of one scheduler in one process, and the threads that run them."""

    def __init__(self, name: str, workers: int, network: bool) -> None:
        self._name, self._workers, self._network = name, workers, network
        self._changed = ForkSafeCondition()
        self._urgent: list[_Job[Any]] = []
        self._turns: deque[_Job[Any]] = deque()
        self._backlog: deque[_Job[Any]] = deque()
        self._refused: deque[_Job[Any]] = deque()
        self._running: list[_Job[Any]] = []
        self._urgent_was_last = False
        self._threads = 0
        self._pace = _Pace()
        self._busy_since = 0.0
        interrupt_at_exit(self._interrupt)

    @property
    def waiting(self) -> int:
        with self._changed:
            return sum(map(len, (self._urgent, self._turns, self._backlog, self._refused)))

    def add(self, job: _Job[Any]) -> None:
        with self._changed:
            if job.deadline is not None:
                self._check_admission(job)
            if self._threads < self._workers:
                # Before anything is changed, because it may fail; the thread waits until the job is queued.
                start_thread(self._work, name=f"crossrerank-{self._name}")
                self._threads += 1
            if job.deadline is None:
                self._backlog.append(job)
                self._let_in()
            else:
                insort_right(self._urgent, job, key=lambda other: other.due)
            self._changed.notify()

    def _interrupt(self) -> None:
        with self._changed:
            running = list(self._running)
        for job in running:
            job.future.cancel()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            done_before = job.share
            with contextlib.nullcontext() if self._network else native_work():
                settle = job.advance()
            self._put_back(job, done_before, is_over=settle is not None)
            if settle is not None:
                # Fails only if the caller gave up meanwhile; then nobody is waiting.
                with contextlib.suppress(InvalidStateError):
                    settle()
            del job, settle

    def _take(self) -> _Job[Any] | None:
        """Wait for a job whose turn it is; `None` ends the thread."""
        with self._changed:
            while not process_is_ending():
                job = self._next()
                if job is not None:
                    if not self._running:
                        self._busy_since = time.monotonic()
                    self._running.append(job)
                    return job
                if not self._changed.wait(_IDLE_SECONDS) and not self._has_work():
                    break
            self._threads -= 1
            return None

    def _has_work(self) -> bool:
        return bool(self._urgent or self._turns or self._backlog or self._refused)

    def _next(self) -> _Job[Any] | None:
        if self._refused:
            return self._refused.popleft()
        self._let_in()
        if self._urgent and not (self._turns and self._urgent_was_last):
            self._urgent_was_last = True
            job = self._urgent.pop(0)
            self._check_deadline(job)
            return job
        self._urgent_was_last = False
        return self._turns.popleft() if self._turns else None

    def _let_in(self) -> None:
        """Let jobs without a deadline take turns, up to `MAX_INTERLEAVED`."""
        taking_turns = len(self._turns) + sum(job.deadline is None for job in self._running)
        while self._backlog and taking_turns < MAX_INTERLEAVED:
            self._turns.append(self._backlog.popleft())
            taking_turns += 1

    def _put_back(self, job: _Job[Any], done_before: float, *, is_over: bool) -> None:
        with self._changed:
            now = time.monotonic()
            self._running.remove(job)
            if not job.future.cancelled() and job.refusal is None:
                self._pace.add(now - self._busy_since, job.work * (job.share - done_before))
            self._busy_since = now
            if not is_over and job.deadline is None:
                self._turns.append(job)
            elif not is_over:
                insort_left(self._urgent, job, key=lambda other: other.due)
            self._refuse_clearly_late(now)

    def _seconds(self, work: float) -> float:
        """Return how long urgent work would take; 0 if the speed is unknown."""
        pace = None if self._network else self._pace.seconds_per_unit
        # While there are jobs without a deadline, every second step is theirs.
        unhurried = self._turns or self._backlog or any(job.deadline is None for job in self._running)
        shared = 2 if unhurried else 1
        return 0.0 if pace is None else pace * work * shared

    def _awaited(self) -> list[_Job[Any]]:
        """Return the jobs with a deadline that wait for their turn, and whose callers wait for them."""
        return [job for job in self._urgent if not job.future.cancelled()]

    def _under_way(self) -> float:
        return sum(job.remaining for job in self._running if job.deadline is not None)

    def _check_admission(self, job: _Job[Any]) -> None:
        """Raise `OverloadedError` if a new job would clearly be late, or make one late that would be in time."""
        awaited = self._awaited()
        if not (self._running or awaited):
            # Nothing is lost by trying, and the speed is measured again.
            return
        now = time.monotonic()
        ahead = self._under_way() + sum(other.remaining for other in awaited if other.due <= job.due)
        if self._seconds(ahead + job.remaining) > _CLEARLY_LATE * (job.due - now):
            raise self._overloaded(job, now + self._seconds(ahead + job.remaining))
        for other in awaited:
            if other.due > job.due:
                ahead += other.remaining
                if now + self._seconds(ahead) <= other.due < now + self._seconds(ahead + job.remaining):
                    raise self._overloaded(job, now + self._seconds(ahead + job.remaining))

    def _check_deadline(self, job: _Job[Any]) -> None:
        """Refuse a job whose turn it is if it cannot be done in time, and others are waiting."""
        now = time.monotonic()
        if job.due <= now:
            job.refusal = RerankTimeoutError(f"{self._name!r} could not score all pairs before the deadline.")
        elif self._running or self._turns or self._awaited():
            finish = now + self._seconds(self._under_way() + job.remaining)
            tolerated = self._seconds(_TOLERATED_SHARE * job.work) if job.begun else 0.0
            if finish > job.due + tolerated:
                job.refusal = self._overloaded(job, finish)

    def _refuse_clearly_late(self, now: float) -> None:
        ahead = self._under_way()
        kept = []
        for job in self._urgent:
            seconds = self._seconds(ahead + job.remaining)
            if not job.begun and seconds > _CLEARLY_LATE * (job.due - now):
                job.refusal = self._overloaded(job, now + seconds)
                self._refused.append(job)
            else:
                ahead += job.remaining
                kept.append(job)
        self._urgent = kept

    def _overloaded(self, job: _Job[Any], finish: float) -> OverloadedError:
        late = max(0.0, finish - job.due)
        return OverloadedError(
            f"{self._name!r} has too much to do: by its measured speed, this rerank would be done {late:.1f} s after "
            "its deadline; rerank fewer candidates, allow more time, or try again later.",
            retry_after=late,
        )
