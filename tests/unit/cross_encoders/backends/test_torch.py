"""The torch backend: what sentence-transformers gives, what is cut, and what is refused."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")

from langchain_crossrerank.cross_encoders.backends.torch import TorchCrossEncoder  # noqa: E402
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder  # noqa: E402
from langchain_crossrerank.cross_encoders.model_files import ModelSource  # noqa: E402
from langchain_crossrerank.cross_encoders.scheduling import drain  # noqa: E402
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder  # noqa: E402
from langchain_crossrerank.errors import (  # noqa: E402
    InvalidInputError,
    ModelNotFoundError,
    ScoringError,
    UnsupportedModelError,
)
from tests import tiny_models  # noqa: E402

PAIRS = [
    ("what is lora", "LoRA trains two small matrices."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 30),
    ("who wrote hamlet", ""),
]
LONG_PAIR = ("what is lora", "The ferry leaves at nine. " * 200)


def load(folder: Path, **settings: Any) -> TorchCrossEncoder:
    """Load a folder on the CPU, with logits as scores."""
    return TorchCrossEncoder(
        ModelSource(str(folder), folder), **{"device": "cpu", "activation": "identity", **settings}
    )


def reference(folder: Path, pairs: list[tuple[str, str]], **settings: Any) -> list[float]:
    """The logits of sentence-transformers."""
    model = sentence_transformers.CrossEncoder(str(folder), device="cpu", **settings)
    found = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return [float(row[1] - row[0]) for row in found] if found.ndim == 2 else [float(value) for value in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier."""
    return tiny_models.save_bert(tmp_path_factory.mktemp("torch") / "bert")


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLM reranker whose template has a place for an instruction."""
    return tiny_models.save_causal(
        tmp_path_factory.mktemp("torch") / "chat",
        kind="Qwen3",
        template=tiny_models.QWEN3_TEMPLATE,
        answers=("yes", "no"),
    )


def test_a_saved_default_prompt_is_used(folder: Path, tmp_path: Path) -> None:
    """A prompt that the model names as its default is put before each query, as sentence-transformers does."""
    prompts = {"search": "search the web: ", "other": "something else: "}
    saved = sentence_transformers.CrossEncoder(str(folder), prompts=prompts, default_prompt_name="search")
    saved.save_pretrained(str(tmp_path / "prompted"))
    scores = load(tmp_path / "prompted").score(PAIRS)
    assert scores == pytest.approx(reference(tmp_path / "prompted", PAIRS), abs=1e-5)
    assert scores != pytest.approx(load(folder).score(PAIRS), abs=1e-3)


def test_the_saved_head_order_is_used(tmp_path: Path) -> None:
    """Of two labels, the score is the log-odds of the one that the config calls relevant."""
    scores = []
    for name, labels in (("second", ("irrelevant", "relevant")), ("first", ("relevant", "irrelevant"))):
        folder = tiny_models.save_bert(tmp_path / name, labels=2, id2label=dict(enumerate(labels)))
        scores.append(load(folder).score(PAIRS))
    assert scores[0] == pytest.approx([-score for score in scores[1]])
    assert scores[0] == pytest.approx(reference(tmp_path / "second", PAIRS), abs=1e-5)


def test_a_tokenizer_in_python_is_used(folder: Path, tmp_path: Path) -> None:
    """A model whose tokenizer is not a fast one is scored as sentence-transformers scores it."""
    shutil.copytree(folder, tmp_path / "slow")
    (tmp_path / "slow" / "tokenizer.json").unlink()
    (tmp_path / "slow" / "tokenizer_config.json").unlink()
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz東京日本の首都"]
    (tmp_path / "vocab.txt").write_text("\n".join(letters), encoding="utf-8")
    tokenizer = transformers.BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"),
        word_tokenizer_type="basic",
        subword_tokenizer_type="character",
        model_max_length=tiny_models.MAX_LENGTH,
    )
    tokenizer.save_pretrained(tmp_path / "slow")
    pairs = [("日本の首都", "東京"), ("日本の首都", "東京" * 200), ("日本の首都", ""), ("two words", "a b c")]
    model = load(tmp_path / "slow")
    results = drain(model.score_steps(pairs))
    assert [result.score for result in results] == pytest.approx(reference(tmp_path / "slow", pairs), abs=1e-5)
    assert [result.truncated for result in results] == [False, True, False, False]
    with pytest.raises(InvalidInputError, match="windows"):
        WindowedCrossEncoder(model).score(pairs)


@pytest.mark.parametrize("save", [tiny_models.save_xlm_roberta, tiny_models.save_modernbert], ids=["table", "rotary"])
def test_tokenizers_without_a_limit_are_read_to_the_position_table(save: Callable[..., Path], tmp_path: Path) -> None:
    """A tokenizer limit of 1e30 means as many tokens as the model has positions for."""
    folder = save(tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = int(1e30)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    model = load(folder)
    assert model.max_length == tiny_models.MAX_LENGTH
    (long,) = drain(model.score_steps([LONG_PAIR]))
    assert long.truncated
    assert long.score == pytest.approx(reference(folder, [LONG_PAIR], max_length=tiny_models.MAX_LENGTH)[0], abs=1e-5)


def test_a_truncated_passage_is_flagged_and_warned_about(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A passage that does not fit is cut at its end, the score says so, and one warning is logged."""
    model = load(folder)
    with caplog.at_level(logging.WARNING, logger="langchain_crossrerank"):
        results = drain(model.score_steps([*PAIRS, LONG_PAIR]))
    assert [result.truncated for result in results] == [False, True, False, True]
    assert "2 of 4 passages were longer" in caplog.text


@pytest.mark.parametrize("max_length", [240, 400])
def test_the_end_of_a_template_is_never_cut(chat_folder: Path, max_length: int) -> None:
    """However long the passage is, the prompt keeps its end, its query and its instruction."""
    model = load(chat_folder, max_length=max_length)
    (item,) = model._encode([LONG_PAIR])
    text = model._model.tokenizer.decode(item.features["input_ids"])
    assert item.tokens == max_length
    assert item.truncated
    assert text.endswith("<think>\n\n</think>\n\n")
    assert "<Query>: what is lora\n" in text
    assert model.score([LONG_PAIR]) == pytest.approx(
        reference(chat_folder, [LONG_PAIR], max_length=max_length), abs=1e-4
    )


def test_a_query_behind_the_passage_is_kept(tmp_path: Path) -> None:
    """If the template puts the query last, the passage is cut all the same, and not the query."""
    folder = tiny_models.save_causal(
        tmp_path / "model", kind="Qwen2", template=tiny_models.PASSAGE_FIRST_TEMPLATE, answers=("1", "0")
    )
    model = load(folder, max_length=128)
    (item,) = model._encode([LONG_PAIR])
    text = model._model.tokenizer.decode(item.features["input_ids"])
    assert text.endswith("\nQuestion: what is lora\nRelevant?")
    assert item.truncated
    assert item.tokens == 128


def test_a_passage_that_is_a_link_is_a_text(chat_folder: Path) -> None:
    """A link to an image is scored as the text that it is, and never fetched."""
    link = "https://example.org/picture.png"
    model = load(chat_folder)
    (item,) = model._encode([("what is lora", link)])
    assert link in model._model.tokenizer.decode(item.features["input_ids"])


def test_the_instruction_goes_through_the_template(chat_folder: Path) -> None:
    """An instruction changes the prompt, the scores and the fingerprint as a prompt of sentence-transformers does."""
    usual, other = load(chat_folder), load(chat_folder, instruction="Find jokes")
    (item,) = other._encode([PAIRS[0]])
    assert "<Instruct>: Find jokes\n" in other._model.tokenizer.decode(item.features["input_ids"])
    plain = sentence_transformers.CrossEncoder(str(chat_folder), device="cpu")
    expected = plain.predict(PAIRS, prompt="Find jokes", activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert other.score(PAIRS) == pytest.approx([float(value) for value in expected], abs=1e-4)
    assert usual.fingerprint != other.fingerprint


def test_an_instruction_without_a_place_is_refused(folder: Path, tmp_path: Path) -> None:
    """An instruction that would be dropped is an error: for a classifier, and for a template that ignores it."""
    with pytest.raises(InvalidInputError, match=r"instruction is 'Find jokes'.*not an LLM reranker"):
        load(folder, instruction="Find jokes")
    chat = tiny_models.save_causal(
        tmp_path / "model", kind="Qwen2", template=tiny_models.MXBAI_TEMPLATE, answers=("1", "0")
    )
    with pytest.raises(InvalidInputError, match=r"instruction is 'Find jokes'.*no place for it"):
        load(chat, instruction="Find jokes")


@pytest.mark.parametrize("which", ["folder", "chat_folder"])
def test_scores_do_not_change_with_the_batch(which: str, request: pytest.FixtureRequest) -> None:
    """A pair has the same score alone and in a padded batch."""
    model = load(request.getfixturevalue(which), max_batch_tokens=4096)
    assert model.score(PAIRS) == pytest.approx([model.score([pair])[0] for pair in PAIRS], abs=1e-5)


def test_windows_through_a_template_cover_the_passage(chat_folder: Path) -> None:
    """Windows of a passage overlap, reach from its beginning to its end, and keep the whole prompt."""
    model = load(chat_folder, max_length=200)
    query, passage = LONG_PAIR[0], LONG_PAIR[1][:600].strip()
    items = model._encode_windows([(query, passage)], 8)
    assert len(items) > 2
    assert items[0].window is not None
    assert items[0].window[0] == 0
    assert items[-1].window is not None
    assert items[-1].window[1] == len(passage)
    for first, second in itertools.pairwise(items):
        assert first.window is not None
        assert second.window is not None
        assert first.window[0] < second.window[0] < first.window[1]
    for item in items:
        assert item.tokens <= 200
        assert model._model.tokenizer.decode(item.features["input_ids"]).endswith("</think>\n\n")


@pytest.mark.parametrize("architectures", [True, False])
def test_weights_without_a_head_are_refused(folder: Path, tmp_path: Path, architectures: bool) -> None:
    """A head that is not in the files would be random: whatever the config says, the error names its weights."""
    headless = tiny_models.without_head(folder, tmp_path / "headless", architectures=architectures)
    with pytest.raises(UnsupportedModelError, match=r"classifier.bias, classifier.weight, which would be random"):
        load(headless)


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    """A model saved by SentenceTransformer has no head; the error names what loads it."""
    body = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
        )
    )
    body.save_pretrained(tmp_path / "body")
    tiny_models.wordpiece_tokenizer().save_pretrained(tmp_path / "body")
    sentence_transformers.SentenceTransformer(str(tmp_path / "body"), device="cpu").save(str(tmp_path / "model"))
    with pytest.raises(UnsupportedModelError, match="load_embeddings"):
        load(tmp_path / "model")


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """Weights that are only there as a pickle are refused before anything is read."""
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(ModelNotFoundError, match=r"pickle \(pytorch_model.bin\)"):
        load(tmp_path / "pickled")


def test_missing_weights_are_named(folder: Path, tmp_path: Path) -> None:
    """A folder without weights is an error that names the folder and what is missing."""
    shutil.copytree(folder, tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"safetensors"):
        load(tmp_path / "empty")


def test_a_tokenizer_of_another_model_is_an_error(folder: Path, tmp_path: Path) -> None:
    """Token ids that the model has no embedding for are an error before the forward pass."""
    shutil.copytree(folder, tmp_path / "mixed")
    tokenizer = tiny_models.wordpiece_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(tmp_path / "mixed")
    model = load(tmp_path / "mixed")
    with pytest.raises(UnsupportedModelError, match="do not belong together"):
        model.score([("word49", "word48")])


def test_other_activations_are_refused(folder: Path, tmp_path: Path) -> None:
    """A model that asks for another activation than a sigmoid is only loaded with an explicit one."""
    shutil.copytree(folder, tmp_path / "tanh")
    config = json.loads((tmp_path / "tanh" / "config.json").read_text(encoding="utf-8"))
    config["sentence_transformers"]["activation_fn"] = "torch.nn.modules.activation.Tanh"
    (tmp_path / "tanh" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match="asks for the activation Tanh"):
        load(tmp_path / "tanh", activation=None)
    assert load(tmp_path / "tanh").score(PAIRS) == load(folder).score(PAIRS)


def test_a_loaded_model_can_be_used(folder: Path) -> None:
    """A `CrossEncoder` of sentence-transformers is used as it is, and two of them never share cached scores."""
    model = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    first, second = TorchCrossEncoder.from_model(model), TorchCrossEncoder.from_model(model)
    assert first.activation == "identity"
    assert first.score(PAIRS) == pytest.approx(reference(folder, PAIRS), abs=1e-6)
    assert first.fingerprint != second.fingerprint


def change_weights(folder: Path) -> None:
    """Save the model with another seed."""
    tiny_models.save_bert(folder, initializer_range=0.2)


def change(name: str, key: str, value: Any) -> Callable[[Path], None]:
    """Return a function that changes one value of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content[key] = value
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "changed",
    [
        change_weights,
        change("config.json", "num_attention_heads", 2),
        change("config.json", "hidden_act", "relu"),
        change("tokenizer_config.json", "truncation_side", "left"),
        change("tokenizer.json", "decoder", None),
    ],
    ids=["weights", "heads", "activation function", "tokenizer settings", "tokenizer"],
)
def test_every_file_is_part_of_the_fingerprint(folder: Path, tmp_path: Path, changed: Callable[[Path], None]) -> None:
    """A model that differs in any file that is read has another cache key, and the same files have the same."""
    shutil.copytree(folder, tmp_path / "same")
    shutil.copytree(folder, tmp_path / "other")
    assert load(folder).fingerprint == load(tmp_path / "same").fingerprint
    before = load(tmp_path / "same").fingerprint
    changed(tmp_path / "other")
    assert load(tmp_path / "other").fingerprint != before


@pytest.mark.parametrize(
    "settings",
    [{"activation": "sigmoid"}, {"max_length": 64}, {"precision": "bf16"}],
    ids=lambda each: next(iter(each)),
)
def test_every_setting_is_part_of_the_fingerprint(folder: Path, settings: dict[str, Any]) -> None:
    """Activation, length and precision decide a score, so each has a cache key of its own."""
    assert load(folder).fingerprint != load(folder, **settings).fingerprint


def test_repr_says_what_runs_where(folder: Path) -> None:
    """`repr` shows precision and device."""
    assert "precision='fp32', device='cpu'" in repr(load(folder))


def test_a_gpu_does_not_survive_a_fork(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on a GPU says in a forked child that it must be loaded there."""
    model = load(folder)
    monkeypatch.setattr(type(model._mark), "is_current", property(lambda self: False))
    monkeypatch.setattr(type(model._model), "device", property(lambda self: torch.device("cuda")))
    with pytest.raises(ScoringError, match="load the model in the child"):
        model.score(PAIRS)


@pytest.mark.parametrize("which", ["folder", "chat_folder"])
def test_a_long_query_is_cut_in_its_middle(which: str, request: pytest.FixtureRequest) -> None:
    """A query that takes more than half of `max_length` is cut and flagged, and the passage is still read."""
    model = load(request.getfixturevalue(which), max_length=90 if which == "folder" else 400)
    (scored,) = drain(model.score_steps([("word " * 300 + "end", "a passage")]))
    assert scored.query_truncated
    assert not scored.truncated


def test_loading_by_name_picks_the_modules(chat_folder: Path) -> None:
    """`load_cross_encoder` uses a causal model's own modules and template if it has them."""
    model = load_cross_encoder(chat_folder, activation="identity", device="cpu")
    assert type(model) is TorchCrossEncoder
    assert model.score(PAIRS) == pytest.approx(reference(chat_folder, PAIRS), abs=1e-4)


def test_query_tokens_are_found(folder: Path) -> None:
    """The spans of a query's tokens cover its words in order."""
    model = load(folder)
    query = "who wrote hamlet"
    assert [query[slice(*span)] for span in model._query_spans(query)] == ["who", "wrote", "hamlet"]
    assert model._frame_tokens == 3
