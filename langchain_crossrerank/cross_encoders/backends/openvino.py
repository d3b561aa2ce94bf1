"""The OpenVINO backend: the same graphs and tokens as onnxruntime's, compiled by OpenVINO for Intel and AMD CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.onnx_graphs.cache import PreparedGraph


class OpenVinoCrossEncoder(OnnxCrossEncoder):
    """A cross-encoder computed by OpenVINO on the CPU.

    Args:
        source: Where the model's files are; it needs an ONNX graph.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Tokens of a pair that are read, at most what the model allows; `None` for that most.
        max_batch_tokens: The most tokens, padding included, in one forward pass; `None` for what was measured to be
            fastest on this machine, or 512 before anything was measured.
        num_threads: Threads of one forward pass; `None` for the physical cores that this process may use.
        precision: `"fp32"` is exact, `"bf16"` needs a processor with instructions for it and moves scores a little;
            `"auto"` is bf16 where there are such instructions.

    Raises:
        InvalidInputError: If the processor cannot compute in this precision.
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded or its head is not one or two logits.
    """

    backend = "openvino"

    def __init__(
        self,
        source: ModelSource,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
    ) -> None:
        self._core = openvino.Core()
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not able:
            raise InvalidInputError('precision is "bf16", for which this processor has no instructions; use "fp32".')
        self._hint = "bf16" if able and precision != "fp32" else "f32"
        super().__init__(
            source,
            activation=activation,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            num_threads=num_threads,
        )
        self._asked = {"max_batch_tokens": max_batch_tokens, "num_threads": num_threads, "precision": precision}

    def _prepare_graph(self, precision: str) -> PreparedGraph:
        graph = super()._prepare_graph(precision)
        return replace(graph, precision="bf16" if self._hint == "bf16" else "fp32")

    @property
    def fingerprint(self) -> str:
        """The weights' content hash with everything else that decides a score."""
        return f"openvino-{super().fingerprint}"

    def open_graph(self, model: Path | bytes) -> Any:
        """Compile a graph with this model's threads and precision."""
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "PERFORMANCE_HINT": "LATENCY",
            # By default activations that meet packed weights are rounded to eight bits, group by group.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        if self._num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(self._num_threads)
        return _Session(self._core.compile_model(self._core.read_model(model), "CPU", settings))


@dataclass(frozen=True)
class _Tensor:
    """An input's or output's name and axes, `None` for one that varies, as onnxruntime gives them."""

    name: str
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

    def run(self, names: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        found = self._request.infer(dict(inputs))
        # The request's own memory is used again by the next call.
        return [np.array(found[name]) for name in names]


def _described(port: Any) -> _Tensor:
    return _Tensor(port.get_any_name(), [d.get_length() if d.is_static else None for d in port.get_partial_shape()])
