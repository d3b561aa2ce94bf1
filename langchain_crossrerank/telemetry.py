"""OpenTelemetry spans of reranks, for processes that trace with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

_ATTRIBUTES = {
    "model": "reranker.model_name",
    "top_n": "reranker.top_k",
    "candidates": "crossrerank.candidates",
    "duplicates_dropped": "crossrerank.duplicates_dropped",
    "score_threshold": "crossrerank.score_threshold",
    "scores": "crossrerank.scores",
    "reason": "crossrerank.error",
}
"""The span's attributes by what a rerank reports; the first two are named as OpenInference names them."""


def record_span(name: str, report: Mapping[str, Any], *, started: int) -> None:
    """Record a finished rerank as a child of the current span.

    The texts of the query and of the documents are not recorded. Where nothing has imported OpenTelemetry, or no tracer
    is set up, this does nothing.

    Args:
        name: Name of the span.
        report: What the rerank reports; values that are `None` are left out.
        started: When it began, in nanoseconds since 1970.
    """
    if "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import trace

    span = trace.get_tracer(__name__.partition(".")[0]).start_span(name, start_time=started)
    if span.is_recording():
        span.set_attribute("openinference.span.kind", "RERANKER")
        for key, attribute in _ATTRIBUTES.items():
            if report.get(key) is not None:
                span.set_attribute(attribute, report[key])
    span.end(time.time_ns())
