"""Marks in ONNX graphs that were made here, and how onnxruntime opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PRODUCER = "langchain-crossrerank"
"""Stands in graphs that were made ready already."""

PACKED = "packed"
"""The producer's version in graphs whose matrices are packed in eight bits."""


def is_ready(graph: Path | bytes) -> bool:
    """Whether a graph was made ready already."""
    return PRODUCER.encode() in _head(graph)


def unpack_at_load(options: Any, graph: Path | bytes) -> None:
    """Have onnxruntime unpack a packed graph's matrices once, when it opens it, and not at each product.

    Args:
        options: Session options to open the graph with.
        graph: The graph; one that is not packed, such as another program's quantised one, runs as it always did.
    """
    head = _head(graph)
    if PRODUCER.encode() in head and PACKED.encode() in head:
        options.add_session_config_entry("session.disable_quant_qdq", "1")


def _head(graph: Path | bytes) -> bytes:
    # The producer's name and version stand at the very beginning.
    if isinstance(graph, bytes):
        return graph[:64]
    with graph.open("rb") as file:
        return file.read(64)
