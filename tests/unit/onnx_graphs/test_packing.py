"""Weights in fewer bits: how close they stay, and what they take on disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.onnx_graphs import packing
from langchain_crossrerank.onnx_graphs.cache import own_graph
from langchain_crossrerank.onnx_graphs.sessions import open_session

PAIRS = [
    ("What is LoRA?", "LoRA trains two small matrices beside each frozen weight matrix."),
    ("What is LoRA?", "The ferry to the island leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 40),
]


@pytest.fixture(params=[16, 8])
def packed(request: pytest.FixtureRequest, tiny_onnx_folder: Path, tmp_path: Path) -> Path:
    """The exported folder with its graph in fewer bits."""
    folder = tmp_path / "packed"
    shutil.copytree(tiny_onnx_folder, folder)
    packing.pack_weights(tiny_onnx_folder / "model.onnx", folder / "model.onnx", matrix_bits=request.param)
    return folder


def arrays(graph: Path) -> dict[str, Any]:
    """Read the weights of a graph by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(graph)).graph.initializer}


def test_packed_weights_keep_scores_close(packed: Path, tiny_onnx_folder: Path) -> None:
    """A graph packed in sixteen or eight bits returns probabilities within 0.02, the bundled model's tolerance."""
    exact, stored = (
        OnnxCrossEncoder(ModelSource(folder.name, folder), activation="sigmoid").score(PAIRS)
        for folder in (tiny_onnx_folder, packed)
    )
    assert stored == pytest.approx(exact, abs=0.02)
    assert stored != exact
    assert all(math.isfinite(score) for score in stored)


def test_packed_weights_can_be_unpacked(packed: Path, tiny_onnx_folder: Path) -> None:
    """Every matrix and table comes back in its own shape, as near to what it was as eight bits allow."""
    original, stored = arrays(tiny_onnx_folder / "model.onnx"), arrays(packed / "model.onnx")
    weights = {name: array for name, array in original.items() if array.ndim == 2 and array.dtype == np.float32}
    assert weights
    for name, array in weights.items():
        unpacked = packing.unpack_weight(stored, name)
        assert unpacked.shape == array.shape
        assert np.abs(unpacked - array).max() <= np.abs(array).max() / 127
    assert packing.unpack_weight(stored, "no weight") is None


def test_packed_weights_take_less_space(packed: Path, tiny_onnx_folder: Path) -> None:
    """Packing shrinks the file to less than a third, for most weights are embeddings, and leaves the original alone."""
    before = (tiny_onnx_folder / "model.onnx").stat().st_size
    assert (packed / "model.onnx").stat().st_size < before / 3
    assert onnx.load(str(tiny_onnx_folder / "model.onnx")).graph.initializer


def test_fewer_bits_take_less_space(tiny_onnx_folder: Path, tmp_path: Path) -> None:
    """Matrices in eight bits take less space than in sixteen."""
    sizes = []
    for bits in (16, 8):
        packing.pack_weights(tiny_onnx_folder / "model.onnx", tmp_path / f"{bits}.onnx", matrix_bits=bits)
        sizes.append((tmp_path / f"{bits}.onnx").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("bits", [4, 32])
def test_other_numbers_of_bits_are_refused(tiny_onnx_folder: Path, tmp_path: Path, bits: Any) -> None:
    """Only the two packings that exist can be asked for."""
    with pytest.raises(InvalidInputError, match="matrix_bits"):
        packing.pack_weights(tiny_onnx_folder / "model.onnx", tmp_path / "packed.onnx", matrix_bits=bits)


def test_rounded_weights_are_packed_without_loss(tmp_path: Path) -> None:
    """A table and a linear layer that were rounded before give the same numbers in eight bits as in thirty-two."""
    draw = np.random.default_rng(0)
    table, layer = (draw.normal(size=shape).astype(np.float32) for shape in ((50, 64), (96, 64)))
    for weight in (table, layer):
        assert not np.array_equal(packing.rounded(weight), weight)
        assert np.abs(packing.rounded(weight) - weight).max() < np.abs(weight).max() / 100
    table, layer = packing.rounded(table), packing.rounded(layer)
    helper, numbers = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "layer"], ["out"]),
        ],
        "rounded",
        [helper.make_tensor_value_info("ids", numbers.INT64, ["n", "m"])],
        [helper.make_tensor_value_info("out", numbers.FLOAT, ["n", "m", 96])],
        # torch keeps a linear layer's weight the other way round.
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(layer.T.copy(), "layer")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "a.onnx")
    packing.pack_weights(tmp_path / "a.onnx", tmp_path / "b.onnx", matrix_bits=8)
    ids = np.arange(50, dtype=np.int64).reshape(5, 10)
    results = []
    for file in (tmp_path / "a.onnx", tmp_path / "b.onnx"):
        session = open_session(own_graph(file).graph)
        results.append(session.run(None, {"ids": ids})[0])
    assert np.array_equal(*results)
    assert (tmp_path / "b.onnx").stat().st_size < (tmp_path / "a.onnx").stat().st_size / 2


def test_a_packed_graph_is_known_by_its_form(tiny_onnx_folder: Path, tmp_path: Path) -> None:
    """Matrices packed in eight bits are unpacked at load, whatever the file says of itself; others are left alone."""
    found = {}
    for bits in (16, 8):
        file = tmp_path / f"{bits}.onnx"
        packing.pack_weights(tiny_onnx_folder / "model.onnx", file, matrix_bits=bits)
        model = onnx.load(str(file))
        model.producer_name = "another"
        onnx.save(model, str(file))
        found[bits] = own_graph(file).graph.unpack
    assert found == {16: False, 8: True}
