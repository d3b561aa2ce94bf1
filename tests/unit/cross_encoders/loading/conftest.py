"""Fixtures of the tests of loading: backends without their libraries, and model folders with what a test needs."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from langchain_crossrerank import extras
from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from tests.unit.cross_encoders.loading.stubs import Install, MakeFolder, Stub


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
