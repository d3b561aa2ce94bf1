"""Models that can be trained: what is loaded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder  # noqa: E402
from langchain_crossrerank.cross_encoders.model_files import ModelSource  # noqa: E402
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError  # noqa: E402
from langchain_crossrerank.training.models import load_trainable  # noqa: E402
from tests.conftest import make_tiny_model  # noqa: E402
from tests.unit.training.tiny_runs import save_bi_encoder  # noqa: E402


def test_rescaling_changes_every_logit_the_same_way(base: Path) -> None:
    """After `rescale(2, 1)`, each logit is twice what it was, plus one."""
    model = load_trainable(base, max_length=48)
    model.network.eval()
    pairs = [("when the heron eats", "The heron eats in the morning."), ("stork", "A ferry crosses."), ("a", "")]
    with torch.inference_mode():
        before = model.logits(pairs)
        model.rescale(2.0, 1.0)
        assert torch.allclose(model.logits(pairs), 2 * before + 1, atol=1e-4)


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    """A causal model, damaged or missing weights, a missing folder and a tiny `max_length` are errors that say so."""
    folder = save_bi_encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(UnsupportedModelError, match=r"GPT2LMHeadModel.*cannot be trained here"):
        load_trainable(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UnsupportedModelError, match="cannot read"):
        load_trainable(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no model.safetensors"):
        load_trainable(folder)
    with pytest.raises(ModelNotFoundError):
        load_trainable(tmp_path / "missing")
    with pytest.raises(InvalidInputError, match="max_length is 2"):
        load_trainable(folder, max_length=2)


def test_a_head_of_several_labels_is_refused(tmp_path: Path) -> None:
    """A classifier with several labels cannot be trained to rank."""
    with pytest.raises(UnsupportedModelError, match="has 2 labels"):
        load_trainable(make_tiny_model(tmp_path / "two", num_labels=2))


def test_scores_do_not_change_with_the_batch(bi_encoder_folder: Path) -> None:
    """A pair has the same score alone and in a batch with longer pairs; empty texts have scores, too."""
    model = load_trainable(bi_encoder_folder, max_length=64)
    with torch.no_grad():
        for value in model.network.reading.parameters():
            value.normal_(std=0.1)
        model.network.pointer.weight.normal_()
    model.network.eval()
    pairs = [("heron", "The heron eats."), ("", "text"), ("heron", ""), ("stork", "long " * 80)]
    with torch.inference_mode():
        together = model.logits(pairs).tolist()
        assert together == pytest.approx([model.logits([pair]).item() for pair in pairs], abs=1e-4)
        assert model.all_logits(pairs, max_batch_tokens=8).tolist() == pytest.approx(together, abs=1e-4)


def test_a_model_of_few_tokens_is_exported_in_silence(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The pairs on which graph and torch are compared may be cut, and nobody is warned of them."""
    load_trainable(base, max_length=8).export(tmp_path)
    assert (tmp_path / "model.onnx").is_file()
    assert caplog.records == []


def test_long_queries_are_cut_as_at_inference(base: Path, tmp_path: Path) -> None:
    """Half of `max_length` is left to the passage, in training as in the exported cross-encoder."""
    model = load_trainable(base, max_length=48)
    model.network.eval()
    query = " ".join(f"heron {number}" for number in range(200))
    pairs = [(query, "The heron eats in the morning. " * 20), (query, "A ferry crosses."), (query[:200], "heron " * 60)]
    folder = tmp_path / "exported"
    folder.mkdir()
    model.export(folder)
    exported = OnnxCrossEncoder(ModelSource(str(folder), folder), activation="identity", max_length=48)
    with torch.inference_mode():
        assert model.all_logits(pairs).tolist() == pytest.approx(exported.score(pairs), abs=1e-3)
