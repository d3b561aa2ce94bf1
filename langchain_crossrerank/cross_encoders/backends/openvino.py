"""The OpenVINO backend: the same graphs and tokens as the onnx backend, compiled by OpenVINO for Intel and AMD CPUs."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from langchain_crossrerank._machine import cached_file
from langchain_crossrerank._process import PerProcess
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.onnx_graphs.cache import PreparedGraph
from langchain_crossrerank.onnx_graphs.sessions import Graph


class OpenVinoCrossEncoder(OnnxCrossEncoder):
    """A cross-encoder computed by OpenVINO on the CPU.

    Its arguments are those of `OnnxCrossEncoder`, with other precisions: `"fp32"` is exact, `"bf16"` needs a processor
    with instructions for it and changes scores slightly, and `"auto"` is bf16 if there are such instructions.

    Raises:
        InvalidInputError: If the processor cannot compute in this precision.
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded or its head does not have one or two outputs.
    """

    backend = "openvino"

    @cached_property
    def _core(self) -> PerProcess[Any]:
        return PerProcess(openvino.Core)

    @cached_property
    def _computes_in_bf16(self) -> bool:
        asked = self._settings["precision"]
        able = "BF16" in self._core.get().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if asked == "bf16" and not able:
            raise InvalidInputError('precision is "bf16", which this processor has no instructions for; use "fp32".')
        return able and asked != "fp32"

    def _choose_device(self, device: str | None) -> str:
        return device or "cpu"

    def _choose_precision(self) -> None:
        """Do nothing: the processor's instructions have decided."""

    def _prepare_graph(self, precision: str) -> PreparedGraph:  # noqa: ARG002 - the graph is the same for both
        found = super()._prepare_graph("fp32")
        # OpenVINO reads the weights itself.
        graph = replace(found.graph, files=None)
        return replace(found, graph=graph, precision="bf16" if self._computes_in_bf16 else "fp32")

    def open_graph(self, graph: Graph, *, spin: bool = True) -> Any:  # noqa: ARG002
        """Compile a graph with this model's threads and precision."""
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._computes_in_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # By default activations that meet packed weights are rounded to eight bits, group by group.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        if self._num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(self._num_threads)
        core = self._core.get()
        # A file that is mapped into memory could change under a loaded model.
        core.set_property({"ENABLE_MMAP": False})
        if isinstance(graph.model, Path) or not graph.weights:
            return _Session(core.compile_model(core.read_model(graph.model), "CPU", settings))
        with _working_folder() as folder:
            for number, file in enumerate(graph.file_names):
                source = self.onnx_file.parent / file if file else self.onnx_file
                _provide(source.resolve(), folder / f"weights-{number}")
            (folder / "model.onnx").write_bytes(graph.model)
            return _Session(core.compile_model(core.read_model(folder / "model.onnx"), "CPU", settings))


@dataclass(frozen=True)
class _Tensor:
    """An input's or output's name, type and axes, `None` for one that varies, as onnxruntime describes them."""

    name: str
    type: str
    shape: list[int | None]


class _Session:
    """A compiled model behind the methods of onnxruntime's sessions."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def get_inputs(self) -> list[_Tensor]:
        return [_described(port) for port in self._compiled.inputs]

    def get_outputs(self) -> list[_Tensor]:
        return [_described(port) for port in self._compiled.outputs]

    def run(self, names: Sequence[str], inputs: Mapping[str, Any], _: object = None) -> list[Any]:
        found = self._request.infer(dict(inputs))
        # The request's own memory is used again by the next call.
        return [np.array(found[name]) for name in names]


_TYPE_NAMES = {"i64": "tensor(int64)", "i32": "tensor(int32)", "f32": "tensor(float)"}


def _described(port: Any) -> _Tensor:
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    return _Tensor(port.get_any_name(), _TYPE_NAMES.get(kind, kind), shape)


@contextlib.contextmanager
def _working_folder() -> Iterator[Path]:
    """Make a folder for a moment, if possible where the user's files are, so that they need not be copied into it."""
    place: Path | None = None
    with contextlib.suppress(OSError):
        place = cached_file("openvino").parent
        place.mkdir(parents=True, exist_ok=True)
    if place is None or not place.is_dir() or not os.access(place, os.W_OK):
        place = None
    with tempfile.TemporaryDirectory(dir=place, prefix=".openvino-") as folder:
        yield Path(folder)


def _provide(file: Path, target: Path) -> None:
    """Make a file available in another folder, without copying it if both are on one disk."""
    # OpenVINO reads no weights outside the graph's folder, and follows symbolic links to find out.
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
