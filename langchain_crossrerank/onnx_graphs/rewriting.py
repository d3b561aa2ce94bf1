"""Makes an ONNX graph faster without changing what it computes.

A classifier reads the last layer's output at one token, [CLS]. `rewrite` moves that choice upwards, through every
operation that treats tokens one by one, so that the last layer's queries, attention rows, feed-forward and
normalisation are computed for that token alone; only its keys and values still need all tokens. Shape arithmetic is
replaced by constants on the way. What an operation does to the shapes of its inputs is not derived but observed: the
graph is run on two small inputs of different sizes. A graph that is not understood raises, and the result is compared
with the original before anyone uses it.

Only structures are handled here. Large weights stay in their files, and are inputs of the graphs that are run on the
way, so that no session copies them.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from langchain_crossrerank.errors import GraphRewriteError
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.packing import is_packed
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import Structure, read_structure, refer_to_file, whole_model

TOLERANCE = 1e-4
"""Largest difference in logits that a rewritten graph may show."""

_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
_PROBES = ((2, 11), (3, 13))
_CHECKS = ((1, 3), (3, 37))

_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "And", "Or", "Not", "Less", "Greater"),
    *("Sqrt", "Reciprocal", "Exp", "Log", "Neg", "Abs", "Erf", "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Clip", "Cast"),
    *("Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Identity", "Dropout"),
}
_ALONG_LAST_AXIS = {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"}

_ABOUT_THE_MACHINE = re.compile("alloc|memory|space|disk|file", re.IGNORECASE)

_logger = logging.getLogger(__name__)

Dim = int | str
Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class Rewritten:
    """A faster graph.

    Attributes:
        structure: The graph without its large weights, which are the original's.
        difference: Largest difference in logits from the original on the checks.
        first_token_only: How many operations now work on the first token alone.
    """

    structure: Structure
    difference: float
    first_token_only: int


def as_graph(structure: Structure, files: WeightFiles) -> Graph:
    """Return a structure and the files of its weights as a graph that can be opened."""
    model = structure.model
    return Graph(model.SerializeToString(), structure.weights, files, unpack=is_packed(model))


def rewrite(original: Structure, files: WeightFiles) -> Rewritten:
    """Make a cross-encoder's graph faster, and check that it computes the same.

    Args:
        original: The graph.
        files: The files of its weights.

    Raises:
        GraphRewriteError: If the graph is of a kind not known here, or came out different.
        Exception: Whatever onnxruntime raises if memory or disk space run out, or it cannot open the graph.
    """
    _check_kind(original.model)
    made = _simplified(original)
    try:
        dims = _observed_dims(made, files)
        if _freeze_sizes(made.model.graph, dims):
            made = _simplified(made)
            dims = _observed_dims(made, files)
        _freeze_reshapes(made.model.graph, dims)
        moved = _select_first_token(made.model.graph, dims)
        made = without_unused(made)
        difference = _largest_difference(original, made, files)
    except (GraphRewriteError, OSError, MemoryError):
        raise
    except Exception as err:  # onnx and onnxruntime raise many kinds, without a common public class
        if _ABOUT_THE_MACHINE.search(str(err)):
            raise
        raise GraphRewriteError(f"{type(err).__name__}: {err}") from err
    if not difference <= TOLERANCE:
        raise GraphRewriteError(f"it came out different by {difference:.2g} in logits (allowed {TOLERANCE:g})")
    return Rewritten(made, difference, moved)


def rewrite_file(graph_file: Path) -> None:
    """Replace a graph by a faster one; a graph that cannot be made faster is left alone, and the reason is logged."""
    original = read_structure(graph_file)
    files = WeightFiles(graph_file, original.weights)
    try:
        if original.external_files:
            raise GraphRewriteError("its weights are in other files")
        made = rewrite(original, files)
    except GraphRewriteError as err:
        _logger.info("%s is not rewritten: %s", graph_file, err)
        return
    write_whole(graph_file, whole_model(made.structure, files).SerializeToString())


def _check_kind(model: onnx.ModelProto) -> None:
    unknown = {entry.name for entry in model.graph.input} - _INPUTS
    if unknown or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise GraphRewriteError(f"it has the inputs {sorted(unknown)}, or branches or loops")
    for entry in model.graph.input:
        fixed = [dim.dim_value for dim in entry.type.tensor_type.shape.dim if dim.dim_value]
        if fixed:
            raise GraphRewriteError(f"the sizes {fixed} of its input {entry.name!r} are fixed")


def _simplified(original: Structure) -> Structure:
    """Fold constants, by onnxruntime's own passes that change no values; large weights are kept out of them."""
    weights = {weight.name for weight in original.weights}
    # As inputs they have no values that could be folded.
    model = _with_weights_as_inputs(original)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        open_session(Graph(model.SerializeToString(), unpack=is_packed(model)), options)
        model = onnx.load(options.optimized_model_filepath)
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(
        onnx.TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.shape) for weight in original.weights
    )
    return without_unused(Structure(model, original.weights, original.external_files))


def _with_weights_as_inputs(structure: Structure) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(structure.model)
    weights = {weight.name for weight in structure.weights}
    small = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(small)
    model.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.shape) for weight in structure.weights
    )
    return model


def _run(
    model: onnx.ModelProto, structure: Structure, files: WeightFiles, feeds: Sequence[dict[str, Any]]
) -> list[Any]:
    """Run a graph whose weights are inputs on each feed, without optimising it; return all outputs of each run."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(Graph(model.SerializeToString()), options)
    names = [entry.name for entry in model.graph.output]
    values = files.values()
    weights = {weight.name: values[weight.name] for weight in structure.weights}
    found = []
    for feed in feeds:
        texts = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
        outputs = session.run_with_ort_values(names, {**weights, **texts})
        found.append([output.numpy() for output in outputs])
    return found


def _observed_dims(structure: Structure, files: WeightFiles) -> dict[str, Dims]:
    """Run the graph on two small inputs; each axis of each tensor is a number, `"batch"`, `"tokens"` or `"?"`."""
    model = structure.model
    probe = _with_weights_as_inputs(structure)
    names = [name for node in model.graph.node for name in node.output if name]
    shapes = [f"{name} shape" for name in names]
    probe.graph.node.extend(
        helper.make_node("Shape", [name], [shape]) for name, shape in zip(names, shapes, strict=True)
    )
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None) for shape in shapes)
    feeds = [_feed(model, batch, tokens) for batch, tokens in _PROBES]
    small, large = (
        {**{name: value.shape for name, value in feed.items()}, **_shapes(names, found)}
        for feed, found in zip(feeds, _run(probe, structure, files, feeds), strict=True)
    )
    symbols = {tuple(pair): name for pair, name in zip(zip(*_PROBES, strict=True), ("batch", "tokens"), strict=True)}
    dims: dict[str, Dims] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for name, one in small.items():
        pairs = zip(one, large[name], strict=True)
        dims[name] = tuple(a if a == b else symbols.get((a, b), "?") for a, b in pairs)
    return dims


def _shapes(names: Sequence[str], shapes: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(map(int, shape)) for name, shape in zip(names, shapes, strict=True)}


def _freeze_sizes(graph: onnx.GraphProto, dims: dict[str, Dims]) -> int:
    """Replace sizes that are read off a tensor but never vary by constants; return how many those are."""
    shapes = {node.output[0]: node for node in graph.node if node.op_type == "Shape"}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if _is_tiny(tensor)}
    frozen = 0
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in shapes or node.input[1] not in constants:
            continue
        shape, place = shapes[node.input[0]], constants[node.input[1]]
        sizes = dims[shape.input[0]][_attribute(shape, "start", 0) : _attribute(shape, "end", None)]
        size = sizes[int(place.item())] if place.size == 1 else "?"
        if isinstance(size, int):
            node.op_type = "Identity"
            del node.input[:], node.attribute[:]
            node.input.append(_constant(graph, f"frozen_size_{size}_{place.ndim}", np.full(place.shape, size)))
            frozen += 1
    return frozen


def _is_tiny(tensor: onnx.TensorProto) -> bool:
    return int(np.prod(tensor.dims)) < 9


def _freeze_reshapes(graph: onnx.GraphProto, dims: dict[str, Dims]) -> None:
    """Replace computed target shapes by constants: 0 copies an axis of the input, -1 means what is left."""
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or any(a.name == "allowzero" and a.i for a in node.attribute):
            continue
        before, after = dims[node.input[0]], dims[node.output[0]]
        shape = [
            dim if isinstance(dim, int) else 0 if before[i : i + 1] == (dim,) else -1 for i, dim in enumerate(after)
        ]
        if shape.count(-1) <= 1 and "?" not in (dim for dim, code in zip(after, shape, strict=True) if code == 0):
            node.input[1] = _constant(graph, f"frozen_shape_{number}", np.array(shape, dtype=np.int64))


def _select_first_token(graph: onnx.GraphProto, dims: dict[str, Dims]) -> int:
    """Compute for the first token alone whatever only the first token is taken of; return how many operations that are.

    A tensor is narrow if all that reads it takes its first entry along one axis, either at the end or by way of an
    operation that is itself narrow and treats entries along that axis one by one.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if _is_tiny(tensor)}
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
        return _attribute(node, "axis", 0) == 1 and not np.any(rest[0])
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
        along = _attribute(node, "axis", -1) % len(result)
        return _broadcast_axes(node.input, axis - len(result), dims) if axis < along == last else None
    if kind == "ReduceMean":
        # Before opset 17 a layer normalisation is written with two of these.
        return {0: axis} if axis < last and _mean_axes(node, constants) in ([-1], [last]) else None
    if kind == "Softmax":
        return {0: axis} if _attribute(node, "axis", -1) % len(result) != axis else None
    if kind == "MatMul":
        first, second = dims[node.input[0]], dims[node.input[1]]
        if axis == last or len(first) < 2 or len(second) < 2:
            return None
        if axis == last - 1:
            return {0: len(first) - 2}
        return _broadcast_axes(node.input, axis - len(result), dims)
    if kind == "Transpose":
        return {0: _attribute(node, "perm", list(range(last, -1, -1)))[axis]}
    if kind == "Reshape":
        return _reshaped_axis(dims[node.input[0]], result, axis)
    if kind == "Concat":
        return (
            dict.fromkeys(range(len(node.input)), axis) if _attribute(node, "axis", 0) % len(result) != axis else None
        )
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
    given = constants.get(node.input[1]) if len(node.input) > 1 else _attribute(node, "axes", None)
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
    if not _attribute(node, "keepdims", 1):
        return None
    given = constants.get(node.input[1]) if len(node.input) > 1 else _attribute(node, "axes", None)
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
                bounds = [_constant(graph, f"first_{what}_{v}", np.array([v])) for what, v in enumerate((0, 1, axis))]
                nodes.append(helper.make_node("Slice", [name, *bounds], [sliced[name, axis]]))
            node.input[place] = sliced[name, axis]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def without_unused(structure: Structure) -> Structure:
    """Drop, in place, operations and weights that no output needs."""
    graph = structure.model.graph
    needed = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)
    weights = {weight.name: weight for weight in structure.weights if weight.name in needed}
    files = sorted({weight.file for weight in weights.values()})
    for tensor in graph.initializer:
        if tensor.name in weights:
            refer_to_file(tensor, weights[tensor.name], files)
    return Structure(structure.model, tuple(weights.values()), structure.external_files)


def _largest_difference(original: Structure, rewritten: Structure, files: WeightFiles) -> float:
    """Run both graphs and compare their first outputs."""
    feeds = [_feed(rewritten.model, batch, tokens) for batch, tokens in _CHECKS]
    expected, found = (
        [outputs[0] for outputs in _run(_with_weights_as_inputs(each), each, files, feeds)]
        for each in (original, rewritten)
    )
    return float(np.max([np.abs(a.astype(np.float64) - b).max() for a, b in zip(expected, found, strict=True)]))


def _feed(model: onnx.ModelProto, batch: int, tokens: int) -> dict[str, Any]:
    """Make inputs with arbitrary tokens, two segments, and padding in the last row."""
    tables = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    words = [
        tables[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[1] == "input_ids" and node.input[0] in tables
    ]
    ids = np.random.default_rng(tokens).integers(5, max(6, min(words, default=10)), size=(batch, tokens))
    mask = np.ones((batch, tokens), dtype=np.int64)
    mask[-1, tokens - tokens // 4 :] = 0
    types = np.zeros_like(mask)
    types[:, tokens // 3 :] = 1
    places = np.tile(np.arange(tokens), (batch, 1))
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types * mask, "position_ids": places}
    return {
        entry.name: every[entry.name].astype(helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type))
        for entry in model.graph.input
    }


def _constant(graph: onnx.GraphProto, name: str, value: Any) -> str:
    if name not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
