"""The onnx backend: graphs as they are published, and the memory that long pairs take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.cross_encoders.backends.onnx import ATTENTION_BYTES, OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError

PAIRS = [
    ("what is lora", "low-rank adaptation of large models"),
    ("what is lora", "the weather"),
    ("a longer question than the others", "and " * 40),
]
WORDS = 30522

MakeFolder = Callable[..., Path]


def graph(
    *,
    inputs: dict[str, int],
    shape: tuple[Any, Any] = ("batch", "tokens"),
    outputs: int = 1,
    output_shape: tuple[int, ...] | None = None,
) -> onnx.ModelProto:
    """A graph whose logits are sums over what each input says of each token that the mask does not hide."""
    random = np.random.default_rng(0)
    tensors = {
        "table": random.normal(size=(WORDS, 4)).astype(np.float32),
        "head": random.normal(size=(4, outputs)).astype(np.float32),
        "last": np.array([2]),
        "middle": np.array([1]),
    }
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows0"])]
    names = [name for name in inputs if name not in ("input_ids", "attention_mask")]
    for number, name in enumerate(names):
        nodes += [
            helper.make_node("Cast", [name], [f"{name} float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name} float", "last"], [f"{name} wide"]),
            helper.make_node("Add", [f"rows{number}", f"{name} wide"], [f"rows{number + 1}"]),
        ]
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask float", "middle"], ["mask row"]),
        helper.make_node("MatMul", ["mask row", f"rows{len(names)}"], ["sums"]),
        helper.make_node("Squeeze", ["sums", "middle"], ["sum"]),
        helper.make_node("MatMul", ["sum", "head"], ["logits" if output_shape is None else "flat"]),
    ]
    if output_shape is not None:
        tensors["output shape"] = np.array(output_shape)
        nodes.append(helper.make_node("Reshape", ["flat", "output shape"], ["logits"]))
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


INT64 = dict.fromkeys(("input_ids", "attention_mask"), TensorProto.INT64)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write a model folder with a graph, the bundled tokenizer, and settings."""

    def make(model: onnx.ModelProto, name: str = "model", tokenizer: Any = None, **config: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        onnx.save(model, str(folder / "model.onnx"))
        (folder / "tokenizer.json").write_bytes((BUNDLED_FOLDER / "tokenizer.json").read_bytes())
        (folder / "config.json").write_text(json.dumps({"num_labels": 1, **config}), encoding="utf-8")
        if tokenizer is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        return folder

    return make


def load(folder: Path, **settings: Any) -> OnnxCrossEncoder:
    """Load a folder's logits, whatever this process has loaded already."""
    return OnnxCrossEncoder(ModelSource("tiny", folder), **{"activation": "identity", "max_length": 64, **settings})


@pytest.fixture
def expected(make_folder: MakeFolder) -> Any:
    """The scores of the plain graph."""
    scores = load(make_folder(graph(inputs=INT64), "plain")).score(PAIRS)
    assert len(set(scores)) == len(PAIRS)
    return pytest.approx(scores, abs=1e-4)


def test_inputs_are_given_in_the_type_that_the_graph_has(make_folder: MakeFolder, expected: Any) -> None:
    """A graph with int32 inputs scores as one with int64 inputs."""
    assert load(make_folder(graph(inputs=dict.fromkeys(INT64, TensorProto.INT32)))).score(PAIRS) == expected


@pytest.mark.parametrize("shape", [(1, 64), (2, 64), (5, "tokens"), ("batch", 64)], ids=str)
def test_fixed_shapes_are_filled_up(make_folder: MakeFolder, expected: Any, shape: tuple[Any, Any]) -> None:
    """A graph with a fixed number of pairs or tokens gets that many, and returns the same scores."""
    assert load(make_folder(graph(inputs=INT64, shape=shape)), max_batch_tokens=10_000).score(PAIRS) == expected


def test_a_fixed_length_is_the_limit(make_folder: MakeFolder) -> None:
    """A graph for sixteen tokens reads sixteen, whatever the config says."""
    model = load(make_folder(graph(inputs=INT64, shape=("batch", 16))))
    assert model.max_length == 16
    assert [item.truncated for item in model._encode(PAIRS)] == [False, False, True]


@pytest.mark.parametrize("shape", [(-1,), (-1, 1, 1)], ids=str)
def test_logits_of_any_usual_shape_are_read(make_folder: MakeFolder, expected: Any, shape: tuple[int, ...]) -> None:
    """One number for each pair is a logit with or without axes of length 1."""
    assert load(make_folder(graph(inputs=INT64, output_shape=shape))).score(PAIRS) == expected


def graph_reading(place: int) -> onnx.ModelProto:
    """A graph whose logits are what a table says of one token: the first (0) or the last (-1)."""
    random = np.random.default_rng(0)
    tensors = {
        "table": random.normal(size=(WORDS, 4)).astype(np.float32),
        "head": random.normal(size=(4, 1)).astype(np.float32),
        "place": np.array(place),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Gather", ["rows", "place"], ["row"], axis=1),
        helper.make_node("MatMul", ["row", "head"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, ("batch", "tokens")) for name, kind in INT64.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("place", "side"), [(0, "left"), (-1, "left"), (0, "right")])
def test_padding_moves_no_score(make_folder: MakeFolder, place: int, side: str) -> None:
    """Padding goes to the side that the tokenizer's config names, unless the graph would then read padding."""
    folder = make_folder(graph_reading(place), tokenizer={"padding_side": side}, pad_token_id=7)
    model = load(folder, max_batch_tokens=10_000)
    alone = [model.score([pair])[0] for pair in PAIRS]
    assert model.score(PAIRS) == pytest.approx(alone, abs=1e-6)


def test_weights_in_a_pickle_are_named_without_torch(make_folder: MakeFolder) -> None:
    """A folder with pickled weights alone says so, and does not advise to install torch, which would not read them."""
    folder = make_folder(graph(inputs=INT64))
    (folder / "model.onnx").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(ModelNotFoundError, match=r"^the weights of 'tiny' are a pickle \(pytorch_model\.bin\)"):
        load(folder)


def positions_given(folder: Path) -> Any:
    """The `position_ids` of two pairs, of which the second is shorter."""
    model = load(folder)
    batch = model._encode([("a b c", "d e"), ("a", "b")])
    return model.features(batch)["position_ids"].tolist()


def test_positions_are_given_where_a_graph_wants_them(make_folder: MakeFolder, expected: Any) -> None:
    """`position_ids` count the tokens from 0, or for RoBERTa's kin from behind the padding id."""
    inputs = {**INT64, "position_ids": TensorProto.INT64}
    assert load(make_folder(graph(inputs=inputs), "bert", model_type="bert")).score(PAIRS) != expected
    plain = positions_given(make_folder(graph(inputs=inputs), "plain-bert", model_type="bert"))
    shifted = positions_given(make_folder(graph(inputs=inputs), "roberta", model_type="roberta", pad_token_id=1))
    assert plain[0] == list(range(len(plain[0])))
    assert shifted[0] == [place + 2 for place in plain[0]]
    assert shifted[1][-1] == 1


def test_segments_are_zero_if_the_tokenizer_sends_none(make_folder: MakeFolder, expected: Any) -> None:
    """A graph that wants segment ids gets zeros if the tokenizer's config leaves them out, otherwise the segments."""
    model = graph(inputs={**INT64, "token_type_ids": TensorProto.INT64})
    silent = make_folder(model, "silent", tokenizer={"model_input_names": ["input_ids", "attention_mask"]})
    assert load(silent).score(PAIRS) == expected
    assert load(make_folder(model, "sending")).score(PAIRS) != expected


@pytest.mark.parametrize("names", [{"label2id": {}}, {"id2label": {"0": "irrelevant", "1": "relevant"}}], ids=str)
def test_the_second_label_is_relevant_by_default(make_folder: MakeFolder, names: dict[str, Any]) -> None:
    """Of two labels the one that is called relevant counts, otherwise the second."""
    model = graph(inputs=INT64, outputs=2)
    usual = load(make_folder(model, "usual", num_labels=2, **names)).score(PAIRS)
    turned = load(make_folder(model, "turned", num_labels=2, id2label={"0": "relevant", "1": "not relevant"}))
    assert turned.score(PAIRS) == pytest.approx([-score for score in usual], abs=1e-4)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({**INT64, "bbox": TensorProto.INT64}, "bbox"),
        (dict.fromkeys(INT64, TensorProto.DOUBLE), "input_ids"),
    ],
    ids=str,
)
def test_other_inputs_are_refused_when_the_model_is_loaded(
    make_folder: MakeFolder, inputs: dict[str, int], named: str
) -> None:
    """An input that cannot be made from two texts is named before any score is given."""
    model = graph(inputs=inputs)
    if named == "input_ids":
        model.graph.node.insert(0, helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.INT64))
        model.graph.node[1].input[1] = "ids"
    with pytest.raises(UnsupportedModelError, match=named):
        load(make_folder(model))


def test_ids_beyond_the_vocabulary_are_refused(make_folder: MakeFolder) -> None:
    """A tokenizer that belongs to other weights is named, instead of an error from inside the graph."""
    model = load(make_folder(graph(inputs=INT64), vocab_size=1000))
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json belongs to other weights"):
        model.score(PAIRS)


def test_the_default_length_is_limited_by_memory(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    """A model for very long texts reads by default what its attention has memory for, and a warning says so."""
    tokenizer = {"model_max_length": 8192}
    folder = make_folder(graph(inputs=INT64), tokenizer=tokenizer, max_position_embeddings=8192, num_attention_heads=16)
    model = load(folder, max_length=None)
    attention = 2 * 4 * 16 * model.max_length**2
    assert 1024 <= model.max_length < 8192
    assert attention <= ATTENTION_BYTES < 2 * attention
    assert "max_length=8192" in caplog.text
    caplog.clear()
    assert load(folder, max_length=8192).max_length == 8192
    assert "max_length" not in caplog.text


def test_the_graph_and_the_device_are_shown(make_folder: MakeFolder) -> None:
    """`repr` says which graph runs, and where."""
    assert "graph='model.onnx', precision='fp32', device='cpu'" in repr(load(make_folder(graph(inputs=INT64))))
