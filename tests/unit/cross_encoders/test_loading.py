"""From a name or a folder to a cross-encoder: arguments, the choice of backend, one shared copy, errors."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import onnxruntime
import pytest

from langchain_crossrerank import extras
from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.loading import await_model, load_cross_encoder, model_future, wait_for_model
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.settings import ModelSettings, check_settings
from langchain_crossrerank.errors import (
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    RerankTimeoutError,
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
    assert model.settings == {**shared, "device": None, "passage_cache": None}


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


@pytest.mark.parametrize("trusted", [True, False])
def test_both_fetches_of_a_load_take_the_same_commit(
    torch_stub: type[Stub],
    install_torch: Install,
    make_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
) -> None:
    """A branch that moves during a load does not mix two versions, and code is fetched for those who trust it."""
    install_torch(True)
    fetched: list[tuple[str | None, bool]] = []

    def find_source(name: str, **arguments: Any) -> ModelSource:
        fetched.append((arguments["revision"], arguments.get("code", False)))
        return ModelSource(name, make_folder(), commit="0123abc")

    monkeypatch.setattr(loading, "find_source", find_source)
    load_cross_encoder("org/moving", backend="torch", revision="main", trust_remote_code=trusted)
    assert fetched == [("main", False), ("0123abc", trusted)]


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


class Hub:
    """A hub that does not answer until the test lets it, and then fails or leads to a folder."""

    def __init__(self, folder: Path) -> None:
        self.source = ModelSource("some/model", folder)
        self.asked = 0
        self.reached, self.opened = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def find_source(self, *args: Any, **kwargs: Any) -> ModelSource:
        self.asked += 1
        self.reached.set()
        assert self.opened.wait(30), "nobody let the hub answer"
        if self.error is not None:
            raise self.error
        return self.source


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, onnx_stub: type[Stub]) -> Iterator[Hub]:
    """A hub instead of the real one, open at the end so that no thread outlives its test."""
    hub = Hub(BUNDLED_FOLDER)
    monkeypatch.setattr(loading, "find_source", hub.find_source)
    yield hub
    hub.opened.set()


Wait = Callable[..., Any]


def _wait(settings: ModelSettings, **arguments: Any) -> Any:
    return wait_for_model(settings, **arguments)


def _await(settings: ModelSettings, **arguments: Any) -> Any:
    return asyncio.run(await_model(settings, **arguments))


@pytest.fixture(params=[_wait, _await], ids=["sync", "async"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """Both ways to wait for a model, behind one signature."""
    way: Wait = request.param
    return way


def test_waiting_gives_the_shared_model(hub: Hub, wait: Wait) -> None:
    """Whoever waits gets the copy that `load_cross_encoder` gives."""
    hub.opened.set()
    assert wait(check_settings("some/model"), timeout=30) is load_cross_encoder("some/model")
    assert hub.asked == 1


def test_a_load_that_hangs_holds_up_nobody_beyond_the_timeout(hub: Hub, wait: Wait) -> None:
    """The caller is told that the model is still loading; the load goes on, and later callers get the model."""
    with pytest.raises(RerankTimeoutError, match=r"'some/model' has been loading for .*timeout=0\.05"):
        wait(check_settings("some/model"), timeout=0.05)
    hub.opened.set()
    assert wait(check_settings("some/model"), timeout=None).backend == "onnx"
    assert hub.asked == 1


def test_a_load_that_ends_at_the_timeout_returns_its_model(
    hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops waiting at the moment when the model is there gets the model."""
    settings = check_settings("some/model")
    hub.opened.set()
    model = model_future(settings).result(30)
    outcome, seen_too_early = loading._Load.outcome, [Future[Any]()]
    monkeypatch.setattr(
        loading._Load, "outcome", lambda load: seen_too_early.pop() if seen_too_early else outcome(load)
    )
    assert wait(settings, timeout=0.001) is model


def test_while_a_load_hangs_only_its_first_callers_wait(hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit counts from the beginning of the load: an hour later nobody waits an hour again."""
    settings = check_settings("some/model")
    model_future(settings)
    assert hub.reached.wait(30)
    now = time.monotonic()
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: now + 3600.0))
    with pytest.raises(RerankTimeoutError):
        wait(settings, timeout=3599.0)
    assert hub.asked == 1


def test_a_load_that_fails_fails_once_for_all_who_wait(hub: Hub) -> None:
    """Many callers of one failing load share it, and each gets an error of its own."""
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(wait_for_model, settings) for _ in range(THREADS)]
        assert hub.reached.wait(30)
        hub.opened.set()
        errors = [each.exception(30) for each in waiting]
    assert [str(err) for err in errors] == ["gone"] * THREADS
    assert hub.asked == 1


def test_a_load_that_failed_is_not_tried_again_at_once(hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerank soon after gets the same error with the seconds that are left; when they are over it tries again."""
    hub.opened.set()
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    for _ in range(3):
        with pytest.raises(ModelNotFoundError, match="gone") as raised:
            wait(settings)
        assert raised.value.retry_after == loading.RETRY_SECONDS
    clock.now += 20.0
    with pytest.raises(ModelNotFoundError) as raised:
        wait(settings)
    assert raised.value.retry_after == loading.RETRY_SECONDS - 20.0
    assert hub.asked == 1
    clock.now += 20.0
    hub.error = None
    assert wait(settings).backend == "onnx"
    assert hub.asked == 2


def test_an_explicit_call_tries_again_at_once(hub: Hub, wait: Wait) -> None:
    """Who calls `load_cross_encoder` wants an answer now; a rerank afterwards has the model."""
    hub.opened.set()
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    with pytest.raises(ModelNotFoundError):
        wait(settings)
    hub.error = None
    assert load_cross_encoder("some/model") is wait(settings)
    assert hub.asked == 2


def test_a_missing_folder_is_tried_again_at_once(
    wait: Wait, make_folder: MakeFolder, onnx_stub: type[Stub], tmp_path: Path
) -> None:
    """What fails quickly on this machine costs nothing to try, so that a folder put there counts at once."""
    settings = check_settings(tmp_path / "model")
    with pytest.raises(ModelNotFoundError):
        wait(settings)
    assert make_folder() == tmp_path / "model"
    assert wait(settings).backend == "onnx"


def test_a_load_of_the_parent_does_not_bind_a_forked_child(hub: Hub) -> None:
    """A child that was forked during a load does not wait for a thread that it does not have."""
    settings = check_settings("some/model")
    future = model_future(settings)
    assert hub.reached.wait(30)
    with loading._LOADS as loads:
        (load,) = loads.values()
    load._mark._fork -= 1
    assert model_future(settings) is not future


async def test_cancelling_one_caller_leaves_the_load_to_the_others(hub: Hub) -> None:
    """A task that gives up does not take the model from those who wait with it."""
    settings = check_settings("some/model")
    first, second = (asyncio.ensure_future(await_model(settings)) for _ in range(2))
    assert await asyncio.to_thread(hub.reached.wait, 30)
    first.cancel()
    hub.opened.set()
    assert (await second).backend == "onnx"
    assert first.cancelled()
