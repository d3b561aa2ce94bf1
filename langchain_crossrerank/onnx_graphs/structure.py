"""Reads the structure of an ONNX graph that nobody vouches for, and leaves its weights in their files.

A graph's file is parsed once, by the `onnx` package, after its large weights were replaced by notes of where they are.
That the places of weights are inside the model's folder is checked on what was parsed; and what was parsed is all that
an inference library ever opens, so that no second parser can read the file in another way. Field numbers are those of
[onnx.proto](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.files import open_regular
from langchain_crossrerank.onnx_graphs.appended_head import append_head
from langchain_crossrerank.onnx_graphs.head_layers import Layer
from langchain_crossrerank.onnx_graphs.stored_weights import ARRAY_TYPES, StoredWeight, WeightFiles, check_location

INLINE_BYTES = 32 * 1024
"""Tensors below this size, in bytes, stay in the structure: biases, normalisations, constants."""

PREFERRED_OUTPUTS = ("logits", "scores", "last_hidden_state", "token_embeddings")
"""Outputs to take where a graph has several, in the order of preference."""

MOST_ROUNDS = 10_000
"""Rounds that a loop in a graph may take."""

LARGEST_STRUCTURE = 2**31 - 1
"""Most bytes of a graph without its large weights; protobuf takes no more."""

_WEIGHTS_INSIDE = {"model": {7: "graph"}, "graph": {5: "tensor"}}
_RAW_DATA = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Structure:
    """A graph without its large weights.

    Attributes:
        model: The graph; tensors that were left out are marked as external data.
        weights: Where those are stored.
        external_files: Files other than the graph's own that it reads, relative to its folder.
    """

    model: onnx.ModelProto
    weights: tuple[StoredWeight, ...]
    external_files: tuple[str, ...]


def read_structure(graph_file: Path, head: Sequence[Layer] = ()) -> Structure:
    """Parse a graph without loading its large weights, and check where all of its weights are.

    Args:
        graph_file: The ONNX file.
        head: Layers to append, unless the graph returns logits itself.

    Raises:
        UnsupportedModelError: If the file is not a whole ONNX graph, or names data that is outside its folder, is
            missing, or is not a regular file.
    """
    nonce = secrets.token_bytes(16)
    model = onnx.ModelProto()
    try:
        with open_regular(graph_file) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            slim = _without_weights(content, 0, len(content), "model", nonce)
        if len(slim) > LARGEST_STRUCTURE:
            raise ValueError(f"{len(slim)} bytes without its weights")
        model.ParseFromString(bytes(slim))
        if not model.HasField("graph"):
            raise ValueError("it has no graph")
        # Names are decoded when they are read, and may not be text.
        for tensor in [*model.graph.initializer, *_other_tensors(model)]:
            _ = tensor.name, [(entry.key, entry.value) for entry in tensor.external_data]
    except OSError as err:
        raise UnsupportedModelError(f"the graph {graph_file} cannot be read: {err}.") from err
    except Exception as err:  # protobuf's DecodeError has no public home
        raise UnsupportedModelError(
            f"{graph_file} is not an ONNX graph, or is cut short ({err}); fetch it again."
        ) from err
    model.ClearField("training_info")
    _check_loops(graph_file, model.graph)
    _check_functions(graph_file, model)
    found = _with_weights_located(graph_file, model, nonce)
    if head and found.model.graph.output[0].name not in ("logits", "scores"):
        append_head(found.model, head)
    return found


def parse_own(content: bytes) -> onnx.ModelProto:
    """Parse a structure that was serialised here."""
    model = onnx.ModelProto()
    model.ParseFromString(content)
    return model


def whole_model(structure: Structure, files: WeightFiles) -> onnx.ModelProto:
    """Return a graph with all of its weights inside.

    Args:
        structure: The graph without its large weights.
        files: The files of those weights.
    """
    arrays = files.arrays()
    model = onnx.ModelProto()
    model.CopyFrom(structure.model)
    for tensor in model.graph.initializer:
        if tensor.name in arrays and tensor.data_location == onnx.TensorProto.EXTERNAL:
            data_type = tensor.data_type
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].copy(), tensor.name))
            tensor.data_type = data_type
    return model


def _check_loops(graph_file: Path, graph: onnx.GraphProto, outer_rounds: int = 1) -> None:
    """Raise if a graph, which itself runs `outer_rounds` times, has a loop that may run on for ever, or nearly so."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
            tensors.update(
                (node.output[0], numpy_helper.from_array(np.array(entry.i)))
                for entry in node.attribute
                if entry.name == "value_int"
            )
    for node in graph.node:
        rounds = outer_rounds
        if node.op_type == "Loop":
            times = tensors.get(node.input[0]) if node.input else None
            is_small = times is not None and not times.external_data and len(times.SerializeToString()) < 1000
            rounds *= int(numpy_helper.to_array(times).item()) if times is not None and is_small else MOST_ROUNDS + 1
            if rounds > MOST_ROUNDS:
                raise UnsupportedModelError(
                    f"{graph_file} has the loop {node.name!r}, whose number of rounds, with those of the loops around "
                    f"it, is not a constant of at most {MOST_ROUNDS}; it might never end. Export the model without "
                    "loops."
                )
        for inner in _inner_graphs(node):
            _check_loops(graph_file, inner, rounds)


def _check_functions(graph_file: Path, model: onnx.ModelProto) -> None:
    """Raise if a function of the model has a loop: how often it is called is not known."""
    nodes = [node for function in model.functions for node in function.node]
    while nodes:
        node = nodes.pop()
        if node.op_type == "Loop":
            raise UnsupportedModelError(
                f"{graph_file} has the loop {node.name!r} in a function; it might never end. Export the model without "
                "loops."
            )
        nodes += [below for inner in _inner_graphs(node) for below in inner.node]


def _inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for entry in node.attribute for graph in ([entry.g] if entry.HasField("g") else entry.graphs)]


def _with_weights_located(graph_file: Path, model: onnx.ModelProto, nonce: bytes) -> Structure:
    """Turn notes of where weights are, and external data, into checked `StoredWeight`s."""
    weights: dict[str, StoredWeight] = {}
    external: set[str] = set()
    for tensor in model.graph.initializer:
        weight = _located(graph_file, tensor, nonce)
        if weight is None:
            continue
        if weight.file:
            external.add(weight.file)
        if weight.name in weights or weight.length != weight.whole_length >= 0:
            raise UnsupportedModelError(
                f"the weight {weight.name!r} of {graph_file} has {weight.length} bytes, which do not fit its shape "
                f"{list(weight.shape)}, or is there twice; fetch the model again."
            )
        if weight.data_type not in ARRAY_TYPES or weight.length < INLINE_BYTES:
            _inline(graph_file, tensor, weight)
            continue
        weights[weight.name] = weight
    files = sorted({weight.file for weight in weights.values()})
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            refer_to_file(tensor, weights[tensor.name], files)
    for tensor in _other_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weight = _external(graph_file, tensor)
            external.add(weight.file)
            _inline(graph_file, tensor, weight)
    # Before version 4 of the format initializers were listed among the inputs, which made them replaceable.
    inputs = [entry for entry in model.graph.input if entry.name not in {t.name for t in model.graph.initializer}]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)
    _keep_one_output(model.graph)
    return Structure(model, tuple(weights.values()), tuple(sorted(external)))


def _keep_one_output(graph: onnx.GraphProto) -> None:
    """Leave the output that is called as classifiers call theirs, otherwise the first one."""
    names = [entry.name for entry in graph.output]
    preferred = next((name for name in PREFERRED_OUTPUTS if name in names), None)
    chosen = [entry for entry in graph.output if entry.name == preferred] or list(graph.output)[:1]
    kept = [onnx.ValueInfoProto.FromString(entry.SerializeToString()) for entry in chosen]
    del graph.output[:]
    graph.output.extend(kept)


def refer_to_file(tensor: onnx.TensorProto, weight: StoredWeight, files: list[str]) -> None:
    """Mark a tensor as external data, in the file `weights-N` for the N-th of `files`."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    places = {"location": location_of(weight, files), "offset": str(weight.offset), "length": str(weight.length)}
    for key, value in places.items():
        tensor.external_data.add(key=key, value=value)


def location_of(weight: StoredWeight, files: list[str]) -> str:
    """Return the name by which a structure calls the file of one of its weights."""
    return f"weights-{files.index(weight.file)}"


def _located(graph_file: Path, tensor: onnx.TensorProto, nonce: bytes) -> StoredWeight | None:
    raw = tensor.raw_data
    if len(raw) == 32 and raw.startswith(nonce):
        offset, length = (int.from_bytes(raw[start : start + 8], "little") for start in (16, 24))
        return StoredWeight(tensor.name, tensor.data_type, tuple(tensor.dims), "", offset, length)
    return _external(graph_file, tensor) if tensor.data_location == onnx.TensorProto.EXTERNAL else None


def _external(graph_file: Path, tensor: onnx.TensorProto) -> StoredWeight:
    """Read and check where a tensor's external data is."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = check_location(graph_file, location)
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
        offset = int(entries.get("offset", 0))
        whole = StoredWeight(tensor.name, tensor.data_type, tuple(tensor.dims), location, 0, 0).whole_length
        length = int(entries.get("length", whole if whole >= 0 else size - offset))
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"bytes {offset} to {offset + length} of {size}")
    except (OSError, ValueError) as err:
        raise UnsupportedModelError(
            f"the data of {tensor.name!r} in {graph_file} cannot be read from {location[:200]!r} ({err}); the file is "
            "missing, cut short or not a regular file. Fetch the model again with all of its files."
        ) from err
    return StoredWeight(tensor.name, tensor.data_type, tuple(tensor.dims), location, offset, length)


def _inline(graph_file: Path, tensor: onnx.TensorProto, weight: StoredWeight) -> None:
    path = check_location(graph_file, weight.file) if weight.file else graph_file
    with open_regular(path) as file:
        file.seek(weight.offset)
        tensor.raw_data = file.read(weight.length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _other_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Find every tensor that is not an initializer of the graph itself: in attributes, branches, functions."""
    for message in (model, model.graph):
        for field, value in message.ListFields():
            if field.message_type is not None and field.name not in ("graph", "initializer"):
                for inner in [value] if hasattr(value, "ListFields") else value:
                    yield from _tensors(inner)


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Find every tensor in a message, however deep."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


class _Field(NamedTuple):
    """One field of a protobuf message: its number, where it starts, and where its content starts and ends."""

    number: int
    start: int
    first: int
    end: int
    has_content: bool


def _without_weights(content: mmap.mmap, start: int, end: int, kind: str, nonce: bytes) -> bytearray:
    """Copy a message, with the content of large weights replaced by `nonce` and where it is."""
    made = bytearray()
    copied = start
    for field in _fields(content, start, end):
        inside = _WEIGHTS_INSIDE.get(kind, {}).get(field.number)
        large = kind == "tensor" and field.number == _RAW_DATA and field.end - field.first >= INLINE_BYTES
        if not field.has_content or not (inside or large):
            continue
        if inside:
            replaced = bytes(_without_weights(content, field.first, field.end, inside, nonce))
        else:
            replaced = nonce + b"".join(n.to_bytes(8, "little") for n in (field.first, field.end - field.first))
        made += content[copied : field.start]
        made += _encoded(field.number << 3 | _BYTES) + _encoded(len(replaced)) + replaced
        copied = field.end
    made += content[copied:end]
    return made


def _fields(content: mmap.mmap, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        tag, position = _decoded(content, position, end)
        number, wire = tag >> 3, tag & 7
        # A parser may read a tag as 32 bits and see another field than one that reads all of them.
        if not 0 < tag < 2**32 or number == 0:
            raise ValueError(f"the tag {tag}")
        first = position
        if wire == _BYTES:
            length, first = _decoded(content, position, end)
            position = first + length
        elif wire == _VARINT:
            _, position = _decoded(content, position, end)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position > end:
            raise ValueError("a field that is longer than what contains it")
        yield _Field(number, start, first, position, has_content=wire == _BYTES)


def _decoded(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number without an end")


def _encoded(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
