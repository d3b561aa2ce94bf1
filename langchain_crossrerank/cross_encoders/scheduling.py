"""Runs scoring generators on a thread of their own, step by step and in turn, so that no caller waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from langchain_crossrerank.errors import OverloadedError

Result = TypeVar("Result")

MAX_PENDING = 1024
"""Calls that may wait for one model before further ones are refused."""

_IDLE_SECONDS = 5.0


@dataclass(eq=False)
class _Job(Generic[Result]):
    steps: Generator[None, None, Result]
    future: Future[Result] = field(default_factory=Future)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def advance(self) -> Callable[[], None] | None:
        """Do one step; when it was the last, give a function that tells the caller the outcome."""
        if self.future.cancelled():
            with contextlib.suppress(Exception):
                # Nobody is left to hear how the clean-up went.
                self.steps.close()
            return _nothing
        try:
            self.context.run(next, self.steps)
        except StopIteration as stop:
            value = stop.value
            return lambda: self.future.set_result(value)
        except BaseException as err:  # noqa: BLE001 - the caller gets it, whatever it is
            failure = err
            return lambda: self.future.set_exception(failure)
        return None


def _nothing() -> None:
    pass


_SCHEDULERS: WeakSet[StepScheduler] = WeakSet()


class StepScheduler:
    """Interleaves generators: one step of each in turn, so a short job is not stuck behind a long one.

    Threads start with the first job and end after some idle seconds. In a forked child the scheduler starts
    afresh: the parent's jobs and threads are not there.

    Args:
        name: Name of the threads, for debuggers.
        workers: Threads; one where the work fills the processors by itself, more where it waits for a network.
        max_pending: Jobs that may be in hand before `submit` refuses.
    """

    def __init__(self, *, name: str = "crossrerank", workers: int = 1, max_pending: int = MAX_PENDING) -> None:
        self._name = name
        self._workers = workers
        self._max_pending = max_pending
        self._reset()
        _SCHEDULERS.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Job[Any]] = deque()
        self._in_hand = 0
        self._threads = 0

    def submit(self, steps: Generator[None, None, Result]) -> Future[Result]:
        """Queue a generator; cancelling the future stops it before its next step.

        Raises:
            OverloadedError: If `max_pending` jobs are already in hand.
        """
        job = _Job(steps)
        with self._changed:
            if self._in_hand >= self._max_pending:
                raise OverloadedError(
                    f"{self._in_hand} reranks are already waiting for {self._name!r}, the most allowed; "
                    "rerank fewer candidates, or shed load before this point."
                )
            self._in_hand += 1
            self._waiting.append(job)
            if self._threads < self._workers:
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            self._changed.notify()
        return job.future

    async def run(self, steps: Generator[None, None, Result]) -> Result:
        """Queue a generator and wait for its result without blocking the event loop."""
        return await asyncio.wrap_future(self.submit(steps))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if not self._changed.wait(_IDLE_SECONDS) and not self._waiting:
                        self._threads -= 1
                        return
                job = self._waiting.popleft()
            settle = job.advance()
            with self._changed:
                if settle is None:
                    self._waiting.append(job)
                    continue
                self._in_hand -= 1
            # Fails only where the caller gave up meanwhile; then nobody is waiting.
            with contextlib.suppress(InvalidStateError):
                settle()
            del job, settle


def _start_afresh() -> None:
    # Nor does the thread pool of tokenizers survive a fork; where parallelism was asked for, it would wait for ever.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for scheduler in list(_SCHEDULERS):
        scheduler._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def drain(steps: Generator[None, None, Result]) -> Result:
    """Run a generator to its end on the calling thread and give its return value."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
