"""Weights that stay in their files: where each one is stored, and how they get from there into a session."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.files import open_regular

_BFLOAT16 = 16
_WORTH_RELEASING = 64 * 2**20
_RELEASE_SECONDS = 0.02

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

    @property
    def whole_length(self) -> int:
        """The bytes that a tensor of this type and shape takes; -1 if the type cannot stay in a file."""
        item = ARRAY_TYPES.get(self.data_type)
        return math.prod(self.shape) * np.dtype(item).itemsize if item else -1


def check_location(graph_file: Path, location: str) -> Path:
    """Check that a file which a graph names is inside the graph's folder.

    In the Hugging Face cache files are links into the repository's `blobs` folder, and that counts as inside.

    Args:
        graph_file: The ONNX file.
        location: The place that it names, relative to its folder.

    Returns:
        The file, with links resolved.

    Raises:
        UnsupportedModelError: If it is outside, or cannot be the name of a file.
    """
    folder = graph_file.parent
    snapshot = next((parent for parent in graph_file.parents if parent.parent.name == "snapshots"), None)
    try:
        allowed = [folder.resolve()]
        if snapshot is not None:
            allowed.append((snapshot.parent.parent / "blobs").resolve())
        target = (folder / location).resolve()
        if target == folder.resolve():
            raise ValueError("it is the folder itself")
    except (OSError, ValueError, RuntimeError) as err:
        raise UnsupportedModelError(
            f"{graph_file} names {location[:200]!r} as a file of weights, which is not a usable name ({err})."
        ) from err
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute()
    if absolute or not any(target.is_relative_to(place) for place in allowed):
        raise UnsupportedModelError(
            f"{graph_file} reads weights from {location[:200]!r}, that is {str(target)[:200]}, outside its folder; "
            "such a model may read any file of yours. Get the model from a source that you trust."
        )
    return target


class WeightFiles:
    """The files that hold a graph's weights, as they were when they were opened.

    They are mapped into memory and not read, so that weights take no memory before an inference library copies them,
    and none twice when several processes load one model. A file that is replaced later stays what it was here.

    Args:
        graph_file: The graph that the weights belong to.
        weights: Where they are stored.

    Raises:
        UnsupportedModelError: If a file is missing, is not a regular file, or is too short.
    """

    def __init__(self, graph_file: Path, weights: Iterable[StoredWeight]) -> None:
        self._weights = tuple(weights)
        self._maps: dict[str, mmap.mmap] = {}
        self._states: dict[Path, os.stat_result] = {}
        for name in sorted({weight.file for weight in self._weights}):
            path = check_location(graph_file, name) if name else graph_file
            try:
                with open_regular(path) as file:
                    self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    self._states[path] = os.fstat(file.fileno())
            except (OSError, ValueError) as err:
                raise UnsupportedModelError(f"the weights of {graph_file} in {path} cannot be read: {err}.") from err
        for weight in self._weights:
            ends = weight.offset + weight.length
            if weight.length != weight.whole_length or weight.offset < 0 or ends > len(self._maps[weight.file]):
                raise UnsupportedModelError(
                    f"the weight {weight.name!r} of {graph_file} does not fit its shape, or its file is cut short; "
                    "fetch the model again."
                )

    def arrays(self) -> dict[str, Any]:
        """Return the weights as arrays by name, which cannot be written to.

        Raises:
            UnsupportedModelError: If a file was changed in place.
        """
        for path, state in self._states.items():
            if _changed_in_place(path, state):
                raise UnsupportedModelError(f"{path} was changed after the model was loaded; load the model again.")
        return {
            weight.name: np.frombuffer(
                self._maps[weight.file],
                dtype=ARRAY_TYPES[weight.data_type],
                count=math.prod(weight.shape),
                offset=weight.offset,
            ).reshape(weight.shape)
            for weight in self._weights
        }

    def values(self) -> dict[str, Any]:
        """Return the weights as values of onnxruntime by name, without copying them; they live as long as this."""
        import onnxruntime

        make, arrays = onnxruntime.OrtValue, self.arrays()
        return {
            weight.name: make.ortvalue_from_numpy_with_onnx_type(arrays[weight.name], _BFLOAT16)
            if weight.data_type == _BFLOAT16
            else make.ortvalue_from_numpy(arrays[weight.name])
            for weight in self._weights
        }

    @contextlib.contextmanager
    def while_copied(self) -> Iterator[None]:
        """Return the memory of the mapped files to the system repeatedly while a library copies the weights.

        Otherwise they would be in memory twice in the end, as the files' pages and as the copy.
        """
        if sum(weight.length for weight in self._weights) < _WORTH_RELEASING or not hasattr(mmap, "MADV_DONTNEED"):
            yield
            return
        is_done = threading.Event()

        def release() -> None:
            while not is_done.wait(_RELEASE_SECONDS):
                self._release()

        # The library works without holding the interpreter's lock.
        releasing = threading.Thread(target=release, name="crossrerank-release", daemon=True)
        releasing.start()
        try:
            yield
        finally:
            is_done.set()
            releasing.join()
            self._release()

    def _release(self) -> None:
        for mapped in self._maps.values():
            mapped.madvise(mmap.MADV_DONTNEED)


def _changed_in_place(path: Path, state: os.stat_result) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    is_same_file = (now.st_dev, now.st_ino) == (state.st_dev, state.st_ino)
    return is_same_file and (now.st_size, now.st_mtime_ns) != (state.st_size, state.st_mtime_ns)
