"""Checks where an ONNX graph keeps its external data, before anything opens it.

Only the few protobuf fields that can name a file are read, so no ONNX library is needed. Field numbers are those of
[onnx.proto](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from langchain_crossrerank.errors import UnsupportedModelError

# Message type -> field number -> message type inside. `None` marks an external_data entry.
_INSIDE: dict[str, dict[int, str | None]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: None},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_external_data(graph_file: Path) -> None:
    """Raise if a graph names external data outside its own folder.

    In the Hugging Face cache files are links into the repository's `blobs` folder, and that counts as inside.

    Args:
        graph_file: The ONNX file.

    Raises:
        UnsupportedModelError: Naming the place, or if the file is no ONNX graph.
    """
    folder = graph_file.parent
    allowed = [folder.resolve()]
    snapshot = next((parent for parent in graph_file.parents if parent.parent.name == "snapshots"), None)
    if snapshot is not None:
        allowed.append((snapshot.parent.parent / "blobs").resolve())
    for location in external_locations(graph_file):
        absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
        target = (folder / location).resolve()
        if absolute or not any(target.is_relative_to(place) for place in allowed):
            raise UnsupportedModelError(
                f"{graph_file} wants to read its weights from {location!r}, that is {target}, outside its folder; "
                "such a model may read any file of yours. Get the model from a source that you trust."
            )


def external_locations(graph_file: Path) -> set[str]:
    """List the files that a graph's tensors say they are kept in.

    Raises:
        UnsupportedModelError: If the file is no ONNX graph.
    """
    try:
        with graph_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return set(_locations(content, 0, len(content), "model"))
    except (ValueError, IndexError, RecursionError) as err:
        raise UnsupportedModelError(f"{graph_file} is no ONNX graph, or is cut short; fetch it again.") from err


def _locations(content: mmap.mmap, start: int, end: int, kind: str) -> Iterator[str]:
    inside = _INSIDE[kind]
    for field, first, last in _fields(content, start, end):
        if field not in inside:
            continue
        deeper = inside[field]
        if deeper is not None:
            yield from _locations(content, first, last, deeper)
            continue
        entry = {number: content[a:b] for number, a, b in _fields(content, first, last)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "replace")


def _fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give number, start and end of each length-delimited field; pass over the others."""
    while position < end:
        tag, position = _varint(content, position)
        wire = tag & 7
        if wire == _BYTES:
            length, position = _varint(content, position)
            if position + length > end:
                raise ValueError("a field is longer than what holds it")
            yield tag >> 3, position, position + length
            position += length
        elif wire == _VARINT:
            _, position = _varint(content, position)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number that never ends")
