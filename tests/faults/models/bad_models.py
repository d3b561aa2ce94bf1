"""Models whose second batch fails or that never finish, and both ways to rerank with them and judge the result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document

from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.errors import OverloadedError, ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

SHORT = 0.05
"""Seconds of a `timeout` that is meant to pass: the model does not finish before the test lets it."""

Rerank = Callable[..., list[Document]]


def rerank_now(reranker: BaseDocumentCompressor, documents: Any, query: Any = "lora", callbacks: Any = None) -> Any:
    return reranker.compress_documents(documents, query, callbacks)


def rerank_async(reranker: BaseDocumentCompressor, documents: Any, query: Any = "lora", callbacks: Any = None) -> Any:
    return asyncio.run(reranker.acompress_documents(documents, query, callbacks))


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


class Recorder(BaseCallbackHandler):
    """Writes down custom events."""

    raise_error = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
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
