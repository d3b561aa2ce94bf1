"""Weights that stay in their files: where each one is stored, and reading them into arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.files import open_regular

_BFLOAT16 = 16

ARRAY_TYPES = {
    1: "<f4",
    2: "u1",
    3: "i1",
    6: "<i4",
    7: "<i8",
    10: "<f2",
    11: "<f8",
    # numpy has no bfloat16; the bits are kept in an array of the same width.
    _BFLOAT16: "<u2",
}
"""Data types of onnx.proto's `TensorProto` that can stay in a file, and the numpy type that holds each."""


@dataclass(frozen=True)
class StoredWeight:
    """Where one tensor of a graph is stored.

    Attributes:
        name: The tensor's name in the graph.
        data_type: Its type, a key of `ARRAY_TYPES`.
        shape: Its dimensions.
        file: The file, relative to the graph's folder; `""` for the graph's own file.
        offset: First byte in that file.
        length: Number of bytes.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    file: str
    offset: int
    length: int


def read_weights(graph_file: Path, weights: Iterable[StoredWeight]) -> dict[str, Any]:
    """Read weights into arrays of this process's own, so that later changes of the files change nothing.

    Args:
        graph_file: The graph that the weights belong to.
        weights: Where they are stored.

    Returns:
        Arrays by name.

    Raises:
        UnsupportedModelError: If a file is missing, is not a regular file, or is too short.
    """
    arrays: dict[str, Any] = {}
    by_file: dict[str, list[StoredWeight]] = {}
    for weight in weights:
        by_file.setdefault(weight.file, []).append(weight)
    for name, stored in by_file.items():
        path = graph_file.parent / name if name else graph_file
        try:
            with open_regular(path) as file:
                for weight in sorted(stored, key=lambda each: each.offset):
                    array = np.empty(weight.shape, dtype=ARRAY_TYPES[weight.data_type])
                    file.seek(weight.offset)
                    if file.readinto(array.reshape(-1).view(np.uint8)) != weight.length:
                        raise UnsupportedModelError(
                            f"{path} ends before the weight {weight.name!r}; the file is cut short, fetch it again."
                        )
                    arrays[weight.name] = array
        except OSError as err:
            raise UnsupportedModelError(f"the weights of {graph_file} in {path} cannot be read: {err}.") from err
    return arrays


def give_weights(options: Any, arrays: Mapping[str, Any], weights: Iterable[StoredWeight]) -> None:
    """Let a session that is opened with `options` use arrays as a graph's external weights, without copying them.

    Args:
        options: Session options of onnxruntime.
        arrays: Arrays by name; they must live as long as the session.
        weights: The weights that the graph has.
    """
    import onnxruntime

    make = onnxruntime.OrtValue
    values = [
        make.ortvalue_from_numpy_with_onnx_type(arrays[weight.name], _BFLOAT16)
        if weight.data_type == _BFLOAT16
        else make.ortvalue_from_numpy(arrays[weight.name])
        for weight in weights
    ]
    if values:
        options.add_external_initializers([weight.name for weight in weights], values)
