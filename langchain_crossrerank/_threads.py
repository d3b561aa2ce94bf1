"""Background threads of this package, and how a process that ends treats them.

A thread inside a native library must not outlive the interpreter: when it comes back to Python it is unwound through
C++ code, which aborts the process (exit status 134). So an ending process interrupts what can be interrupted and
waits, for a limited time, until no thread is inside native code. Threads that only wait for a network are left alone.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from weakref import WeakMethod

from langchain_crossrerank._process import ForkSafeCondition, PerProcess

EXIT_SECONDS = 10.0
"""How long an ending process waits for its threads to leave native code, in seconds."""


class _State:
    """Which threads are inside native code, and whether the interpreter has begun to shut down."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.is_ending = False


_changed = ForkSafeCondition()
_state: PerProcess[_State] = PerProcess(_State)
_interrupts: list[WeakMethod[Callable[[], None]]] = []


def start_thread(work: Callable[[], None], *, name: str) -> threading.Thread:
    """Run `work` on a daemon thread of its own."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def process_is_ending() -> bool:
    """Return whether the interpreter has begun to shut down, so that no new work should be started."""
    return _state.get().is_ending


@contextlib.contextmanager
def native_work() -> Iterator[None]:
    """Mark the block as one that may be inside a native library, for which the end of the process waits.

    Raises:
        SystemExit: If the process is ending already; it ends the thread without a traceback.
    """
    thread = threading.get_ident()
    with _changed:
        if process_is_ending():
            raise SystemExit
        _state.get().inside.add(thread)
    try:
        yield
    finally:
        with _changed:
            _state.get().inside.discard(thread)
            _changed.notify_all()


def interrupt_at_exit(interrupt: Callable[[], None]) -> None:
    """Have a bound method called when the process ends, to stop work under way; kept by weak reference."""
    _interrupts[:] = [known for known in _interrupts if known() is not None]
    _interrupts.append(WeakMethod(interrupt))


def _finish() -> None:
    with _changed:
        _state.get().is_ending = True
    for method in tuple(_interrupts):
        interrupt = method()
        if interrupt is not None:
            interrupt()
    limit = time.monotonic() + EXIT_SECONDS
    with _changed:
        while _state.get().inside and (left := limit - time.monotonic()) > 0:
            _changed.wait(left)


atexit.register(_finish)
