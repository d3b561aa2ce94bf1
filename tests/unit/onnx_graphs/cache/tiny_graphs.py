"""Tiny graphs to prepare, models of them to load, and what is then in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource

PAIRS = [("what is lora", "low-rank adaptation"), ("what is lora", "the weather")]


def write_graph(path: Path, *, seed: int = 0) -> Path:
    """Write a graph that mixes what it looks up and puts out one logit, of the first token."""
    random = np.random.default_rng(seed)
    weights = {"table": (30522, 4), "square": (4, 4), "head": (4, 1)}
    made = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["all"], axes=[1], keepdims=1),
            helper.make_node("Add", ["rows", "all"], ["added"]),
            helper.make_node("MatMul", ["added", "square"], ["mixed"]),
            helper.make_node("Gather", ["mixed", "zero"], ["pooled"], axis=1),
            helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [
            *(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), n) for n, shape in weights.items()),
            numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
        ],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def load(folder: Path, **settings: Any) -> OnnxCrossEncoder:
    """Load a folder again, even if this process has loaded it already."""
    return OnnxCrossEncoder(ModelSource("tiny", folder), activation="identity", **settings)


def kept(cache: Path, ending: str = ".onnx") -> list[Path]:
    """Files in the cache, hidden ones included."""
    return sorted(file for file in cache.iterdir() if file.name.endswith(ending)) if cache.exists() else []
