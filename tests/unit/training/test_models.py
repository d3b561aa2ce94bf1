"""Models that can be trained: what is loaded, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank import load_cross_encoder  # noqa: E402
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder  # noqa: E402
from langchain_crossrerank.cross_encoders.model_files import ModelSource  # noqa: E402
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError  # noqa: E402
from langchain_crossrerank.training.loading import load_trainable  # noqa: E402
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


def write_json(file: Path, **values: Any) -> None:
    """Set values of a JSON file, which may be new; `None` removes one."""
    file.parent.mkdir(exist_ok=True)
    said = {**(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}), **values}
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"intermediate_size": None}, "config.json does not say intermediate_size; fetch or export"),
        ({"hidden_size": "32"}, "config.json says hidden_size='32', which is not possible"),
        ({"vocab_size": 100}, "do not fit together .*size mismatch for words.weight"),
        ({"num_attention_heads": 5}, "do not fit together .hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"num_hidden_layers": 3}, "do not fit together .there is no 'encoder.layer.2"),
        ({"hidden_act": "relu"}, "has hidden_act='relu', and a model can only be warm-started from 'gelu'"),
        ({"layer_norm_eps": 1e-5}, "has layer_norm_eps=1e-05, and a model can only be"),
        ({"position_embedding_type": "relative_key"}, "has position_embedding_type='relative_key'"),
    ],
)
def test_a_bi_encoder_of_another_shape_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    """A config that does not fit the weights, or asks for what is not computed, is an error that names the value."""
    folder = save_bi_encoder(tmp_path / "model")
    write_json(folder / "config.json", **values)
    with pytest.raises(UnsupportedModelError, match=message):
        load_trainable(folder)


def test_a_bi_encoder_with_other_pooling_is_refused(tmp_path: Path) -> None:
    """Vectors are compared as means of the tokens' states; a first token or a layer behind them is not left out."""
    folder = save_bi_encoder(tmp_path / "model")
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    entries = [{"idx": idx, "name": str(idx), **module} for idx, module in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    write_json(folder / "1_Pooling" / "config.json", pooling_mode="mean")
    assert load_trainable(folder).max_length == 128
    write_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    with pytest.raises(UnsupportedModelError, match="has pooling='cls', and a model can only be warm-started from"):
        load_trainable(folder)


def test_a_damaged_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    """What the libraries raise for a file without a tokenizer becomes an error that names the folder."""
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=re.escape(str(folder))):
        load_trainable(folder)


def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path) -> None:
    """Tokens that the network does not have are an error before training begins."""
    folder = save_bi_encoder(tmp_path / "model")
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 10**6, "content": "[NEW]"})
    tokenizer["model"]["vocab"]["[NEW]"] = 10**6
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"has \d+ tokens, and '\[NEW\]' is none of them"):
        load_trainable(folder)


def test_letters_are_read_as_the_tokenizer_config_says(tmp_path: Path) -> None:
    """A cased bi-encoder stays cased, as in transformers, although its tokenizer.json lowers letters."""
    folder = save_bi_encoder(tmp_path / "model")
    write_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False)
    assert "[UNK]" in load_trainable(folder).tokenizer.encode("HERON").tokens


def test_the_bundled_model_can_be_trained_further() -> None:
    """Its weights are unpacked: as a network in torch it has the logits that its graph has."""
    model = load_trainable("bundled")
    model.network.eval()
    pairs = [("when does the ferry leave", "The ferry leaves at nine."), ("stork", "A ferry crosses."), ("a", "")]
    expected = load_cross_encoder("bundled", activation="identity").score(pairs)
    with torch.inference_mode():
        assert model.all_logits(pairs).tolist() == pytest.approx(expected, abs=1e-4)


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
