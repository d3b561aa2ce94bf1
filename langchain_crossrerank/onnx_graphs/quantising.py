"""Graphs whose matrix products run in eight bits."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from langchain_crossrerank.errors import GraphRewriteError
from langchain_crossrerank.onnx_graphs.packing import is_packed
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import Structure, whole_model


def quantise(structure: Structure, files: WeightFiles) -> bytes:
    """Return a graph whose matrix products run in eight bits: weights by column in seven, activations as they come.

    The whole graph is held in memory, several times over.

    Args:
        structure: A graph in fp32.
        files: The files of its weights.

    Raises:
        GraphRewriteError: If onnxruntime's quantiser cannot do it.
        OSError: If the disk is full.
        MemoryError: If there is not enough memory.
    """
    model = _folded(whole_model(structure, files))
    # Without these marks the quantiser asks for preparation of another kind, by way of the root logger.
    for mark in ("onnx.infer", "onnx.quant.pre_process"):
        model.metadata_props.add(key=mark, value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "int8.onnx"
        try:
            # Processors without VNNI add pairs of products in sixteen bits, which overflow if weights use all eight.
            quantize_dynamic(
                model,
                made,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
        except (OSError, MemoryError):
            raise
        except Exception as err:  # the quantiser raises whatever onnx and onnxruntime raise
            raise GraphRewriteError(f"it cannot be quantised ({type(err).__name__}: {err})") from err
        return made.read_bytes()


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, so that weights stored in fewer bits come out in fp32."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        open_session(Graph(model.SerializeToString(), unpack=is_packed(model)), options)
        return onnx.load(options.optimized_model_filepath)
