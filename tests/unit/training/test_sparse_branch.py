"""The learned sparse branch of a cross-encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")
transformers = pytest.importorskip("transformers", reason="needs the training extra")

from langchain_crossrerank import load_cross_encoder  # noqa: E402
from langchain_crossrerank.onnx_graphs.packing import pack_weights  # noqa: E402
from langchain_crossrerank.training.loading import load_trainable  # noqa: E402
from langchain_crossrerank.training.models import WarmStartModel  # noqa: E402
from langchain_crossrerank.training.sparse_branch import SparseBranchConfig, splade_weights  # noqa: E402
from langchain_crossrerank.training.warm_start import WarmStartCrossEncoder  # noqa: E402

TERMS = 12
PAIRS = [
    ("when the heron eats", "The heron eats in the morning."),
    ("when the heron eats", "A ferry crosses. " * 5),
    ("ferry", "The ferry leaves at nine."),
]


@pytest.fixture
def splade(bi_encoder_folder: Path) -> Any:
    """A masked language model with random weights and the vocabulary of the bi-encoder."""
    torch.manual_seed(3)
    known = transformers.AutoConfig.from_pretrained(bi_encoder_folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes = {"vocab_size": known.vocab_size, "max_position_embeddings": known.max_position_embeddings}
    config = transformers.BertConfig(**sizes, **shape, initializer_range=0.5)
    return transformers.BertForMaskedLM(config).eval()


@pytest.fixture
def model(bi_encoder_folder: Path, splade: Any) -> WarmStartModel:
    """A warm-started model with that encoder as its branch, and nothing else in its score."""
    base = load_trainable(bi_encoder_folder, max_length=48)
    assert isinstance(base, WarmStartModel)
    shape = SparseBranchConfig(hidden_size=32, intermediate_size=64, terms=TERMS, weight=1.5)
    network = WarmStartCrossEncoder(dataclasses.replace(base.network.config, sparse=shape))
    branch = {f"sparse.{name}": value for name, value in splade_weights(splade.state_dict(), 2).items()}
    weights = {**base.network.state_dict(), **branch, "sparse.weight": torch.tensor(1.5)}
    network.load_state_dict(weights)
    with torch.no_grad():
        for value in (network.scale, network.bias, network.matching.weight):
            value.zero_()
    return WarmStartModel(network.eval(), base.tokenizer, max_length=48)


def splade_vector(splade: Any, ids: list[int]) -> Any:
    """A text's vector by the definition: a maximum over tokens for every word of the vocabulary."""
    with torch.inference_mode():
        logits = splade(input_ids=torch.tensor([ids])).logits[0]
    return torch.log1p(torch.relu(logits)).amax(0)


def expected_scores(model: WarmStartModel, splade: Any) -> list[float]:
    """Each pair's score by the definition, with the whole vocabulary."""
    scores = []
    for pair in PAIRS:
        (entry,) = model.tokenizer.encode_batch([pair])
        split = entry.type_ids.index(1)
        query, passage = (splade_vector(splade, ids) for ids in (entry.ids[:split], entry.ids[split:]))
        strongest = torch.topk(query, TERMS)
        scores.append(float(1.5 * (strongest.values @ passage[strongest.indices]) / strongest.values.norm()))
    return scores


def test_the_branch_scores_as_splade_does(model: WarmStartModel, splade: Any) -> None:
    """In a batch of several queries, a pair gets SPLADE's dot product over the norm of the query's strongest terms."""
    with torch.inference_mode():
        found = model.logits(PAIRS).tolist()
    assert found == pytest.approx(expected_scores(model, splade), rel=1e-4)


def test_calibration_rescales_the_branch(model: WarmStartModel) -> None:
    """Rescaling changes the whole logit, the branch's part included."""
    with torch.inference_mode():
        before = model.logits(PAIRS)
        model.rescale(0.5, -1.0)
        after = model.logits(PAIRS)
    assert torch.allclose(after, 0.5 * before - 1.0, atol=1e-5)


def test_the_branch_is_trained_and_stays_in_the_folder(model: WarmStartModel, tmp_path: Path) -> None:
    """The branch's weights are among those that are trained, and an exported folder is read with them."""
    trained = {id(value) for group in model.parameter_groups(1e-3) for value in group["params"]}
    assert model.network.sparse is not None
    assert {id(value) for value in model.network.sparse.parameters()} <= trained
    model.export(tmp_path)
    again = load_trainable(tmp_path, max_length=48)
    with torch.inference_mode():
        assert torch.allclose(again.logits(PAIRS), model.logits(PAIRS), atol=1e-5)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_packed_graph_stores_its_vocabulary_once(
    model: WarmStartModel, splade: Any, backend: Any, tmp_path: Path
) -> None:
    """The table that is looked up and multiplied is packed once, and every backend scores it as torch does."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the openvino extra")
    whole, packed = tmp_path / "whole", tmp_path / "packed"
    for folder in (whole, packed):
        folder.mkdir()
    model.export(whole)
    for file in ("config.json", "tokenizer.json"):
        (packed / file).write_bytes((whole / file).read_bytes())
    pack_weights(whole / "model.onnx", packed / "model.onnx", matrix_bits=8)
    table = model.network.config.vocab_size * 32
    saved = (whole / "model.onnx").stat().st_size - (packed / "model.onnx").stat().st_size
    # Four bytes become one and a sixteenth, in the bi-encoder's table as well.
    assert saved > 1.8 * table * (4 - 17 / 16)
    found = load_cross_encoder(packed, backend=backend, activation="identity").score(PAIRS)
    assert found == pytest.approx(expected_scores(model, splade), rel=0.05)
