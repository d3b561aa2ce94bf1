"""Which model a measured threshold holds for."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker, RelevanceGate, load_cross_encoder
from langchain_crossrerank.agents.thresholds import relevant_documents
from langchain_crossrerank.errors import InvalidInputError

DOCUMENTS = [Document(name, metadata={"relevance_score": score}) for name, score in (("a", 0.5), ("b", 0.1))]


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(("graph", "kept"), [(None, 1), ("model.onnx", 1), ("sparse.onnx", 2)])
def test_a_threshold_holds_for_the_whole_model_only(*, graph: str | None, loaded: bool, kept: int) -> None:
    """A part of the bundled model scores on another scale, so what was measured is not applied to it."""
    arguments: dict[str, Any] = {} if graph is None else {"file_name": graph}
    reranker = CrossEncoderReranker(model="bundled", model_kwargs=arguments)
    if loaded:
        reranker = CrossEncoderReranker(model=reranker.cross_encoder)
    assert relevant_documents(DOCUMENTS, reranker, "measured") == DOCUMENTS[:kept]


def test_a_gate_needs_a_threshold_for_a_part() -> None:
    """The error names the part, and not the model that has a threshold."""
    with pytest.raises(InvalidInputError, match=r"measured for the model 'bundled/sparse\.onnx'; pass min_probability"):
        RelevanceGate(model=load_cross_encoder("bundled", file_name="sparse.onnx"))
