"""Models that do not finish in time: who waits hears it at once, and the work stops at the next batch."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import RerankTimeoutError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.models.bad_models import (
    SHORT,
    WATCHDOG,
    Held,
    Recorder,
    Rerank,
    assert_degraded,
    batches_in_the_end,
    candidates,
)


def test_a_timeout_raises_and_stops_the_work_at_the_next_batch(held: Held, rerank: Rerank, tally: Tally) -> None:
    """When the time is over the caller hears it at once, and of five batches the one under way is the last."""
    tally("a model that sleeps")
    with pytest.raises(RerankTimeoutError, match=r"5 candidates within timeout=0\.05") as caught:
        rerank(CrossEncoderReranker(model=held, timeout=SHORT), candidates())
    assert isinstance(caught.value, TimeoutError)
    assert batches_in_the_end(held) <= 1


def test_a_timeout_keeps_the_order_where_asked(held: Held, rerank: Rerank, tally: Tally) -> None:
    """With `keep_order` a timeout degrades as any other failure does, and the work stops all the same."""
    tally("a model that sleeps, order kept")
    recorder = Recorder()
    reranker = CrossEncoderReranker(model=held, top_n=2, timeout=SHORT, on_error="keep_order")
    assert_degraded(rerank(reranker, candidates(), callbacks=[recorder]), candidates(), 2, "RerankTimeoutError")
    assert [name for name, _ in recorder.events] == ["rerank_degraded"]
    assert batches_in_the_end(held) <= 1


def test_a_timeout_counts_waiting_for_a_turn(held: Held, rerank: Rerank, tally: Tally) -> None:
    """A rerank that is still queued behind another when its time is over is given up before it begins."""
    tally("a timeout while queued")
    first = held.scheduler.submit(held.score_steps([("first", "passage")]))
    assert held.begun.wait(WATCHDOG)
    with pytest.raises(RerankTimeoutError):
        rerank(CrossEncoderReranker(model=held, timeout=SHORT), candidates())
    held.opened.set()
    assert [scored.score for scored in first.result(WATCHDOG)] == FakeCrossEncoder().score([("first", "passage")])
    after = held.scheduler.submit(held.score_steps([("after", "passage")]))
    after.result(WATCHDOG)
    assert [batch[0][0] for batch in held.batches] == ["first", "after"]


def test_a_model_that_is_done_in_time_is_not_disturbed(rerank: Rerank, tally: Tally) -> None:
    """A timeout that does not pass changes nothing in the result."""
    tally("a timeout that does not pass")
    patient = rerank(CrossEncoderReranker(model=FakeCrossEncoder(), timeout=WATCHDOG), candidates())
    assert patient == rerank(CrossEncoderReranker(model=FakeCrossEncoder()), candidates())
    assert "reranked" not in patient[0].metadata


class LastMomentFuture(Future[Any]):
    """A future that ends between the end of the waiting and the next look at it."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait; who waits for a limited time just misses the result."""
        if timeout is not None:
            raise TimeoutError
        return super().result()


class LastMoment(FakeCrossEncoder):
    """A fake model whose scores are there when the time is over, and not a moment earlier."""

    def submit(self, text_pairs: Any, *, deadline: float | None = None) -> Future[Any]:
        """Score, and return what the caller just misses."""
        future = LastMomentFuture()
        future.set_result(super().submit(text_pairs, deadline=deadline).result(WATCHDOG))
        return future


def test_scores_that_come_at_the_last_moment_count(tally: Tally) -> None:
    """If the scores are there by the time that the timeout is noticed, they are the result."""
    tally("scores at the last moment")
    found = CrossEncoderReranker(model=LastMoment(), timeout=WATCHDOG).compress_documents(candidates(), "lora")
    assert found == CrossEncoderReranker(model=FakeCrossEncoder()).compress_documents(candidates(), "lora")


@pytest.mark.parametrize("on_error", ["raise", "keep_order"])
async def test_cancelling_the_task_stops_the_work(held: Held, on_error: Any, tally: Tally) -> None:
    """Who cancels the awaiting task gets `CancelledError`, and no batch begins after the one under way."""
    tally("a cancelled task")
    reranker = CrossEncoderReranker(model=held, on_error=on_error, timeout=WATCHDOG)
    task = asyncio.create_task(reranker.acompress_documents(candidates(), "lora"))
    assert await asyncio.to_thread(held.begun.wait, WATCHDOG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.opened.set()
    assert await asyncio.to_thread(held.closed.wait, WATCHDOG)
    assert len(held.batches) == 1


async def test_an_outer_timeout_stops_the_work_too(held: Held, tally: Tally) -> None:
    """`asyncio.wait_for` around a rerank stops it as `timeout` does."""
    tally("an outer timeout")
    reranker = CrossEncoderReranker(model=held, on_error="keep_order")
    task = asyncio.create_task(reranker.acompress_documents(candidates(), "lora"))
    assert await asyncio.to_thread(held.begun.wait, WATCHDOG)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, SHORT)
    held.opened.set()
    assert await asyncio.to_thread(held.closed.wait, WATCHDOG)
    assert len(held.batches) == 1
