"""What a model's files say about unit, length and head, and which graph is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError

MakeSource = Callable[..., ModelSource]

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
UNLIMITED = int(1e30)
"""What transformers saves as `model_max_length` of a tokenizer without a limit."""


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Write a model folder of description files and give its source."""

    def make(config: Any, **files: Any) -> ModelSource:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return ModelSource("some/model", tmp_path)

    return make


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        pytest.param({"num_labels": 1}, "sigmoid", id="one label"),
        pytest.param({"num_labels": 2}, "identity", id="two labels"),
        pytest.param({}, "identity", id="two labels by default"),
        pytest.param(
            {"num_labels": 1, "sentence_transformers": {"activation_fn": IDENTITY}}, "identity", id="identity"
        ),
        pytest.param({"num_labels": 2, "sentence_transformers": {"activation_fn": SIGMOID}}, "sigmoid", id="sigmoid"),
        pytest.param({"num_labels": 1, "sentence_transformers": {"version": "4"}}, "sigmoid", id="no key of ours"),
        pytest.param({"num_labels": 1, "sentence_transformers": None}, "sigmoid", id="null section"),
        pytest.param({"num_labels": 1, "sentence_transformers": {"activation_fn": None}}, "sigmoid", id="null"),
        pytest.param({"num_labels": 1, "sbert_ce_default_activation_function": IDENTITY}, "identity", id="old key"),
        pytest.param({"num_labels": 1, "sbert_ce_default_activation_function": None}, "sigmoid", id="old key null"),
        pytest.param(
            {"sentence_transformers": {"activation_fn": SIGMOID}, "sbert_ce_default_activation_function": IDENTITY},
            "sigmoid",
            id="new key wins",
        ),
    ],
)
def test_the_unit_is_the_one_that_sentence_transformers_would_take(
    make_source: MakeSource, config: dict[str, Any], activation: str
) -> None:
    """The config's activation counts, by its new or old key; without one the number of labels decides."""
    assert make_source(config).activation == activation


def test_the_unit_is_read_where_current_releases_write_it(make_source: MakeSource) -> None:
    """A model saved by sentence-transformers 6 keeps its activation in a file of its own."""
    source = make_source({"num_labels": 1}, config_sentence_transformers={"activation_fn": IDENTITY})
    assert source.activation == "identity"


@pytest.mark.parametrize("key", ["sentence_transformers", "sbert_ce_default_activation_function"])
@pytest.mark.parametrize("named", ["torch.nn.modules.activation.Softmax", "my_package.Calibrated", "Tanh"])
def test_an_unknown_activation_is_refused(make_source: MakeSource, key: str, named: str) -> None:
    """A unit that this package does not know raises, names it, and says how to load the model anyway."""
    source = make_source({"num_labels": 1, key: {"activation_fn": named} if key == "sentence_transformers" else named})
    with pytest.raises(UnsupportedModelError, match=r"'some/model'.*activation=\"identity\"") as raised:
        _ = source.activation
    assert repr(named) in str(raised.value)


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        pytest.param({}, None, 512, id="nobody says"),
        pytest.param({}, {}, 512, id="empty"),
        pytest.param({"max_position_embeddings": 128}, None, 128, id="positions"),
        pytest.param({}, {"model_max_length": 256}, 256, id="tokenizer"),
        pytest.param({"max_position_embeddings": 512}, {"model_max_length": 128}, 128, id="tokenizer below positions"),
        pytest.param({"max_position_embeddings": 128}, {"model_max_length": 512}, 128, id="positions below tokenizer"),
        pytest.param({"max_position_embeddings": 512}, {"model_max_length": UNLIMITED}, 512, id="unlimited tokenizer"),
        pytest.param({"max_position_embeddings": 512}, {"model_max_length": None}, 512, id="null"),
        pytest.param({"max_length": 256, "max_position_embeddings": 512}, None, 256, id="own key"),
        pytest.param({"max_position_embeddings": 514}, None, 514, id="bert counts from zero"),
        pytest.param({"model_type": "bert", "max_position_embeddings": 514, "pad_token_id": 0}, None, 514, id="bert"),
        pytest.param(
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512, id="roberta"
        ),
        pytest.param({"model_type": "roberta", "max_position_embeddings": 514}, None, 512, id="roberta, no padding"),
        pytest.param(
            {"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, None, 8192, id="xlm"
        ),
        pytest.param(
            {"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512, id="camembert"
        ),
        pytest.param(
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            {"model_max_length": 512},
            512,
            id="roberta, both",
        ),
        pytest.param(
            {},
            {"model_max_length": UNLIMITED},
            512,
            id="unlimited tokenizer, no positions",
        ),
        pytest.param({"model_type": "xlnet"}, {"model_max_length": UNLIMITED}, 8192, id="no table of positions"),
        pytest.param(
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": None},
            None,
            512,
            id="roberta, null padding",
        ),
    ],
)
def test_max_length_is_the_tightest_limit(
    make_source: MakeSource, config: dict[str, Any], tokenizer: dict[str, Any] | None, expected: int
) -> None:
    """Tokenizer and position table both bind; RoBERTa's table counts from behind its padding id."""
    files = {} if tokenizer is None else {"tokenizer_config": tokenizer}
    assert make_source(config, **files).max_length == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_labels": 1}, 1),
        ({"num_labels": 3}, 3),
        ({"id2label": {"0": "LABEL_0"}}, 1),
        ({"id2label": {"0": "no", "1": "maybe", "2": "yes"}}, 3),
        ({"id2label": {}}, 2),
        ({"id2label": None, "num_labels": None}, 2),
        ({}, 2),
    ],
    ids=str,
)
def test_the_number_of_labels_is_the_configs(make_source: MakeSource, config: dict[str, Any], expected: int) -> None:
    """Told outright, by the names of the labels, or two as transformers has it."""
    assert make_source(config).num_labels == expected


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ([], None),
        (["onnx/model.onnx"], "onnx/model.onnx"),
        (["model.onnx", "onnx/model.onnx"], "model.onnx"),
        (["onnx/model_O3.onnx", "onnx/model_O2.onnx", "onnx/model_fp16.onnx"], "onnx/model_O3.onnx"),
        (["onnx/model_quantized.onnx", "onnx/model.onnx"], "onnx/model.onnx"),
        (["onnx/model_quantized.onnx", "onnx/model_fp16.onnx"], "onnx/model_fp16.onnx"),
        (["onnx/model_qint8_avx512_vnni.onnx", "onnx/model_quint8_avx2.onnx"], "onnx/model_qint8_avx512_vnni.onnx"),
        (["flashrank-MiniLM_Q.onnx"], "flashrank-MiniLM_Q.onnx"),
    ],
    ids=str,
)
def test_the_best_graph_is_taken(
    make_source: MakeSource, caplog: pytest.LogCaptureFixture, files: list[str], chosen: str | None
) -> None:
    """Exact graphs come before those in fewer bits, which are taken with a warning if nothing else is there."""
    source = make_source({})
    (source.folder / "onnx").mkdir()
    for name in files:
        (source.folder / name).touch()
    graph = source.onnx_file
    assert graph == (source.folder / chosen if chosen else None)
    is_exact = chosen is not None and ("model.onnx" in chosen or "_O3" in chosen)
    assert source.prefers_graph is (chosen is not None)
    (source.folder / "model.safetensors").touch()
    assert source.prefers_graph is is_exact
    if graph is not None:
        source.warn_if_rough(graph)
        assert ("scores may differ" in caplog.text) is not is_exact


def test_several_unknown_graphs_are_not_guessed(make_source: MakeSource) -> None:
    """If no graph has a usual name, the error lists them and says how to choose."""
    source = make_source({})
    for name in ("a.onnx", "b.onnx"):
        (source.folder / name).touch()
    with pytest.raises(ModelNotFoundError, match=r'a\.onnx, b\.onnx.*file_name="a\.onnx"'):
        _ = source.onnx_file


@pytest.mark.parametrize("read", ["config", "tokenizer_file", "activation", "max_length", "num_labels"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, read: str) -> None:
    """A folder that lacks a needed file raises with the file, the folder and its contents."""
    (tmp_path / "README.md").touch()
    missing = "tokenizer.json" if read == "tokenizer_file" else "config.json"
    with pytest.raises(ModelNotFoundError, match=rf"no {missing} in .*\(there: README.md\)") as raised:
        getattr(ModelSource("some/model", tmp_path), read)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "not json", b"\xff\xfe\x00"], ids=repr)
def test_a_broken_file_is_named(make_source: MakeSource, file: str, content: str | bytes) -> None:
    """A file that is not JSON raises with its path, whatever is wrong in it."""
    source = make_source({"num_labels": 1}, tokenizer_config={})
    (source.folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UnsupportedModelError, match=rf"{file} is not valid JSON") as raised:
        _ = source.max_length
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("content", [None, 3, [], [1], "text"], ids=repr)
def test_json_that_is_no_object_is_refused(make_source: MakeSource, content: Any) -> None:
    """A config must be a JSON object; anything else is named as broken."""
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        _ = make_source(content).config


def test_an_adapter_is_not_called_missing(tmp_path: Path) -> None:
    """A folder with a LoRA adapter is named as such, with its base model."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}', encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"LoRA adapter for 'org/base'"):
        _ = ModelSource("some/model", tmp_path).settings


def describe(folder: Path, **files: Any) -> ModelSource:
    """A folder with description files; a name's double underscore is a dot."""
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content), encoding="utf-8")
    return ModelSource("x", folder)


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({}, "search: "),
        ({"default_prompt_name": None}, ""),
        ({"default_prompt_name": "other"}, ""),
        ({"prompts": {"search": None}}, ""),
        ({"model_type": "SentenceTransformer"}, ""),
    ],
)
def test_the_default_prompt_is_that_of_sentence_transformers(
    tmp_path: Path, changes: dict[str, Any], prompt: str
) -> None:
    """A saved cross-encoder's default prompt is read; without a name, a text or a list of modules there is none."""
    saved = {"model_type": "CrossEncoder", "prompts": {"search": "search: "}, "default_prompt_name": "search"}
    source = describe(tmp_path, config_sentence_transformers__json={**saved, **changes}, modules__json=[])
    assert source.default_prompt == prompt
    (tmp_path / "modules.json").unlink()
    assert source.default_prompt == ""


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_chat_templates_are_seen(tmp_path: Path, file: str) -> None:
    """A chat template is found in the tokenizer's settings or in a file of its own."""
    assert not describe(tmp_path, tokenizer_config__json={}).has_chat_template
    content = json.dumps({"chat_template": "{{ messages }}"})
    (tmp_path / file).write_text(content, encoding="utf-8")
    assert ModelSource("x", tmp_path).has_chat_template
