"""Which backend runs a model, what it is made with, and what is said where it cannot be."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from typing import Any

import onnxruntime
import pytest

from langchain_crossrerank import extras
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ModelNotFoundError
from tests.unit.cross_encoders.loading.stubs import Install, MakeFolder, Stub


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
