"""Opens graphs in onnxruntime, from their structure and the files that hold their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from langchain_crossrerank.onnx_graphs.stored_weights import StoredWeight, WeightFiles


@dataclass(frozen=True)
class Graph:
    """A graph that can be opened.

    Attributes:
        model: Its structure as a serialised ONNX model, or the file of a graph that is part of this package.
        weights: The weights that the structure leaves out.
        files: Where those are.
        unpack: Whether matrices packed in eight bits are unpacked once, when the graph is opened, and not at each
            product.
    """

    model: bytes | Path = field(repr=False)
    weights: tuple[StoredWeight, ...] = ()
    files: WeightFiles | None = field(default=None, repr=False, compare=False)
    unpack: bool = False

    @property
    def file_names(self) -> list[str]:
        """The files of the weights, as `StoredWeight.file` names them; the structure calls the N-th `weights-N`."""
        return sorted({weight.file for weight in self.weights})


def open_session(graph: Graph, options: Any = None, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Any:
    """Open a graph in onnxruntime.

    Args:
        graph: The graph; it must live as long as the session.
        options: Session options, to which the graph's own needs are added.
        providers: What computes, in order of preference.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if graph.unpack:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if isinstance(graph.model, Path):
        return onnxruntime.InferenceSession(str(graph.model), options, providers=list(providers))
    if graph.files is None:
        return onnxruntime.InferenceSession(graph.model, options, providers=list(providers))
    values = graph.files.values()
    names = [weight.name for weight in graph.weights]
    options.add_external_initializers(names, [values[name] for name in names])
    with graph.files.while_copied():
        return onnxruntime.InferenceSession(graph.model, options, providers=list(providers))
