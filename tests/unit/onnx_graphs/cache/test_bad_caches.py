"""Caches that take nothing, or hold what is damaged or not ours: models load and score as always."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank._machine import recall, remember
from langchain_crossrerank.onnx_graphs import cache as graph_cache
from langchain_crossrerank.onnx_graphs.cache import prepare_graph
from tests.unit.onnx_graphs.cache.tiny_graphs import PAIRS, kept, load


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_nothing_does_not_matter(
    model_folder: Path,
    cache: Path,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    """On a full or read-only disk the rewritten graph is used from memory, the log says so, and no file stays."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("langchain_crossrerank.files.open_new", fail)
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        model = load(model_folder)
    assert model._graph.rewritten
    assert model.score(PAIRS) == expected
    assert "cannot be written" in caplog.text
    assert os.strerror(code) in caplog.text
    assert kept(cache) == kept(cache, ".json") == []


@pytest.mark.parametrize("place", ["a file", "below a file", "a name too long"])
def test_a_place_that_cannot_be_a_folder_does_not_matter(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    """Where `CROSSRERANK_CACHE` names a file, or what no file system takes, models load and score as always."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    named = {"a file": "file", "below a file": "file/cache", "a name too long": "x" * 5000}[place]
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path / named))
    assert load(model_folder).score(PAIRS) == expected
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_user_without_a_home_can_load(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no cache folder can be named, as for a container's nameless user, everything works from memory."""

    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("CROSSRERANK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        assert load(model_folder).score(PAIRS) == expected
    assert "CROSSRERANK_CACHE" in caplog.text
    remember("finding", {"a": 1})
    assert recall("finding") is None


def test_a_crash_while_making_leaves_nothing(model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption in the middle of writing goes up, and leaves neither half a graph nor a temporary file."""

    def interrupt(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_graph(model_folder / "model.onnx")
    assert kept(cache) == kept(cache, ".json") == []
    assert prepare_graph(model_folder / "model.onnx").rewritten


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "text": lambda content: b"no graph",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_structure_is_made_again(
    model_folder: Path, cache: Path, expected: Any, damage: str, precision: Any
) -> None:
    """A kept file that is not what was written is never opened; the graph is prepared again."""
    before = load(model_folder, precision=precision).score(PAIRS)
    contents = {file: file.read_bytes() for file in kept(cache)}
    assert contents
    for file, content in contents.items():
        file.write_bytes(DAMAGE[damage](content))
    model = load(model_folder, precision=precision)
    assert (model.precision, model._graph.rewritten) == (precision, True)
    assert model.score(PAIRS) == pytest.approx(before, abs=1e-6)
    assert {file: file.read_bytes() for file in kept(cache)} == contents


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"weights": 3}', b'{"structure": "0"}'], ids=repr)
def test_a_damaged_record_is_made_again(model_folder: Path, cache: Path, content: bytes) -> None:
    """A record that cannot be read, or lists another structure, does not keep a graph from being prepared."""
    prepare_graph(model_folder / "model.onnx")
    (record,) = kept(cache, ".json")
    good = record.read_bytes()
    record.write_bytes(content)
    assert prepare_graph(model_folder / "model.onnx").rewritten
    assert record.read_bytes() == good


@pytest.mark.parametrize(
    "change",
    [
        {"file": "/etc/passwd"},
        {"file": "../secret"},
        {"offset": -1},
        {"offset": 10**9},
        {"length": 10**12},
        {"shape": [10**9, 10**9]},
        {"data_type": 99},
    ],
    ids=str,
)
def test_a_record_cannot_name_other_data(
    model_folder: Path, cache: Path, expected: Any, change: dict[str, Any]
) -> None:
    """Whatever a record says, weights are read from the model's own files only, and in full."""
    prepare_graph(model_folder / "model.onnx")
    (record,) = kept(cache, ".json")
    content = json.loads(record.read_text(encoding="utf-8"))
    content["weights"][0] |= change
    record.write_text(json.dumps(content), encoding="utf-8")
    assert load(model_folder).score(PAIRS) == expected


def test_files_of_another_user_are_not_trusted(
    model_folder: Path, cache: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that others can write to, only files of this user and of the system are opened."""
    prepare_graph(model_folder / "model.onnx")
    monkeypatch.setattr(os, "geteuid", lambda: 12345, raising=False)
    made: list[Path] = []
    make = graph_cache._rewritten
    monkeypatch.setattr(graph_cache, "_rewritten", lambda file, *rest: made.append(file) or make(file, *rest))
    for file in kept(cache, ""):
        os.chown(file, 54321, 54321)
    assert load(model_folder).score(PAIRS) == expected
    assert made == [model_folder / "model.onnx"]
