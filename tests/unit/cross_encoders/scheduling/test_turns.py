"""Jobs without a deadline take turns, step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from langchain_crossrerank.cross_encoders import scheduling
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, drain
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Gate, Steps, counted


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
