"""Opens graphs in onnxruntime, from their structure and the arrays that hold their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from langchain_crossrerank.onnx_graphs.stored_weights import StoredWeight, give_weights


@dataclass(frozen=True)
class Graph:
    """A graph that can be opened.

    Attributes:
        model: Its structure as a serialised ONNX model, or the file of a graph that is part of this package.
        weights: The weights that the structure leaves out.
        arrays: Their content, by name.
        unpack: Whether matrices packed in eight bits are unpacked once, when the graph is opened, and not at each
            product.
    """

    model: bytes | Path = field(repr=False)
    weights: tuple[StoredWeight, ...] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    unpack: bool = False


def open_session(
    graph: Graph, options: Any = None, *, providers: Sequence[str] = ("CPUExecutionProvider",), scratch: bool = False
) -> Any:
    """Open a graph in onnxruntime.

    Args:
        graph: The graph; its arrays must live as long as the session.
        options: Session options, to which the graph's own needs are added.
        providers: What computes, in order of preference.
        scratch: Whether the session is for a few runs only, so that weights are not rearranged for speed.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if graph.unpack:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if scratch:
        options.add_session_config_entry("session.disable_prepacking", "1")
    give_weights(options, graph.arrays, graph.weights)
    model = graph.model if isinstance(graph.model, bytes) else str(graph.model)
    return onnxruntime.InferenceSession(model, options, providers=list(providers))
