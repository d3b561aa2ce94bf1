"""From a name or a folder to a cross-encoder: arguments, the choice of backend, one shared copy, errors."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import onnxruntime
import pytest

from langchain_crossrerank import extras
from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from langchain_crossrerank.testing import FakeCrossEncoder

Install = Callable[[bool], None]
MakeFolder = Callable[..., Path]

THREADS = 16


class Stub(FakeCrossEncoder):
    """Stands for a backend's class and notes what it was made with."""

    made: ClassVar[list[Stub]]

    def __init__(self, source: ModelSource | str, **settings: Any) -> None:
        super().__init__(max_batch_tokens=settings["max_batch_tokens"])
        self.source = source
        self.settings = settings
        self.made.append(self)


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts as a fresh process would: no model is loaded yet."""
    monkeypatch.setattr(loading, "_LOADS", Guarded(dict))


@pytest.fixture
def onnx_stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """The onnx backend without onnxruntime."""
    stub = type("OnnxStub", (Stub,), {"backend": "onnx", "made": []})
    monkeypatch.setattr(onnx, "OnnxCrossEncoder", stub)
    return stub


@pytest.fixture
def torch_stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    """The torch backend without torch."""
    stub = type("TorchStub", (Stub,), {"backend": "torch", "made": []})
    module = ModuleType("langchain_crossrerank.cross_encoders.backends.torch")
    monkeypatch.setattr(module, "TorchCrossEncoder", stub, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stub


@pytest.fixture
def install_torch(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make the torch extra look installed, or not, whatever this machine has."""

    def install(installed: bool) -> None:
        monkeypatch.setattr(extras, "find_spec", lambda name: ModuleSpec(name, None) if installed else None)

    return install


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Make a model folder like the bundled one, without some files or with others' content."""

    def make(*without: str, graph: str = "model.onnx", config: dict[str, Any] | None = None, **content: str) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        described = json.loads((BUNDLED_FOLDER / "config.json").read_text(encoding="utf-8"))
        # As transformers names it; the bundled model has an architecture of its own.
        described |= {"architectures": ["BertForSequenceClassification"], **(config or {})}
        (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
        shutil.copyfile(BUNDLED_FOLDER / "tokenizer.json", folder / "tokenizer.json")
        (folder / graph).parent.mkdir(exist_ok=True)
        shutil.copyfile(BUNDLED_FOLDER / "model.onnx", folder / graph)
        for name, text in content.items():
            (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
        for name in without:
            (folder / name).unlink()
        return folder

    return make


def test_a_setting_that_the_chosen_backend_does_not_support_is_refused(onnx_stub: type[Stub]) -> None:
    """What `"auto"` chooses by the model's files is checked too; nothing else is loaded silently instead."""
    with pytest.raises(InvalidInputError, match=r"^precision is 'fp16'.*onnx backend.*backend='torch'"):
        load_cross_encoder("bundled", precision="fp16")
    assert onnx_stub.made == []


def test_a_gpu_that_onnxruntime_cannot_use_is_refused() -> None:
    """Who asks the onnx backend for a GPU is not given the CPU in silence."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use a GPU")
    with pytest.raises(InvalidInputError, match=r"^device is 'cuda'.*onnxruntime-gpu"):
        load_cross_encoder("bundled", backend="onnx", device="cuda")


def test_settings_reach_the_backend(onnx_stub: type[Stub], torch_stub: type[Stub], install_torch: Install) -> None:
    """What the caller asked for is what the backend is made with."""
    install_torch(True)
    shared = {"activation": "identity", "max_length": 64, "max_batch_tokens": 99, "num_threads": 3, "precision": "int8"}
    model = load_cross_encoder("bundled", **shared)  # type: ignore[arg-type]  # literals in a dict
    assert isinstance(model, onnx_stub)
    assert model.source == ModelSource("bundled", BUNDLED_FOLDER)
    assert model.settings == {**shared, "device": "cpu"}


def test_settings_reach_the_torch_backend(
    torch_stub: type[Stub], install_torch: Install, make_folder: MakeFolder
) -> None:
    """The torch backend gets the model's folder and its own settings."""
    install_torch(True)
    folder = make_folder()
    settings = {"activation": "sigmoid", "max_length": 64, "max_batch_tokens": 99, "device": "cuda"}
    model = load_cross_encoder(folder, backend="torch", local_files_only=True, **settings)  # type: ignore[arg-type]
    assert isinstance(model, torch_stub)
    assert model.source == ModelSource(str(folder), folder)
    assert model.settings == {**settings, "trust_remote_code": False, "precision": None, "instruction": None}


@pytest.mark.parametrize(
    ("graph", "torch", "settings", "backend"),
    [
        pytest.param("model.onnx", True, {}, "onnx", id="graph"),
        pytest.param("model.onnx", False, {}, "onnx", id="graph, no torch"),
        pytest.param("onnx/model.onnx", True, {}, "onnx", id="graph as on the hub"),
        pytest.param("model.onnx", True, {"device": "cpu"}, "onnx", id="graph, cpu"),
        pytest.param("model.onnx", True, {"device": "cuda"}, "torch", id="graph, gpu"),
        pytest.param("model.onnx", True, {"trust_remote_code": True}, "torch", id="graph, remote code"),
        pytest.param("model.onnx", True, {"backend": "torch"}, "torch", id="graph, torch named"),
        pytest.param(None, True, {}, "torch", id="no graph"),
        pytest.param(None, True, {"device": "cpu"}, "torch", id="no graph, cpu"),
        pytest.param("model.onnx", False, {"backend": "onnx"}, "onnx", id="onnx named, no torch"),
    ],
)
def test_the_backend_is_chosen_by_what_is_there_and_what_was_asked(
    onnx_stub: type[Stub],
    torch_stub: type[Stub],
    install_torch: Install,
    make_folder: MakeFolder,
    graph: str | None,
    torch: bool,
    settings: dict[str, Any],
    backend: str,
) -> None:
    """A graph runs on onnxruntime unless a GPU or remote code was asked for; anything else on torch."""
    install_torch(torch)
    folder = make_folder(graph=graph) if graph is not None else make_folder("model.onnx")
    model = load_cross_encoder(folder, **settings)
    assert model.backend == backend
    assert f"backend={backend!r}" in repr(model)
    assert len(onnx_stub.made) + len(torch_stub.made) == 1


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_without_graph_and_torch_both_ways_out_are_named(
    install_torch: Install, make_folder: MakeFolder, backend: Any, installed: bool
) -> None:
    """A folder without a graph, where torch is missing or was not asked for, says how to get torch or a graph."""
    if installed and backend == "auto":
        backend = "onnx"
    install_torch(installed)
    with pytest.raises(ModelNotFoundError, match="no ONNX graph") as raised:
        load_cross_encoder(make_folder("model.onnx"), backend=backend)
    for way_out in ('pip install "langchain-crossrerank[torch]"', "crossrerank export"):
        assert way_out in str(raised.value)


@pytest.mark.parametrize(
    "settings", [{"backend": "torch"}, {"device": "cuda"}, {"trust_remote_code": True}], ids=lambda s: next(iter(s))
)
@pytest.mark.parametrize("missing", [("torch", "sentence_transformers"), ("sentence_transformers",)], ids=str)
def test_a_missing_extra_names_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, make_folder: MakeFolder, settings: dict[str, Any], missing: tuple[str, ...]
) -> None:
    """Where torch is needed and not there, the error names the missing modules and the line that installs them."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in missing else ModuleSpec(name, None))
    folder = make_folder()
    with pytest.raises(MissingExtraError) as raised:
        load_cross_encoder(folder, **settings)
    assert str(raised.value).startswith(f"{', '.join(missing)} is needed for the model {str(folder)!r}")
    assert 'pip install "langchain-crossrerank[torch]"' in str(raised.value)
    assert raised.value.extra == "torch"
    assert raised.value.backend == "torch"


def test_many_threads_get_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads ask first, the model is loaded once and all of them get it."""
    loads: list[Stub] = []
    second = threading.Event()

    class SlowStub(Stub):
        made = loads

        def __init__(self, source: ModelSource, **settings: Any) -> None:
            super().__init__(source, **settings)
            if len(loads) > 1:
                second.set()
            # The door stays open for a second load, which must not come; a good loader only passes the time here.
            second.wait(0.3)

    monkeypatch.setattr(onnx, "OnnxCrossEncoder", SlowStub)
    together = threading.Barrier(THREADS)

    def load(_: int) -> object:
        together.wait(30)
        return load_cross_encoder("bundled")

    with ThreadPoolExecutor(THREADS) as pool:
        models = list(pool.map(load, range(THREADS)))
    assert len(loads) == 1
    assert all(model is loads[0] for model in models)


def test_models_load_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes long to load holds up nobody who wants another: here each waits for the other."""
    together = threading.Barrier(2)

    class MeetingStub(Stub):
        made: ClassVar[list[Stub]] = []

        def __init__(self, source: ModelSource, **settings: Any) -> None:
            super().__init__(source, **settings)
            together.wait(30)

    monkeypatch.setattr(onnx, "OnnxCrossEncoder", MeetingStub)
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(lambda length: load_cross_encoder("bundled", max_length=length), (64, 128)))
    assert models[0] is not models[1]


def test_the_same_settings_share_a_copy(onnx_stub: type[Stub], make_folder: MakeFolder) -> None:
    """A second call gives the same object, whether the folder comes as string or path."""
    folder = make_folder()
    first = load_cross_encoder(folder, max_length=64)
    assert load_cross_encoder(str(folder), max_length=64) is first
    assert len(onnx_stub.made) == 1


@pytest.mark.parametrize(
    "setting",
    [{"activation": "identity"}, {"max_length": 64}, {"max_batch_tokens": 64}, {"num_threads": 1}, {"backend": "onnx"}],
    ids=str,
)
def test_other_settings_give_another_copy(onnx_stub: type[Stub], setting: dict[str, Any]) -> None:
    """Nobody's model changes because another caller wants other settings."""
    assert load_cross_encoder("bundled", **setting) is not load_cross_encoder("bundled")
    assert len(onnx_stub.made) == 2


def test_a_relative_folder_means_the_folder_of_the_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_stub: type[Stub]
) -> None:
    """The same relative name in another working directory is another model."""
    models = []
    for place in ("one", "two"):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / "model.onnx").touch()
        monkeypatch.chdir(tmp_path / place)
        models.append(load_cross_encoder("./model"))
    assert models[0] is not models[1]
    assert [stub.source.folder.parent.name for stub in onnx_stub.made] == ["one", "two"]  # type: ignore[union-attr]


def test_a_failed_load_is_not_remembered(make_folder: MakeFolder, onnx_stub: type[Stub]) -> None:
    """Who puts the missing file there and asks again gets the model."""
    folder = make_folder("model.onnx")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ModelNotFoundError):
        load_cross_encoder(folder)
    folder.with_name("elsewhere").rename(folder)
    assert load_cross_encoder(folder, backend="onnx") is onnx_stub.made[0]


@pytest.mark.parametrize(
    "settings", [{}, {"local_files_only": True}, {"backend": "onnx"}, {"backend": "torch"}], ids=str
)
@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "no-such-model", "not a valid name!"])
def test_an_unknown_name_offline_names_the_bundled_model(
    install_torch: Install, name: str, settings: dict[str, Any]
) -> None:
    """A hub model that cannot be reached raises, names itself and `"bundled"`, and is never replaced in silence."""
    install_torch(True)
    with pytest.raises(ModelNotFoundError, match='"bundled"') as raised:
        load_cross_encoder(name, **settings)
    assert repr(name) in str(raised.value)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("backend", ["auto", "onnx", "torch"])
def test_a_missing_folder_is_named(tmp_path: Path, install_torch: Install, backend: Any) -> None:
    """A path that is not there raises with the path, on every backend."""
    install_torch(True)
    with pytest.raises(ModelNotFoundError, match="no model folder") as raised:
        load_cross_encoder(tmp_path / "nope", backend=backend)
    assert str(tmp_path / "nope") in str(raised.value)


@pytest.mark.parametrize(
    ("without", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("model.onnx", "model.onnx")],
)
def test_a_folder_that_lacks_a_file_is_refused(make_folder: MakeFolder, without: str, named: str) -> None:
    """The error says which file is missing and where."""
    folder = make_folder(without)
    with pytest.raises(ModelNotFoundError, match=named) as raised:
        load_cross_encoder(folder, backend="onnx")
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config__json", "{", r"config\.json is not valid JSON"),
        ("tokenizer_config__json", "nope", r"tokenizer_config\.json is not valid JSON"),
        ("tokenizer__json", "{", r"tokenizer\.json cannot be read as a fast tokenizer"),
        ("tokenizer__json", "", r"tokenizer\.json cannot be read as a fast tokenizer"),
        ("model__onnx", "not a graph", r"model\.onnx"),
        ("model__onnx", "", r"model\.onnx"),
    ],
)
def test_a_folder_with_a_broken_file_is_refused(make_folder: MakeFolder, file: str, content: str, message: str) -> None:
    """The error says which file is broken, and where."""
    folder = make_folder(**{file: content})
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        load_cross_encoder(folder)
    assert str(folder) in str(raised.value)
