"""Graphs in eight bits: close to the original, and quiet about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.onnx_graphs.quantising import quantise
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import read_structure


@pytest.fixture(params=[np.float32, np.float16])
def graph_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A graph that multiplies its input by a matrix, which is stored in fp32 or fp16."""
    weight = np.random.default_rng(0).normal(size=(128, 128)).astype(request.param)
    made = helper.make_graph(
        [
            helper.make_node("Cast", ["weight"], ["exact"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["rows", "exact"], ["out"]),
        ],
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 128])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 128])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def test_a_quantised_graph_is_close_and_quiet(graph_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Products in eight bits are about those in fp32, and the quantiser's advice stays out of the root logger."""
    structure = read_structure(graph_file)
    assert structure.weights
    made = quantise(structure, WeightFiles(graph_file, structure.weights))
    assert [record for record in caplog.records if record.name == "root"] == []
    assert "MatMulInteger" in {node.op_type for node in onnx.load_from_string(made).graph.node}
    rows = np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)
    exact, rough = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"rows": rows})[0]
        for model in (graph_file, made)
    )
    assert rough == pytest.approx(exact, abs=1.0)
    assert not np.array_equal(rough, exact)
