"""Models that raise, give nonsense or never finish: what the reranker does about each."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.errors import (
    CrossRerankError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
    RerankTimeoutError,
    ScoringError,
)
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.fault_tally import Tally

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

SHORT = 0.05
"""Seconds of a `timeout` that is meant to pass: the model does not finish before the test lets it."""

Rerank = Callable[..., list[Document]]


def _sync(reranker: BaseDocumentCompressor, documents: Any, query: Any = "lora", callbacks: Any = None) -> Any:
    return reranker.compress_documents(documents, query, callbacks)


def _async(reranker: BaseDocumentCompressor, documents: Any, query: Any = "lora", callbacks: Any = None) -> Any:
    return asyncio.run(reranker.acompress_documents(documents, query, callbacks))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Both ways to rerank, behind one signature."""
    way: Rerank = request.param
    return way


class Faulty(FakeCrossEncoder):
    """A model whose second batch goes wrong; batches hold one pair."""

    def __init__(self, fault: Callable[[Sequence[EncodedPair]], Any]) -> None:
        super().__init__(max_batch_tokens=1)
        self.fault = fault

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        scores = super()._score_batch(batch)
        return scores if len(self.batches) == 1 else self.fault(batch)


def raising(err: BaseException) -> Callable[[Sequence[EncodedPair]], Any]:
    """Make a fault that raises."""

    def fault(batch: Sequence[EncodedPair]) -> Any:
        raise err

    return fault


FAULTS: dict[str, Callable[[Sequence[EncodedPair]], Any]] = {
    "raises RuntimeError": raising(RuntimeError("out of order")),
    "raises MemoryError": raising(MemoryError()),
    "raises StopIteration": raising(StopIteration("stray")),
    "raises TimeoutError": raising(TimeoutError("its own")),
    "raises asyncio.TimeoutError": raising(TimeoutError()),
    "raises UnicodeEncodeError": raising(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")),
    "raises ScoringError": raising(ScoringError("bad weights", positions=[1])),
    "raises OverloadedError": raising(OverloadedError("busy")),
    "gives NaN": lambda batch: [float("nan")],
    "gives infinity": lambda batch: [float("inf")],
    "gives minus infinity": lambda batch: [float("-inf")],
    "gives too few": lambda batch: [],
    "gives too many": lambda batch: [0.5, 0.5],
    "gives None": lambda batch: None,
    "gives a list of None": lambda batch: [None],
    "gives text": lambda batch: ["high"],
    "gives an integer beyond floats": lambda batch: [10**400],
    "gives a list of lists": lambda batch: [[0.5, 0.5]],
}


@pytest.fixture(params=FAULTS)
def faulty(request: pytest.FixtureRequest, tally: Tally) -> Faulty:
    """A model with each fault in turn."""
    tally(f"a model that {request.param}")
    return Faulty(FAULTS[request.param])


class Recorder(BaseCallbackHandler):
    """Writes down custom events."""

    raise_error = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Note an event."""
        self.events.append((name, data))


class AsyncRecorder(AsyncCallbackHandler):
    """Writes down custom events in the event loop."""

    raise_error = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Note an event."""
        self.events.append((name, data))


def candidates(number: int = 5) -> list[Document]:
    """Make candidates of different lengths that an earlier rerank has left its keys on."""
    stale = {"relevance_score": 0.9, "best_window": [0, 3], "page": 1, "nested": {"deep": [1]}}
    return [Document(f"lora {'x' * place}", id=f"d{place}", metadata=dict(stale)) for place in range(number)]


def assert_degraded(result: list[Document], given: list[Document], top_n: int, reason: str) -> None:
    """The first `top_n` in their order, marked, without scores, and otherwise as they were."""
    assert [document.id for document in result] == [document.id for document in given[:top_n]]
    for rank, document in enumerate(result, start=1):
        told = document.metadata.pop("rerank_error")
        assert reason in told
        assert document.metadata == {
            "page": 1,
            "nested": {"deep": [1]},
            "initial_rank": rank,
            "relevance_score": None,
            "reranked": False,
        }


def test_a_failing_model_raises_an_error_of_this_package(faulty: Faulty, rerank: Rerank) -> None:
    """Whatever goes wrong in a model, `on_error="raise"` gives one of our errors and says which model failed."""
    with pytest.raises(CrossRerankError) as caught:
        rerank(CrossEncoderReranker(model=faulty), candidates())
    assert isinstance(caught.value, ScoringError | OverloadedError)
    if isinstance(caught.value, ScoringError):
        assert caught.value.positions
        assert all(0 <= position < 5 for position in caught.value.positions)
    assert len(faulty.batches) <= 5


def test_a_failing_model_keeps_the_first_stages_order_where_asked(
    faulty: Faulty, rerank: Rerank, caplog: pytest.LogCaptureFixture
) -> None:
    """`on_error="keep_order"` gives the first `top_n` as they came, marked in metadata, log and trace."""
    given, recorder = candidates(), Recorder()
    before = copy.deepcopy(given)
    with caplog.at_level(logging.WARNING):
        result = rerank(CrossEncoderReranker(model=faulty, top_n=3, on_error="keep_order"), given, callbacks=[recorder])
    assert given == before
    assert_degraded(result, given, 3, "Error: ")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "langchain_crossrerank.reranker"
    assert "first stage's order is kept" in record.getMessage()
    ((name, data),) = recorder.events
    assert (name, data["model"]) == ("rerank_degraded", "fake")
    assert data["reason"] in record.getMessage()


def test_a_failing_model_tells_an_asynchronous_handler_too(tally: Tally) -> None:
    """A handler that lives in the event loop gets `rerank_degraded` as well."""
    tally("a failure seen by an asynchronous handler")
    recorder = AsyncRecorder()
    reranker = CrossEncoderReranker(model=Faulty(raising(RuntimeError("gone"))), on_error="keep_order")
    _async(reranker, candidates(), callbacks=[recorder])
    assert [(name, "gone" in data["reason"]) for name, data in recorder.events] == [("rerank_degraded", True)]


def test_top_n_none_keeps_every_candidate_of_a_degraded_result(rerank: Rerank, tally: Tally) -> None:
    """Without `top_n`, and whatever the threshold, a degraded result is all candidates."""
    tally("a failure with a threshold")
    model = Faulty(raising(RuntimeError("gone")))
    reranker = CrossEncoderReranker(model=model, top_n=None, score_threshold=0.9, on_error="keep_order")
    assert_degraded(rerank(reranker, candidates()), candidates(), 5, "gone")


@pytest.mark.parametrize("blend", ["weighted", "rrf"])
def test_a_failing_model_degrades_a_blend_to_the_first_stage(blend: Any, rerank: Rerank, tally: Tally) -> None:
    """A blend without the cross-encoder's part is the first stage's order."""
    tally("a failure in a blend")
    model = Faulty(raising(RuntimeError("gone")))
    reranker = CrossEncoderReranker(model=model, top_n=2, blend=blend, on_error="keep_order")
    assert_degraded(rerank(reranker, candidates()), candidates(), 2, "gone")


def test_the_next_rerank_after_a_failure_has_no_trace_of_it(rerank: Rerank, tally: Tally) -> None:
    """A model that recovers gives scores again, also on documents that carry the mark of the failure."""
    tally("recovery")
    model = Faulty(raising(RuntimeError("gone")))
    degraded = rerank(CrossEncoderReranker(model=model, top_n=None, on_error="keep_order"), candidates())
    model.fault = lambda batch: [0.5]
    again = rerank(CrossEncoderReranker(model=model, top_n=None, on_error="keep_order"), degraded)
    assert len(again) == 5
    for document in again:
        assert type(document.metadata["relevance_score"]) is float
        assert not {"reranked", "rerank_error"} & document.metadata.keys()


def test_an_interrupt_is_never_taken_for_a_failure(tally: Tally) -> None:
    """Ctrl-C in the middle of scoring ends the program, `keep_order` or not."""
    tally("a model that is interrupted")
    reranker = CrossEncoderReranker(model=Faulty(raising(KeyboardInterrupt())), on_error="keep_order")
    with pytest.raises(KeyboardInterrupt):
        _sync(reranker, candidates())


def test_a_model_that_cannot_be_loaded_follows_the_same_rule(rerank: Rerank, tmp_path: Path, tally: Tally) -> None:
    """A missing folder raises, or with `keep_order` degrades, and names the folder both times."""
    tally("a model that is not there")
    place = str(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        rerank(CrossEncoderReranker(model=place), candidates())
    recorder = Recorder()
    result = rerank(CrossEncoderReranker(model=place, top_n=2, on_error="keep_order"), candidates(), "q", [recorder])
    assert_degraded(result, candidates(), 2, "ModelNotFoundError")
    assert recorder.events[0][1]["model"] == place


class Stock(BaseCrossEncoder):
    """A cross-encoder of LangChain's own kind that fails."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Fail."""
        raise ConnectionError("the endpoint is gone")


def test_a_failing_model_of_another_package_follows_the_same_rule(rerank: Rerank, tally: Tally) -> None:
    """Any `BaseCrossEncoder` has the same protection."""
    tally("a foreign model that raises")
    with pytest.raises(ScoringError, match="the endpoint is gone"):
        rerank(CrossEncoderReranker(model=Stock()), candidates())
    result = rerank(CrossEncoderReranker(model=Stock(), on_error="keep_order"), candidates())
    assert_degraded(result, candidates(), 3, "the endpoint is gone")


BAD_ARGUMENTS: dict[str, tuple[Any, Any]] = {
    "a blank query": ([Document("a")], "  "),
    "an empty query": ([Document("a")], ""),
    "a query that is None": ([Document("a")], None),
    "a query that is a number": ([Document("a")], 5),
    "documents that are texts": (["a"], "q"),
    "documents with a None": ([Document("a"), None], "q"),
    "one document": (Document("a"), "q"),
    "documents that are one text": ("abc", "q"),
    "documents that are None": (None, "q"),
    "documents that are a number": (7, "q"),
}


@pytest.mark.parametrize("on_error", ["raise", "keep_order"])
@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_bad_arguments_raise_in_any_case(what: str, on_error: Any, rerank: Rerank, tally: Tally) -> None:
    """A mistake of the caller is told to the caller, also with `keep_order`, and never reaches the model."""
    tally(f"bad arguments: {what}")
    model = FakeCrossEncoder()
    documents, query = BAD_ARGUMENTS[what]
    with pytest.raises(InvalidInputError):
        rerank(CrossEncoderReranker(model=model, on_error=on_error), documents, query)
    assert model.batches == []


class Held(FakeCrossEncoder):
    """A model whose every batch lasts until the test opens the gate; batches hold one pair."""

    def __init__(self) -> None:
        super().__init__(max_batch_tokens=1)
        self.begun, self.opened, self.closed = threading.Event(), threading.Event(), threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        scores = super()._score_batch(batch)
        self.begun.set()
        assert self.opened.wait(WATCHDOG), "nobody opened the gate"
        return scores

    def score_steps(self, text_pairs: Any) -> Any:
        """Score, and say when the work ended in whatever way."""
        try:
            return (yield from super().score_steps(text_pairs))
        finally:
            self.closed.set()


def batches_in_the_end(model: Held) -> int:
    """Let a model go whose caller gave up, and count its batches once it has had two more turns."""

    def two_turns() -> Generator[None, None, None]:
        yield

    model.opened.set()
    model.scheduler.submit(two_turns()).result(WATCHDOG)
    return len(model.batches)


@pytest.fixture
def held() -> Iterator[Held]:
    """A held model, let go at the end so that no thread outlives its test."""
    model = Held()
    yield model
    model.opened.set()


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


def fallbacks(**kwargs: Any) -> BaseDocumentCompressor:
    """Make a reranker that fails, behind it one that fails otherwise, and behind that one that works."""
    nan = CrossEncoderReranker(model=ScriptedCrossEncoder({}, default=float("nan")))
    good = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=2)
    return CrossEncoderReranker(model=Faulty(raising(RuntimeError("gone")))).with_fallbacks([nan, good], **kwargs)


def best_two() -> list[Document]:
    """What the working reranker gives alone."""
    return _sync(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=2), candidates())


def test_fallbacks_take_over_from_a_failing_reranker(rerank: Rerank, tally: Tally) -> None:
    """The result is exactly that of the first reranker that works."""
    tally("fallbacks")
    assert rerank(fallbacks(), candidates()) == best_two()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_fallbacks_work_inside_a_compression_retriever(asynchronous: bool, tally: Tally) -> None:
    """With fallbacks a reranker is still a compressor that LangChain's own retriever takes."""
    tally("fallbacks inside a retriever")
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: candidates())
    retriever = ContextualCompressionRetriever(base_compressor=fallbacks(), base_retriever=first_stage)
    result = asyncio.run(retriever.ainvoke("lora")) if asynchronous else retriever.invoke("lora")
    assert result == best_two()


def test_fallbacks_take_over_after_a_timeout(held: Held, rerank: Rerank, tally: Tally) -> None:
    """A reranker that is too slow is replaced by the next one, and stops."""
    tally("fallbacks after a timeout")
    slow = CrossEncoderReranker(model=held, timeout=SHORT)
    quick = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=2)
    assert rerank(slow.with_fallbacks([quick]), candidates()) == best_two()
    assert batches_in_the_end(held) <= 1


def test_fallbacks_for_other_errors_do_not_take_over(rerank: Rerank, tally: Tally) -> None:
    """`exceptions_to_handle` is obeyed: what is not named there is raised."""
    tally("fallbacks for other errors")
    with pytest.raises(ScoringError, match="gone"):
        rerank(fallbacks(exceptions_to_handle=(RerankTimeoutError,)), candidates())


def test_fallbacks_that_all_fail_raise_the_first_error(rerank: Rerank, tally: Tally) -> None:
    """When nobody works, the error is that of the reranker that was asked."""
    tally("fallbacks that all fail")
    failing = [CrossEncoderReranker(model=Faulty(raising(RuntimeError(text)))) for text in ("first", "second")]
    with pytest.raises(ScoringError, match="first"):
        rerank(failing[0].with_fallbacks(failing[1:]), candidates())


def test_a_rerank_of_nothing_never_fails(faulty: Faulty, rerank: Rerank) -> None:
    """No candidates are an empty result, and the broken model is not touched."""
    assert rerank(CrossEncoderReranker(model=faulty), []) == []
    assert faulty.batches == []


def test_the_faulty_models_work_until_their_fault(tally: Tally) -> None:
    """One pair is scored by every faulty model, so the failures above are those of the second batch."""
    tally("a first batch that works")
    scores = [Faulty(fault).score([("lora", "lora x")]) for fault in FAULTS.values()]
    assert scores == [FakeCrossEncoder().score([("lora", "lora x")])] * len(FAULTS)
    assert isinstance(Faulty(FAULTS["gives NaN"]), CrossEncoder)
