"""A long life: many reranks with different texts leave no memory, threads, descriptors or work behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally

RERANKS = 600

WATCHDOG = 60.0
"""Seconds of a `timeout` that is not meant to pass."""

KEPT_BYTES = 400_000
"""Memory that may be kept by what is measured, such as the interpreter's own free lists."""

_FILES = Path("/proc/self/fd")


class Forgetful(FakeCrossEncoder):
    """A model that does not note its batches."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return [self._overlap(*item.text_pair) for item in batch]


def documents(number: int) -> list[Document]:
    """Make candidates that no other rerank has."""
    return [Document(f"candidate {place} of rerank {number}", id=f"{number}-{place}") for place in range(3)]


def sync(model: CrossEncoder, numbers: range, timeout: float | None) -> None:
    """Rerank one after another on this thread."""
    reranker = CrossEncoderReranker(model=model, timeout=timeout)
    for number in numbers:
        assert len(reranker.compress_documents(documents(number), f"query {number}")) == 3


def asynchronous(model: CrossEncoder, numbers: range, timeout: float | None) -> None:
    """Rerank in groups of tasks."""
    reranker = CrossEncoderReranker(model=model, timeout=timeout)

    async def group(start: int) -> None:
        calls = [
            reranker.acompress_documents(documents(number), f"query {number}") for number in range(start, start + 50)
        ]
        assert [len(result) for result in await asyncio.gather(*calls)] == [3] * 50

    async def run() -> None:
        for start in range(numbers.start, numbers.stop, 50):
            await group(start)

    asyncio.run(run())


def given_up(model: CrossEncoder, numbers: range, timeout: float | None) -> None:
    """Give up on each rerank before it can be done."""
    reranker = CrossEncoderReranker(model=model, timeout=timeout)
    for number in numbers:
        with pytest.raises((RerankTimeoutError, OverloadedError)):
            reranker.compress_documents(documents(number), f"query {number}")


Way = Callable[[CrossEncoder, range, float | None], None]


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Count the memory that Python allocates."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def state(model: CrossEncoder) -> tuple[int, int, int]:
    """Give the bytes, threads and descriptors in use once all work is done."""
    model.scheduler.submit(model.score_steps([("last", "pair")])).result(WATCHDOG)
    gc.collect()
    files = len(os.listdir(_FILES)) if _FILES.is_dir() else 0
    return tracemalloc.get_traced_memory()[0], threading.active_count(), files


@pytest.mark.parametrize(
    ("way", "timeout"),
    [(sync, None), (sync, WATCHDOG), (asynchronous, None), (asynchronous, WATCHDOG), (given_up, 1e-9)],
)
@pytest.mark.parametrize("kind", ["plain", "cached"])
def test_many_reranks_leave_nothing_behind(kind: str, way: Way, timeout: float | None, tally: Tally) -> None:
    """After many reranks with different texts there are no more threads, files, waiting jobs or bytes than before."""
    model: CrossEncoder = Forgetful()
    if kind == "cached":
        model = CachedCrossEncoder(model, MemoryScoreCache(max_bytes=100_000))
    way(model, range(200), timeout)
    before = state(model)
    tally(f"many reranks, {kind}, {way.__name__}", RERANKS)
    way(model, range(200, 200 + RERANKS), timeout)
    after = state(model)
    assert after[0] - before[0] < KEPT_BYTES
    # Fewer if an idle thread of an earlier test has ended meanwhile.
    assert after[1] <= before[1]
    assert after[2] <= before[2]
    assert model.scheduler.waiting == 0


async def test_a_synchronous_rerank_inside_a_running_loop(tally: Tally) -> None:
    """A notebook's cell or a synchronous tool inside an event loop gets its result, with and without a timeout."""
    tally("a synchronous call inside a running loop", 4)
    for model in (Forgetful(), load_cross_encoder("bundled", max_length=40)):
        for timeout in (None, WATCHDOG):
            reranker = CrossEncoderReranker(model=model, timeout=timeout)
            assert len(reranker.compress_documents(documents(0), "query")) == 3
    by_name = CrossEncoderReranker(model="bundled", model_kwargs={"max_length": 41}, timeout=WATCHDOG)
    assert len(by_name.compress_documents(documents(0), "query")) == 3
