"""The OpenVINO backend: how graphs are compiled."""

from __future__ import annotations

import pytest

pytest.importorskip("openvino", reason="needs the openvino extra")

from langchain_crossrerank.cross_encoders.backends.openvino import OpenVinoCrossEncoder
from langchain_crossrerank.cross_encoders.finding import find_source


def test_activations_are_not_quantised() -> None:
    """Activations stay in full precision even where a processor could multiply packed weights in eight bits."""
    model = OpenVinoCrossEncoder(find_source("bundled"))
    compiled = model.open_graph(model._graph.graph)._compiled
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0
