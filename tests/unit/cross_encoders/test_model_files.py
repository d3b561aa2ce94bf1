"""Where a model's files are found, and what its config says about unit, length and head."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource, find_source
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError

MakeSource = Callable[..., ModelSource]
Fetches = list[dict[str, Any]]

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


def test_a_graph_is_taken_by_its_name(make_source: MakeSource) -> None:
    """`file_name` takes a graph in place of the best one, and an unknown name is answered with what is there."""
    folder = make_source({}).folder
    for name in ("model.onnx", "model_quantized.onnx"):
        (folder / name).touch()
    assert find_source(folder, file_name="model_quantized.onnx").onnx_file == folder / "model_quantized.onnx"
    with pytest.raises(ModelNotFoundError, match=r"model\.onnx, model_quantized\.onnx"):
        _ = find_source(folder, file_name="other.onnx").onnx_file


def test_several_unknown_graphs_are_not_guessed(make_source: MakeSource) -> None:
    """If no graph has a usual name, the error lists them and says how to choose."""
    source = make_source({})
    for name in ("a.onnx", "b.onnx"):
        (source.folder / name).touch()
    with pytest.raises(ModelNotFoundError, match=r'a\.onnx, b\.onnx.*file_name="a\.onnx"'):
        _ = source.onnx_file


def test_a_model_in_a_subfolder_is_found(make_source: MakeSource) -> None:
    """`subfolder` names a folder inside the model's, and cannot lead out of it."""
    folder = make_source({}).folder
    (folder / "sub").mkdir()
    assert find_source(folder, subfolder="sub").folder == folder / "sub"
    with pytest.raises(ModelNotFoundError, match="'other'"):
        find_source(folder, subfolder="other")
    for outside in ("../x", "/x", ""):
        with pytest.raises(InvalidInputError, match="inside the model's folder"):
            find_source(folder, subfolder=outside)
        with pytest.raises(InvalidInputError, match="inside the model's folder"):
            find_source(folder, file_name=outside)


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


def test_bundled_is_the_folder_in_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name always means the model inside the package, even next to a folder of that name."""
    (tmp_path / "bundled").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_source("bundled") == ModelSource("bundled", BUNDLED_FOLDER)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_taken_as_it_is(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """A folder is found by string or path, and resolved."""
    assert find_source(kind(tmp_path)) == ModelSource(str(tmp_path), tmp_path.resolve())


def test_a_folder_in_the_home_is_found_by_its_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` is the home folder."""
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_source("~/model").folder == (tmp_path / "model").resolve()


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetches:
    """Calls that would have gone to the hub."""
    calls: Fetches = []

    def fetch(name: str, **kwargs: Any) -> str:
        calls.append({"name": name, **kwargs})
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    return calls


def test_an_existing_folder_wins_over_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetches: Fetches
) -> None:
    """A folder that is called like a repository is read, and nothing is fetched."""
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_source("org/model").folder == (tmp_path / "org" / "model").resolve()
    assert fetches == []


@pytest.mark.parametrize("name", ["./nope", "../nope", "/nope/model", "~/nope", "a/b/c", "models/nope/"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetches: Fetches, name: str
) -> None:
    """A path that does not exist raises with the place that was looked at, and nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="no model folder") as raised:
        find_source(name)
    assert repr(name) in str(raised.value)
    assert fetches == []


def test_a_file_is_no_model_folder(tmp_path: Path, fetches: Fetches) -> None:
    """Naming the graph instead of its folder raises an error that says so."""
    file = tmp_path / "model.onnx"
    file.touch()
    with pytest.raises(ModelNotFoundError, match="it is a file"):
        find_source(file)
    assert fetches == []


@pytest.mark.parametrize("weights", [True, False])
def test_only_the_files_that_are_needed_are_fetched(fetches: Fetches, tmp_path: Path, weights: bool) -> None:
    """From the hub come description files, the card and, for onnx, one graph; never pickles or other weights."""
    source = find_source("org/model", revision="v1", local_files_only=True, weights=weights)
    assert source == ModelSource("org/model", tmp_path)
    (call,) = fetches
    assert (call["name"], call["revision"], call["local_files_only"]) == ("org/model", "v1", True)
    patterns = call["allow_patterns"]
    assert ("onnx/model.onnx" in patterns) is weights
    assert {"config.json", "README.md"} <= set(patterns)
    assert all(not pattern.startswith("*") and "/*" not in pattern for pattern in patterns)
    unwanted = ("pytorch_model.bin", "model.safetensors", "model.pkl", "onnx/other.onnx", "tf_model.h5")
    assert not [name for name in unwanted for pattern in patterns if fnmatch(name, pattern)]


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the hub lists for any repository."""
    files: list[str] = []
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: files)
    return files


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx"],
            ["onnx/model.onnx", "onnx/model.onnx_data"],
        ),
        (["model.onnx", "model.onnx.data"], ["model.onnx", "model.onnx.data"]),
        (["onnx/model_quantized.onnx", "pytorch_model.bin"], ["onnx/model_quantized.onnx"]),
    ],
    ids=str,
)
def test_one_graph_is_fetched_with_its_data(
    fetches: Fetches, listing: list[str], files: list[str], wanted: list[str]
) -> None:
    """Of several graphs in a repository only the best is fetched, and the files that its weights are in."""
    listing += files
    find_source("org/model")
    patterns = fetches[0]["allow_patterns"]
    assert [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)] == wanted


def test_a_subfolder_and_a_token_reach_the_hub(fetches: Fetches, listing: list[str], tmp_path: Path) -> None:
    """Files are fetched from the subfolder, with the caller's token."""
    (tmp_path / "sub").mkdir()
    listing += ["model.onnx", "sub/model.onnx"]
    source = find_source("org/model", subfolder="sub", token="hf_secret")
    assert source.folder == tmp_path / "sub"
    (call,) = fetches
    assert call["token"] == "hf_secret"
    assert all(pattern.startswith("sub/") for pattern in call["allow_patterns"])


_RESPONSE = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/org/model"))


def test_a_gated_model_says_where_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gated repository is not called missing: the error names the page with its terms."""

    def fail(*args: Any, **kwargs: Any) -> str:
        raise GatedRepoError("403", response=_RESPONSE)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match=r"gated.*https://huggingface\.co/org/model.*HF_TOKEN"):
        find_source("org/model")


def test_an_adapter_is_not_called_missing(tmp_path: Path) -> None:
    """A folder with a LoRA adapter is named as such, with its base model."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}', encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"LoRA adapter for 'org/base'"):
        _ = find_source(tmp_path).settings


@pytest.mark.parametrize(
    "err",
    [
        RepositoryNotFoundError("404", response=_RESPONSE),
        RevisionNotFoundError("404", response=_RESPONSE),
        GatedRepoError("403", response=_RESPONSE),
        HFValidationError("bad name"),
        LocalEntryNotFoundError("not cached"),
        httpx.ConnectError("no route"),
        ConnectionError("offline"),
        OSError("disk full"),
    ],
    ids=lambda err: type(err).__name__,
)
def test_whatever_the_hub_client_raises_is_one_error(monkeypatch: pytest.MonkeyPatch, err: Exception) -> None:
    """No model from the hub is one error that names what was asked for and `"bundled"`, and keeps the cause."""

    def fail(*args: Any, **kwargs: Any) -> str:
        raise err

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match=r"'org/model'.*\"bundled\"") as raised:
        find_source("org/model")
    assert raised.value.__cause__ is err


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
