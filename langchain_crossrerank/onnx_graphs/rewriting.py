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
from onnx import helper

from langchain_crossrerank.errors import GraphRewriteError
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.first_token import select_first_token
from langchain_crossrerank.onnx_graphs.nodes import Dims, attribute, constant, tiny_constants
from langchain_crossrerank.onnx_graphs.packing import is_packed
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import Structure, read_structure, refer_to_file, whole_model

TOLERANCE = 1e-4
"""Largest difference in logits that a rewritten graph may show."""

_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
_PROBES = ((2, 11), (3, 13))
_CHECKS = ((1, 3), (3, 37))

_ABOUT_THE_MACHINE = re.compile("alloc|memory|space|disk|file", re.IGNORECASE)

_logger = logging.getLogger(__name__)


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
        moved = select_first_token(made.model.graph, dims)
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
    constants = tiny_constants(graph)
    frozen = 0
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in shapes or node.input[1] not in constants:
            continue
        shape, place = shapes[node.input[0]], constants[node.input[1]]
        sizes = dims[shape.input[0]][attribute(shape, "start", 0) : attribute(shape, "end", None)]
        size = sizes[int(place.item())] if place.size == 1 else "?"
        if isinstance(size, int):
            node.op_type = "Identity"
            del node.input[:], node.attribute[:]
            node.input.append(constant(graph, f"frozen_size_{size}_{place.ndim}", np.full(place.shape, size)))
            frozen += 1
    return frozen


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
            node.input[1] = constant(graph, f"frozen_shape_{number}", np.array(shape, dtype=np.int64))


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
