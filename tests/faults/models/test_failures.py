"""Models that raise or give nonsense, and bad arguments: our own error, or the first stage's order where asked."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.errors import (
    CrossRerankError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
    ScoringError,
)
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.models.bad_models import (
    FAULTS,
    Faulty,
    Recorder,
    Rerank,
    assert_degraded,
    candidates,
    raising,
    rerank_async,
    rerank_now,
)


class AsyncRecorder(AsyncCallbackHandler):
    """Writes down custom events in the event loop."""

    raise_error = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Note an event."""
        self.events.append((name, data))


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
    rerank_async(reranker, candidates(), callbacks=[recorder])
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
        rerank_now(reranker, candidates())


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
