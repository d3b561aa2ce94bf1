"""Jobs with deadlines: what is done in time, and what is refused."""

from __future__ import annotations

import pytest

from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Clock, Gate, Steps, counted, outcomes, working


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


@pytest.mark.parametrize("due", [11.0, 20.0], ids=["before", "behind"])
def test_a_cancelled_job_refuses_nobody(busy: StepScheduler, clock: Clock, gate: Gate, due: float) -> None:
    """What a caller that gave up had asked for counts neither as work that is ahead nor as work to be in time."""
    log: list[str] = []
    given_up = busy.submit(working(clock, 10.0, 1, log, "given up"), deadline=clock.now + due, work=10.0)
    assert given_up.cancel()
    job = busy.submit(working(clock, 12.0, 3, log, "job"), deadline=clock.now + 13.0, work=12.0)
    gate.opened.set()
    assert outcomes([job]) == ["job"]
    assert log == ["job"] * 3


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
