"""Fixtures of the tests of prepared graphs: an empty cache, a model that was never prepared, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.onnx_graphs.cache import own_graph
from tests.unit.onnx_graphs.cache.tiny_graphs import PAIRS, load, write_graph

MODEL_FILES = ("config.json", "tokenizer.json")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model with the bundled tokenizer whose graph is tiny and was never prepared."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_bytes((BUNDLED_FOLDER / name).read_bytes())
    write_graph(folder / "model.onnx")
    return folder


@pytest.fixture
def expected(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scores of the model's own graph, unchanged."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "langchain_crossrerank.cross_encoders.backends.onnx.prepare_graph", lambda file, *_: own_graph(file)
        )
        scores = load(model_folder).score(PAIRS)
    assert scores[0] != pytest.approx(scores[1])
    return pytest.approx(scores, abs=1e-4)
