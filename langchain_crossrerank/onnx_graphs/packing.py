"""Stores a graph's weights in fewer bits; they are still computed in fp32."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from langchain_crossrerank.errors import InvalidInputError

_BLOCK = 32

_BLOCKED_OPSET, _BLOCKED_IR = 21, 10
"""The first ONNX operator set that unpacks blocks by itself, and the first file format with it."""


def pack_weights(
    graph_file: str | os.PathLike[str],
    packed_file: str | os.PathLike[str],
    *,
    matrix_bits: Literal[8, 16] = 16,
    table_bits: Literal[8, 16] = 8,
) -> None:
    """Store a graph's weights in fewer bits; they are still computed in fp32.

    Embedding tables are stored in eight bits: each run of 32 weights of a row shares one fp16 scale, and only the
    rows looked up are unpacked. Matrices are stored in sixteen bits, or in eight the same way along their input
    dimension where both dimensions are multiples of 32, and are unpacked once, at load, by constant folding. For eight
    bits the graph is converted to operator set 21, and onnxruntime must be kept from multiplying packed matrices at
    each run (see `Graph.unpack`).

    Args:
        graph_file: An ONNX graph with fp32 or fp16 weights.
        packed_file: Where to write the packed graph.
        matrix_bits: Bits of a matrix weight.
        table_bits: Bits of an embedding weight.

    Raises:
        InvalidInputError: If a number of bits is neither 8 nor 16.
    """
    for name, bits in (("matrix_bits", matrix_bits), ("table_bits", table_bits)):
        if bits not in (8, 16):
            raise InvalidInputError(f"{name} is {bits!r}; pass 8 or 16.")
    model = onnx.load(str(graph_file))
    if matrix_bits == 8 and _opset(model) < _BLOCKED_OPSET:
        model = version_converter.convert_version(model, _BLOCKED_OPSET)
        model.ir_version = max(model.ir_version, _BLOCKED_IR)
    graph = model.graph
    weights = _matrices(graph)
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"} & set(weights)
    # A table that is multiplied, too, is unpacked as a whole, so that it is stored once.
    multiplied = {name for node in graph.node if node.op_type != "Gather" for name in node.input} & looked_up
    tables = looked_up - multiplied
    packed: dict[str, Any] = {}
    nodes: list[Any] = []
    for name in sorted(set(weights) - tables):
        # OpenVINO mistakes the shape of a transposed matrix that is not made of whole blocks.
        whole = all(size % _BLOCK == 0 for size in weights[name].shape)
        unpack = _unpack_matrix if matrix_bits == 8 and whole else _unpack_half
        if name in multiplied and matrix_bits == 8 and weights[name].shape[1] % _BLOCK == 0:
            unpack = _unpack_table
        nodes += unpack(packed, name, weights[name])
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            unpack_rows = _unpack_half_rows if table_bits == 16 else _unpack_rows
            nodes += unpack_rows(packed, node, weights[node.input[0]])
        elif node.output[0] not in weights:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used - set(packed) - set(weights)]
    tensors += [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in packed.items()]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(packed_file))


def is_packed(model: Any) -> bool:
    """Return whether a graph's matrices are packed in eight bits as `pack_weights` does it.

    Args:
        model: An `onnx.ModelProto`. Another program's quantised graph, which is meant to be computed in eight bits, has
            other blocks or other scales.
    """
    casts = {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    stored = {tensor.name for tensor in model.graph.initializer} | {entry.name for entry in model.graph.input}
    return any(
        node.input[0] in stored
        and node.input[1] in casts
        and any(attribute.name == "block_size" and attribute.i == _BLOCK for attribute in node.attribute)
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    )


def unpack_weight(stored: Mapping[str, Any], name: str) -> Any:
    """Return a weight of a packed graph as it is computed with.

    Args:
        stored: The graph's initializers as arrays, by name.
        name: The weight's name in the graph that was packed.

    Returns:
        The weight in its own shape, float32; `None` if there is none of this name.
    """
    if name in stored:
        return stored[name].astype(np.float32)
    if f"{name}_f16" in stored:
        return stored[f"{name}_f16"].astype(np.float32)
    if f"{name}_q8" not in stored:
        return None
    values, scale = (stored[f"{name}_{part}"].astype(np.float32) for part in ("q8", "scale"))
    if values.ndim == 3:
        return (values * scale).reshape(len(values), -1)
    axis = next(axis for axis in (0, 1) if values.shape[axis] != scale.shape[axis])
    return values * np.repeat(scale, values.shape[axis] // scale.shape[axis], axis=axis)


def rounded(array: Any) -> Any:
    """Return a matrix with the values that eight bits keep, blocks along its last axis; packing those loses nothing.

    Args:
        array: Shape (rows, columns), float32: an embedding table, or a linear layer's weight as torch stores it.
    """
    values, scale = _quantise_rows(array)
    return (values * scale.astype(np.float32)).reshape(array.shape)


def _opset(model: Any) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain == "")


def _matrices(graph: Any) -> dict[str, Any]:
    """Weight matrices by the name under which nodes use them: stored as fp32, or as fp16 behind a Cast."""
    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 2}
    casts = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in stored}
    return {
        casts.get(name, name): numpy_helper.to_array(tensor).astype(np.float32)
        for name, tensor in stored.items()
        if name in casts or tensor.data_type == TensorProto.FLOAT
    }


def _quantise(blocks: Any, axis: int) -> tuple[Any, Any]:
    scale = (np.abs(blocks).max(axis=axis, keepdims=True) / 127).astype(np.float16)
    scale[scale == 0] = 1
    return np.clip(np.rint(blocks / scale.astype(np.float32)), -127, 127).astype(np.int8), scale


def _quantise_rows(array: Any) -> tuple[Any, Any]:
    """Quantise each row in blocks; values of shape (rows, blocks, block), scales of shape (rows, blocks, 1)."""
    rows, columns = array.shape
    block = _BLOCK if columns % _BLOCK == 0 else columns
    return _quantise(array.reshape(rows, columns // block, block), axis=2)


def _unpack_half(packed: dict[str, Any], name: str, array: Any) -> Iterator[Any]:
    packed[f"{name}_f16"] = array.astype(np.float16)
    yield helper.make_node("Cast", [f"{name}_f16"], [name], to=TensorProto.FLOAT)


def _unpack_matrix(packed: dict[str, Any], name: str, array: Any) -> Iterator[Any]:
    rows, columns = array.shape
    values, scale = _quantise(array.reshape(rows // _BLOCK, _BLOCK, columns), axis=1)
    yield from _unpack_blocks(packed, name, values.reshape(array.shape), scale[:, 0], axis=0)


def _unpack_table(packed: dict[str, Any], name: str, array: Any) -> Iterator[Any]:
    values, scale = _quantise_rows(array)
    yield from _unpack_blocks(packed, name, values.reshape(array.shape), scale[:, :, 0], axis=1)


def _unpack_blocks(packed: dict[str, Any], name: str, values: Any, scale: Any, *, axis: int) -> Iterator[Any]:
    packed |= {f"{name}_q8": values, f"{name}_scale": scale}
    # One step from eight bits to thirty-two: each further one would take the memory of all matrices once more.
    yield helper.make_node("Cast", [f"{name}_scale"], [f"{name}_scale_f32"], to=TensorProto.FLOAT)
    inputs = [f"{name}_q8", f"{name}_scale_f32"]
    yield helper.make_node("DequantizeLinear", inputs, [name], axis=axis, block_size=_BLOCK)


def _unpack_half_rows(packed: dict[str, Any], gather: Any, array: Any) -> Iterator[Any]:
    name, output = gather.input[0], gather.output[0]
    packed[f"{name}_f16"] = array.astype(np.float16)
    yield helper.make_node("Gather", [f"{name}_f16", gather.input[1]], [f"{output}_f16"])
    yield helper.make_node("Cast", [f"{output}_f16"], [output], to=TensorProto.FLOAT)


def _unpack_rows(packed: dict[str, Any], gather: Any, array: Any) -> Iterator[Any]:
    values, scale = _quantise_rows(array)
    name, output = gather.input[0], gather.output[0]
    packed |= {f"{name}_q8": values, f"{name}_scale": scale, f"{name}_merge": np.array([0, 0, array.shape[1]])}
    yield helper.make_node("Gather", [f"{name}_q8", gather.input[1]], [f"{output}_q8"])
    yield helper.make_node("Gather", [f"{name}_scale", gather.input[1]], [f"{output}_s16"])
    yield helper.make_node("Cast", [f"{output}_q8"], [f"{output}_f32"], to=TensorProto.FLOAT)
    yield helper.make_node("Cast", [f"{output}_s16"], [f"{output}_s32"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{output}_f32", f"{output}_s32"], [f"{output}_blocks"])
    yield helper.make_node("Reshape", [f"{output}_blocks", f"{name}_merge"], [output])
