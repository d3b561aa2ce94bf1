"""Rerankers with fallbacks: the first one that works gives the result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import RerankTimeoutError, ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.fault_tally import Tally
from tests.faults.models.bad_models import (
    SHORT,
    Faulty,
    Held,
    Rerank,
    batches_in_the_end,
    candidates,
    raising,
    rerank_now,
)


def fallbacks(**kwargs: Any) -> BaseDocumentCompressor:
    """Make a reranker that fails, behind it one that fails otherwise, and behind that one that works."""
    nan = CrossEncoderReranker(model=ScriptedCrossEncoder({}, default=float("nan")))
    good = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=2)
    return CrossEncoderReranker(model=Faulty(raising(RuntimeError("gone")))).with_fallbacks([nan, good], **kwargs)


def best_two() -> list[Document]:
    """What the working reranker gives alone."""
    return rerank_now(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=2), candidates())


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
