"""Values and locks of one process, and the search for locks that a forked child would inherit."""

from __future__ import annotations

import ast
import copy
import gc
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import langchain_crossrerank
from langchain_crossrerank._process import (
    ForkSafeCondition,
    ForkSafeLock,
    Guarded,
    KeyedLocks,
    PerProcess,
    ProcessMark,
    QuietLock,
    call_in_child,
)

ROOT = Path(langchain_crossrerank.__file__).parent
WATCHDOG = 20
"""Seconds after which a child that hangs is ended by the system and fails its test."""

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def answer_of_child(work: Callable[[], bool]) -> bool:
    """Return what `work` returns in a forked child; a child that raises or hangs fails the test."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(WATCHDOG)
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 1), f"the child ended with {code}"
    return code == 0


@contextmanager
def held_by_another_thread(lock: ForkSafeLock | Guarded[list[int]] | ForkSafeCondition) -> Iterator[None]:
    """Hold a lock on another thread, which a forked child does not have."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def take(lock: ForkSafeLock | ForkSafeCondition) -> bool:
    """Take and release a lock."""
    with lock:
        return True


@needs_fork
@pytest.mark.parametrize("make", [ForkSafeLock, ForkSafeCondition, lambda: KeyedLocks()["key"]])
def test_a_child_can_take_a_lock_that_was_held_at_the_fork(make: Callable[[], ForkSafeLock]) -> None:
    """A lock that another thread of the parent held is free in the child, and still held in the parent."""
    lock = make()
    with held_by_another_thread(lock):
        assert answer_of_child(lambda: take(lock))
        if isinstance(lock, ForkSafeLock):
            assert lock.locked()
    assert take(lock)


@needs_fork
def test_the_holder_of_a_lock_may_fork() -> None:
    """A thread that forks while it holds the lock releases it in parent and child."""
    lock = ForkSafeLock()
    with lock:
        child = os.fork()
    if child == 0:
        os._exit(0 if take(lock) and not lock.locked() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not lock.locked()


@needs_fork
def test_a_child_makes_its_own_value() -> None:
    """A child never uses an inherited value and never destroys it; the parent keeps its own."""

    class Connection:
        def __init__(self) -> None:
            self.pid = os.getpid()

    holder = PerProcess(Connection)
    inherited = weakref.ref(holder.get())

    def own_in_child() -> bool:
        own = holder.get()
        return own.pid == os.getpid() and holder.take() is own and inherited() is not None

    assert answer_of_child(own_in_child)
    assert holder.get() is inherited()
    mine = holder.take()
    assert mine is inherited()
    assert holder.take() is None
    assert holder.get() is not mine


def test_a_value_is_made_once_for_all_threads() -> None:
    """Threads that ask at the same time get the same value."""
    made: list[int] = []
    begin = threading.Barrier(8)

    def make() -> list[int]:
        made.append(1)
        return []

    holder = PerProcess(make)
    values: list[list[int]] = []

    def ask() -> None:
        begin.wait()
        values.append(holder.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert all(value is values[0] for value in values)


@needs_fork
def test_a_child_keeps_a_guarded_value_that_was_whole() -> None:
    """A guarded value is inherited, and made again only if a thread was changing it at the fork."""
    guarded: Guarded[list[int]] = Guarded(list)
    with guarded as value:
        value.append(7)

    def content() -> list[int]:
        with guarded as value:
            return list(value)

    assert answer_of_child(lambda: content() == [7])
    with held_by_another_thread(guarded):
        assert answer_of_child(lambda: content() == [] and content() == [])
    assert content() == [7]


@needs_fork
def test_a_mark_belongs_to_its_process() -> None:
    """A mark is current where it was made, not in a child, and a copy made in the child is."""
    mark = ProcessMark()
    assert mark.is_current
    assert answer_of_child(lambda: not mark.is_current and copy.deepcopy(mark).is_current)
    assert mark.is_current


@needs_fork
def test_a_fork_waits_for_quiet_work() -> None:
    """A fork happens outside the work under a quiet lock, after the preparation, and leaves the lock free."""
    events: list[str] = []
    started, fork_begun = threading.Event(), threading.Event()

    class Cache:
        def __init__(self, prepare: Callable[[], None]) -> None:
            self.lock = QuietLock(self.close)
            self.prepare = prepare

        def close(self) -> None:
            self.prepare()

    first = Cache(fork_begun.set)
    second = Cache(lambda: events.append("prepare"))

    def work() -> None:
        with second.lock:
            started.set()
            fork_begun.wait()
            events.append("work")

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    assert answer_of_child(lambda: events == ["work", "prepare"] and take(second.lock))
    thread.join()
    assert take(first.lock)
    assert take(second.lock)
    with second.lock:
        assert answer_of_child(lambda: events.count("prepare") == 1)
    second.lock = QuietLock(first.close)
    gc.collect()
    assert answer_of_child(lambda: events.count("prepare") == 1)


@needs_fork
def test_actions_run_in_every_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to happen in a child happens before anything else there, and not in the parent."""
    ran: list[int] = []
    monkeypatch.setattr("langchain_crossrerank._process._in_child", [])
    call_in_child(lambda: ran.append(os.getpid()))
    assert answer_of_child(lambda: ran == [os.getpid()])
    assert ran == []


def test_a_condition_wakes_who_waits() -> None:
    """`wait` returns after `notify`, and returns `False` when nobody notifies."""
    condition = ForkSafeCondition()
    with condition:
        assert not condition.wait(0.0)
    woken: list[bool] = []

    def wait() -> None:
        with condition:
            waiting.set()
            woken.append(condition.wait(WATCHDOG))

    for wake in (condition.notify, condition.notify_all):
        waiting = threading.Event()
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        with condition:
            wake()
        thread.join()
    assert woken == [True, True]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize(
    "make",
    [ForkSafeLock, ForkSafeCondition, KeyedLocks, ProcessMark, lambda: PerProcess(list), lambda: Guarded(list)],
)
def test_holders_can_be_copied(make: Callable[[], object], how: Callable[[object], object]) -> None:
    """A copy of a holder is a fresh one, even while the original is locked."""
    original = make()
    twin = how(original)
    assert twin is not original
    assert type(twin) is type(original)
    if isinstance(original, ForkSafeLock):
        with original:
            assert take(how(original))  # type: ignore[arg-type]  # the copy is of the same type


NAMES = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "register_at_fork", "getpid"}
"""What only `_process.py` may take from `threading` and `os`. An `Event` that lives no longer than a call is fine."""


def found_outside(source: str) -> list[str]:
    """Names of `NAMES` that `source` takes from `threading` or `os`, however it imports them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [node.attr] if node.value.id in ("threading", "os") and node.attr in NAMES else []
        elif isinstance(node, ast.ImportFrom) and node.module in ("threading", "os"):
            found += [alias.name for alias in node.names if alias.name in NAMES]
        elif isinstance(node, ast.Import):
            # Under another name, the search above would miss it.
            found += [alias.name for alias in node.names if alias.name in ("threading", "os") and alias.asname]
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_lock_is_safe_to_fork(path: Path) -> None:
    """No module but `_process.py` makes a lock, asks for its process or registers what happens at a fork."""
    name = path.relative_to(ROOT).as_posix()
    if name != "_process.py":
        assert found_outside(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import threading\nlock = threading.Lock()",
        "import threading\nclass A:\n    def f(self):\n        self.changed = threading.Condition()",
        "from threading import RLock",
        "import threading as t",
        "import os\nos.register_at_fork(after_in_child=print)",
        "import os\npid = os.getpid()",
        "from os import getpid as pid",
    ],
)
def test_a_lock_of_its_own_is_found(source: str) -> None:
    """The search finds a lock or a process id however it is imported."""
    assert len(found_outside(source)) == 1


def test_other_uses_are_not_found() -> None:
    """The search leaves threads, events and paths alone."""
    assert found_outside("import os, threading\nthreading.Thread(); threading.Event(); os.fspath('a')") == []
