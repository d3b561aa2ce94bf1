"""Computes for the first token alone what only the first token is taken of.

Which operations may be narrowed follows from what each does to the axes of its inputs, which must have been observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from langchain_crossrerank.onnx_graphs.nodes import Dims, attribute, constant, tiny_constants

_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "And", "Or", "Not", "Less", "Greater"),
    *("Sqrt", "Reciprocal", "Exp", "Log", "Neg", "Abs", "Erf", "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Clip", "Cast"),
    *("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Identity", "Dropout"),
}
_ALONG_LAST_AXIS = {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"}


def select_first_token(graph: onnx.GraphProto, dims: dict[str, Dims]) -> int:
    """Compute for the first token alone whatever only the first token is taken of; return how many operations that are.

    A tensor is narrow if all that reads it takes its first entry along one axis, either at the end or by way of an
    operation that is itself narrow and treats entries along that axis one by one.
    """
    constants = tiny_constants(graph)
    uses: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, place))
    results = {entry.name for entry in graph.output}
    narrow: dict[str, int] = {}
    for node in reversed(graph.node):
        output = node.output[0]
        spare = any(name in uses or name in results for name in node.output[1:])
        if output in results or output not in uses or spare:
            continue
        axes = {_axis_taken(user, place, narrow, dims, constants) for user, place in uses[output]}
        axis = axes.pop()
        if (
            not axes
            and axis is not None
            and dims[output][axis] == "tokens"
            and _input_axes(node, axis, dims, constants)
        ):
            narrow[output] = axis
    _narrow_inputs(graph, narrow, dims, constants)
    return len(narrow)


def _axis_taken(
    node: onnx.NodeProto, place: int, narrow: dict[str, int], dims: dict[str, Dims], constants: dict[str, Any]
) -> int | None:
    """Along which axis this use of a tensor takes the first entry alone; `None` if it needs all of it."""
    if place == 0 and _takes_first_token(node, dims, constants):
        return 1
    if node.output[0] not in narrow:
        return None
    axes = _input_axes(node, narrow[node.output[0]], dims, constants)
    return axes.get(place) if axes else None


def _takes_first_token(node: onnx.NodeProto, dims: dict[str, Dims], constants: dict[str, Any]) -> bool:
    if dims[node.input[0]][1:2] != ("tokens",):
        return False
    rest = [constants.get(name) for name in node.input[1:]]
    if any(value is None for value in rest):
        return False
    if node.op_type == "Gather":
        return attribute(node, "axis", 0) == 1 and not np.any(rest[0])
    # Starts, ends, axes and, where given, steps.
    bounds = [np.ravel(value).tolist() for value in rest if value is not None]
    return node.op_type == "Slice" and bounds[:3] == [[0], [1], [1]] and bounds[3:] in ([], [[1]])


def _input_axes(  # noqa: PLR0911 - one a kind of operation
    node: onnx.NodeProto, axis: int, dims: dict[str, Dims], constants: dict[str, Any]
) -> dict[int, int] | None:
    """Say which axis of each input goes one by one with an axis of the output; `None` if the operation mixes entries.

    Inputs that do not vary along it are left out.
    """
    kind, result = node.op_type, dims[node.output[0]]
    last = len(result) - 1
    if kind in _ELEMENTWISE:
        return _broadcast_axes(node.input, axis - len(result), dims)
    if kind in _ALONG_LAST_AXIS:
        along = attribute(node, "axis", -1) % len(result)
        return _broadcast_axes(node.input, axis - len(result), dims) if axis < along == last else None
    if kind == "ReduceMean":
        # Before opset 17 a layer normalisation is written with two of these.
        return {0: axis} if axis < last and _mean_axes(node, constants) in ([-1], [last]) else None
    if kind == "Softmax":
        return {0: axis} if attribute(node, "axis", -1) % len(result) != axis else None
    if kind == "MatMul":
        first, second = dims[node.input[0]], dims[node.input[1]]
        if axis == last or len(first) < 2 or len(second) < 2:
            return None
        if axis == last - 1:
            return {0: len(first) - 2}
        return _broadcast_axes(node.input, axis - len(result), dims)
    if kind == "Transpose":
        return {0: attribute(node, "perm", list(range(last, -1, -1)))[axis]}
    if kind == "Reshape":
        return _reshaped_axis(dims[node.input[0]], result, axis)
    if kind == "Concat":
        return dict.fromkeys(range(len(node.input)), axis) if attribute(node, "axis", 0) % len(result) != axis else None
    if kind in ("Squeeze", "Unsqueeze"):
        return _shifted_axis(node, axis, len(dims[node.input[0]]), len(result), constants)
    if kind == "Slice" and len(node.input) > 3:
        axes = constants.get(node.input[3])
        return {0: axis} if axes is not None and all(int(a) % len(result) != axis for a in axes) else None
    return None


def _shifted_axis(
    node: onnx.NodeProto, axis: int, rank_before: int, rank_after: int, constants: dict[str, Any]
) -> dict[int, int] | None:
    """Find the axis of the input that an axis of the output was, where axes of length 1 are dropped or added."""
    given = constants.get(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
    if given is None:
        return None
    longer = max(rank_before, rank_after)
    ones = {int(one) % longer for one in np.ravel(given)}
    kept = [place for place in range(longer) if place not in ones]
    if node.op_type == "Squeeze":
        return {0: kept[axis]}
    return {0: kept.index(axis)} if axis in kept else None


def _mean_axes(node: onnx.NodeProto, constants: dict[str, Any]) -> list[int] | None:
    """Return the axes that a mean is taken over; `None` if they are unknown, or are not kept as axes of length 1."""
    if not attribute(node, "keepdims", 1):
        return None
    given = constants.get(node.input[1]) if len(node.input) > 1 else attribute(node, "axes", None)
    return None if given is None else [int(axis) for axis in np.ravel(given)]


def _broadcast_axes(inputs: Sequence[str], axis_from_end: int, dims: dict[str, Dims]) -> dict[int, int] | None:
    axes = {}
    for place, name in enumerate(inputs):
        axis = len(dims[name]) + axis_from_end if name else -1
        if axis >= 0 and dims[name][axis] != 1:
            axes[place] = axis
    return axes or None


def _reshaped_axis(before: Dims, after: Dims, axis: int) -> dict[int, int] | None:
    """Find the axis that a reshape carries over: the same size, behind the same number of entries."""
    for place, dim in enumerate(before):
        if dim == after[axis] and _product(before[:place]) == _product(after[:axis]):
            return {0: place}
    return None


def _product(dims: Dims) -> tuple[int, list[str]]:
    numbers = [dim for dim in dims if isinstance(dim, int)]
    return int(np.prod(numbers)), sorted(dim for dim in dims if isinstance(dim, str))


def _narrow_inputs(
    graph: onnx.GraphProto, narrow: dict[str, int], dims: dict[str, Dims], constants: dict[str, Any]
) -> None:
    """Let narrow operations read the first entry of inputs that are not narrow themselves."""
    nodes: list[onnx.NodeProto] = []
    sliced: dict[tuple[str, int], str] = {}
    for node in graph.node:
        axes = _input_axes(node, narrow[node.output[0]], dims, constants) if node.output[0] in narrow else None
        for place, axis in (axes or {}).items():
            name = node.input[place]
            if name in narrow:
                continue
            if (name, axis) not in sliced:
                sliced[name, axis] = f"{name}_first_{axis}"
                bounds = [constant(graph, f"first_{what}_{v}", np.array([v])) for what, v in enumerate((0, 1, axis))]
                nodes.append(helper.make_node("Slice", [name, *bounds], [sliced[name, axis]]))
            node.input[place] = sliced[name, axis]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
