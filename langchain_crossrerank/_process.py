"""What belongs to one process: values and locks that a forked child makes again instead of inheriting.

A fork copies memory but only one thread. A lock that another thread held stays locked for ever in the child, a thread
pool has no threads, and a connection is shared with the parent. Every lock, connection and pool of this package is
therefore held by one of the classes here, and this is the only module that asks which process it runs in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Generic, TypeVar
from weakref import WeakMethod

Value = TypeVar("Value")

QUIET_SECONDS = 5.0
"""How long a fork waits for work that must not be interrupted, in seconds; see `QuietLock`."""

# How many forks lie between the first process and this one. A number of its own, because process ids come back.
_forks = 0
_remaking = threading.Lock()
_quiet_locks: list[WeakMethod[Callable[[], None]]] = []
_hushed: list[QuietLock] = []
_in_child: list[Callable[[], None]] = []


class ProcessMark:
    """Remembers the process that made it, and says whether the current one is that process.

    A copy, however it was made, belongs to the process that made the copy.
    """

    def __init__(self) -> None:
        self._fork = _forks

    @property
    def is_current(self) -> bool:
        """Whether this process made the mark; `False` in a child that was forked later."""
        return self._fork == _forks

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessMark, ()


class PerProcess(Generic[Value]):
    """A value that each process makes for itself, on first use.

    What a child inherits is never used there, and never destroyed either: closing a connection or ending a thread
    pool that belongs to the parent would disturb the parent or wait for threads that do not exist.

    A copy or a pickle holds `make` and no value.

    Args:
        make: Makes the value; called once in each process, however many threads ask first.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._values: dict[int, Value] = {}
        self._making = ForkSafeLock()

    def get(self) -> Value:
        """Return this process's value, making it on first use."""
        # Without the lock where the value exists, which is nearly always.
        if _forks not in self._values:
            with self._making:
                if _forks not in self._values:
                    self._values[_forks] = self._make()
        return self._values[_forks]

    def take(self) -> Value | None:
        """Remove this process's value and return it, or `None` if there is none; the next `get` makes another."""
        with self._making:
            return self._values.pop(_forks, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return PerProcess, (self._make,)


class ForkSafeLock:
    """A lock that is never inherited locked.

    Attributes:
        interrupted: Whether a thread of the parent held the lock when this process was forked, so that what the lock
            guards may be half changed. See `Guarded`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._fork = _forks
        self._lock = threading.Lock()
        self._held = self._lock

    def _own(self) -> threading.Lock:
        if self._fork != _forks:
            with _remaking:
                if self._fork != _forks:
                    self.interrupted = self._lock.locked()
                    self._lock, self._fork = threading.Lock(), _forks
        return self._lock

    def locked(self) -> bool:
        """Return whether a thread of this process holds the lock."""
        return self._own().locked()

    def __enter__(self) -> None:
        lock = self._own()
        lock.acquire()
        # If the holder forks, it must release the lock that it took and not the child's.
        self._held = lock

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class ForkSafeCondition:
    """A condition that a forked child makes again: nobody waits on it there, and nobody holds it."""

    def __init__(self) -> None:
        self._own = PerProcess(threading.Condition)

    def __enter__(self) -> None:
        self._own.get().acquire()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own.get().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified; return `False` after `timeout` seconds without. The condition must be held."""
        return self._own.get().wait(timeout)

    def notify(self, n: int = 1) -> None:
        """Wake `n` waiting threads. The condition must be held."""
        self._own.get().notify(n)

    def notify_all(self) -> None:
        """Wake all waiting threads. The condition must be held."""
        self._own.get().notify_all()

    def __reduce__(self) -> tuple[Any, ...]:
        return ForkSafeCondition, ()


class Guarded(Generic[Value]):
    """A value that threads share under one lock: `with guarded as value: ...`.

    A forked child keeps the value, unless a thread was changing it at the moment of the fork: then it is made again.
    A copy or a pickle holds `make` and no value.

    Args:
        make: Makes the value, when the holder is made and wherever it must be made again.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._lock = ForkSafeLock()
        self._value = make()

    def __enter__(self) -> Value:
        self._lock.__enter__()
        if self._lock.interrupted:
            self._value, self._lock.interrupted = self._make(), False
        return self._value

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, err, trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return Guarded, (self._make,)


class KeyedLocks:
    """One lock a key, made on first use: `with locks[key]: ...`."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, ForkSafeLock] = {}

    def __getitem__(self, key: Hashable) -> ForkSafeLock:
        # `setdefault` is atomic: of two threads that come first, both get the same lock.
        return self._locks.get(key) or self._locks.setdefault(key, ForkSafeLock())

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyedLocks, ()


class QuietLock(ForkSafeLock):
    """A lock around work that no fork may interrupt, such as a call into SQLite, which has locks of its own.

    A fork waits until the work is done, but not longer than `QUIET_SECONDS`, calls `prepare`, and keeps the lock
    until the child exists.

    Args:
        prepare: A bound method to call before each fork, for example to close a connection; kept by weak reference,
            so that the holder of the lock can go. `None` if there is nothing to prepare.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._prepare = None if prepare is None else WeakMethod(prepare)
        self._holder: int | None = None
        _quiet_locks[:] = [known for known in _quiet_locks if known() is not None]
        _quiet_locks.append(WeakMethod(self._hush))

    def __enter__(self) -> None:
        super().__enter__()
        self._holder = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder = None
        super().__exit__(kind, err, trace)

    def _hush(self) -> None:
        lock = self._own()
        prepare = None if self._prepare is None else self._prepare()
        holder_is_gone = self._prepare is not None and prepare is None
        # Whoever forks while holding the lock cannot wait for itself.
        if holder_is_gone or self._holder == threading.get_ident() or not lock.acquire(timeout=QUIET_SECONDS):
            return
        self._held = lock
        _hushed.append(self)
        if prepare is not None:
            prepare()

    def __reduce__(self) -> tuple[Any, ...]:
        return QuietLock, (None if self._prepare is None else self._prepare(),)


def call_in_child(action: Callable[[], None]) -> None:
    """Have `action` called in every forked child, before anything else runs there."""
    _in_child.append(action)


def _before_fork() -> None:
    for hush in [method() for method in list(_quiet_locks)]:
        if hush is not None:
            hush()


def _after_fork() -> None:
    while _hushed:
        _hushed.pop()._held.release()


def _after_fork_in_child() -> None:
    global _forks, _remaking  # noqa: PLW0603 - the two variables that say which process this is
    _after_fork()
    _forks += 1
    _remaking = threading.Lock()
    for action in _in_child:
        action()


def _use_one_tokenizer_thread() -> None:
    # The thread pool of tokenizers does not survive a fork, and waiting for it would never end.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


call_in_child(_use_one_tokenizer_thread)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
