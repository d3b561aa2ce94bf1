"""Graphs that cannot be prepared, or not now: the model's own graph runs instead, where it is whole."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from langchain_crossrerank.errors import GraphRewriteError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs import cache as graph_cache
from langchain_crossrerank.onnx_graphs import quantising, rewriting
from langchain_crossrerank.onnx_graphs.cache import prepare_graph
from tests.unit.onnx_graphs.cache.tiny_graphs import PAIRS, load, write_graph


def test_a_graph_that_cannot_be_quantised_runs_in_fp32(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a graph cannot be quantised, the rewritten one in fp32 is used, and says so."""

    def fail(*_: object) -> bytes:
        raise GraphRewriteError("it cannot be quantised")

    monkeypatch.setattr(quantising, "quantise", fail)
    for _ in range(2):
        model = load(model_folder, precision="int8")
        assert (model.precision, model._graph.rewritten, model.scores_pairs_alone) == ("fp32", True, True)
        assert model.score(PAIRS) == expected


PASSING: list[Exception] = [
    OSError(errno.ENOSPC, "No space left on device"),
    MemoryError("bad allocation"),
    RuntimeError("Failed to allocate memory for requested buffer of size 123"),
]


@pytest.mark.parametrize("err", PASSING, ids=repr)
def test_a_passing_failure_is_not_remembered(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, err: Exception
) -> None:
    """If memory or disk run out, the original runs with a warning, and the next load tries again."""

    def fail(*_: object) -> Any:
        raise err

    with monkeypatch.context() as patch:
        patch.setattr(rewriting, "_observed_dims", fail)
        model = load(model_folder)
    assert not model._graph.rewritten
    assert model.score(PAIRS) == expected
    assert "tries again" in caplog.text
    assert load(model_folder)._graph.rewritten


def test_short_memory_is_not_remembered(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If there is too little memory to rewrite a graph, the original runs with a warning, and a later load rewrites."""
    monkeypatch.setattr(graph_cache, "_OVERHEAD_BYTES", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(graph_cache, "available_memory", lambda: 100_000)
        model = load(model_folder)
    assert not model._graph.rewritten
    assert model.score(PAIRS) == expected
    assert "GB are available" in caplog.text
    assert load(model_folder)._graph.rewritten


def test_a_process_does_not_wait_for_ever(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If another process takes too long to prepare a graph, the original runs meanwhile."""
    name = prepare_graph(model_folder / "model.onnx").content_hash
    for file in graph_cache.cached_file("x").parent.glob(f"{name}*.[jo]*"):
        file.unlink()
    (lock,) = graph_cache.cached_file("x").parent.glob(f"{name}*.lock")
    monkeypatch.setattr(graph_cache, "LOCK_SECONDS", 0.01)
    with FileLock(lock):
        model = load(model_folder)
    assert not model._graph.rewritten
    assert model.score(PAIRS) == expected
    assert "another process" in caplog.text


def test_a_file_that_changes_while_it_is_loaded_is_noticed(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is not run under the hash of a content that it had before."""
    make = graph_cache._rewritten

    def replace_file(file: Path, *rest: Any) -> Any:
        write_graph(file, seed=1)
        return make(file, *rest)

    monkeypatch.setattr(graph_cache, "_rewritten", replace_file)
    with pytest.raises(UnsupportedModelError, match="changed while it was loaded"):
        prepare_graph(model_folder / "model.onnx")


def test_a_graph_that_cannot_be_loaded_at_all_is_an_error(model_folder: Path) -> None:
    """If the model's own graph is broken there is nothing to fall back on."""
    file = model_folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        load(model_folder)
