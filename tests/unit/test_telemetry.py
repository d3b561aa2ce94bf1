"""OpenTelemetry spans of reranks."""

from __future__ import annotations

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")

from langchain_core.documents import Document
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

DOCUMENTS = [Document("The secret ferry."), Document("Bread.")]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of a tracer that is set up for this test."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return spans


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_rerank_is_a_span_below_the_callers(exporter: InMemorySpanExporter, *, is_async: bool) -> None:
    """The span has the model, the numbers and the scores, and none of the texts."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=1)
    with trace.get_tracer("test").start_as_current_span("request"):
        if is_async:
            await reranker.acompress_documents(DOCUMENTS, "secret ferry")
        else:
            reranker.compress_documents(DOCUMENTS, "secret ferry")
    rerank, request = exporter.get_finished_spans()
    assert rerank.name == "rerank"
    assert rerank.parent is not None
    assert rerank.parent.span_id == request.context.span_id
    attributes = dict(rerank.attributes or {})
    assert attributes["openinference.span.kind"] == "RERANKER"
    assert attributes["reranker.model_name"] == "fake"
    assert (attributes["reranker.top_k"], attributes["crossrerank.candidates"]) == (1, 2)
    assert len(attributes["crossrerank.scores"]) == 2  # type: ignore[arg-type]
    assert "secret" not in str(attributes)


def test_a_degraded_rerank_says_why(exporter: InMemorySpanExporter) -> None:
    """A failing model is seen in the span."""
    reranker = CrossEncoderReranker(model=ScriptedCrossEncoder({}, default=float("nan")), on_error="keep_order")
    reranker.compress_documents(DOCUMENTS, "ferry")
    (span,) = exporter.get_finished_spans()
    assert "ScoringError" in str((span.attributes or {})["crossrerank.error"])
