"""What the passes over a graph's operations share: observed shapes, attributes and small constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Dim = int | str
Dims = tuple[Dim, ...]
"""A tensor's axes, as observed: each a number, `"batch"`, `"tokens"` or, where none of these fits, `"?"`."""


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an operation's attribute."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def constant(graph: onnx.GraphProto, name: str, value: Any) -> str:
    """Add a constant to a graph that has none of this name; return the name."""
    if name not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def tiny_constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Return the constants that can be sizes, axes or places, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if int(np.prod(tensor.dims)) < 9}
