"""Graphs that are prepared once on each machine: what is kept of them, and that it is found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import langchain_crossrerank
from langchain_crossrerank.errors import GraphRewriteError
from langchain_crossrerank.onnx_graphs import cache as graph_cache
from langchain_crossrerank.onnx_graphs import rewriting
from langchain_crossrerank.onnx_graphs.cache import prepare_graph, split_graph
from tests.unit.onnx_graphs.cache.tiny_graphs import PAIRS, kept, load, write_graph


def start(script: str) -> subprocess.Popen[str]:
    """Start a fresh process that imports this very package."""
    place = str(Path(langchain_crossrerank.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": place, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(script: str) -> str:
    """Run a script in a fresh process and give what it printed."""
    child = start(script)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return out.strip()


def test_a_graph_is_prepared_once(model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the structure of the first is found, and nothing is rewritten."""
    first = prepare_graph(model_folder / "model.onnx")
    assert first.rewritten
    assert [file.read_bytes() for file in kept(cache)] == [first.graph.model]

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(graph_cache, "_rewritten", refuse)
    assert prepare_graph(model_folder / "model.onnx") == first


def test_weights_are_not_kept_twice(model_folder: Path, cache: Path) -> None:
    """What is kept of a graph is its structure; large weights stay in the model's own file."""
    prepare_graph(model_folder / "model.onnx")
    assert (model_folder / "model.onnx").stat().st_size > 400_000
    assert sum(file.stat().st_size for file in kept(cache, "")) < 10_000


def test_the_name_is_the_content(model_folder: Path, cache: Path, tmp_path: Path) -> None:
    """A copy elsewhere finds the same structure; another graph in the same place does not."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes((model_folder / "model.onnx").read_bytes())
    first = prepare_graph(model_folder / "model.onnx")
    assert prepare_graph(copy).content_hash == first.content_hash
    assert len(kept(cache)) == 1
    write_graph(model_folder / "model.onnx", seed=1)
    assert prepare_graph(model_folder / "model.onnx").content_hash != first.content_hash
    assert len(kept(cache)) == 2


def test_a_split_graph_with_weights_in_another_file_is_found_again(model_folder: Path, tmp_path: Path) -> None:
    """The second time the states of the first are found, with which the two parts are joined."""
    whole = onnx.load(str(model_folder / "model.onnx"))
    for node in whole.graph.node:
        for names in (node.input, node.output):
            names[:] = ["states_apart" if name == "rows" else name for name in names]
    target = tmp_path / "external" / "model.onnx"
    target.parent.mkdir()
    onnx.save(whole, str(target), save_as_external_data=True, location="w.bin", size_threshold=0)
    first, second = split_graph(target), split_graph(target)
    assert first is not None
    assert first.states == ("states_apart",)
    assert second == first


def test_weights_in_another_file_are_part_of_the_content(model_folder: Path, tmp_path: Path) -> None:
    """Changing the external data alone makes another graph."""
    target = tmp_path / "external" / "model.onnx"
    target.parent.mkdir()
    found = []
    for seed in (0, 1):
        whole = onnx.load(str(write_graph(tmp_path / "whole.onnx", seed=seed)))
        target.unlink(missing_ok=True)
        (target.parent / "w.bin").unlink(missing_ok=True)
        onnx.save(whole, str(target), save_as_external_data=True, location="w.bin", size_threshold=0)
        found.append((target.read_bytes(), prepare_graph(target)))
    assert found[0][0] == found[1][0]
    assert found[0][1].content_hash != found[1][1].content_hash
    assert found[0][1].rewritten


def test_each_precision_has_its_own_file(model_folder: Path, cache: Path) -> None:
    """Eight bits are kept in addition to fp32, not in its place."""
    exact, rough = (prepare_graph(model_folder / "model.onnx", precision) for precision in ("fp32", "int8"))
    assert {exact.graph.model, rough.graph.model} == {file.read_bytes() for file in kept(cache)}
    assert (exact.precision, rough.precision) == ("fp32", "int8")


def test_scores_stay(model_folder: Path, expected: Any) -> None:
    """Rewritten, found rewritten, and unchanged, a graph returns the same scores."""
    for _ in range(2):
        model = load(model_folder)
        assert model._graph.rewritten
        assert model.score(PAIRS) == expected


def test_two_processes_at_once_make_one_whole_file(model_folder: Path, cache: Path, expected: Any) -> None:
    """Processes that start together all score right, and leave one graph and nothing else."""
    script = f"""
import sys
from pathlib import Path
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
model = OnnxCrossEncoder(ModelSource("tiny", Path({str(model_folder)!r})), activation="identity")
print(model._graph.rewritten, *model.score({PAIRS!r}))
"""
    children = [start(script) for _ in range(3)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        rewritten, *scores = out.split()
        assert (rewritten, [float(score) for score in scores]) == ("True", expected)
    assert len(kept(cache)) == len(kept(cache, ".json")) == 1
    assert len(kept(cache, "")) == 2 + len(kept(cache, ".lock"))


def test_a_second_load_needs_no_onnx(model_folder: Path, expected: Any) -> None:
    """Once a graph is ready, a fresh process loads and scores without the `onnx` package."""
    load(model_folder)
    out = run(
        f"""
import sys
sys.modules["onnx"] = None
from langchain_crossrerank import load_cross_encoder
model = load_cross_encoder({str(model_folder)!r}, activation="identity")
assert model._graph.rewritten
print(*model.score({PAIRS!r}))
"""
    )
    assert [float(score) for score in out.split()] == expected


def test_a_remembered_reason_needs_no_onnx(
    model_folder: Path, expected: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that could not be made faster is not tried again, nor is `onnx` imported for it."""

    def fail(*_: object) -> Any:
        raise GraphRewriteError("it is unusual")

    monkeypatch.setattr(rewriting, "rewrite", fail)
    assert not prepare_graph(model_folder / "model.onnx").rewritten
    (file,) = kept(cache, ".json")
    assert json.loads(file.read_text(encoding="utf-8"))["reason"] == "it is unusual"
    out = run(
        f"""
import sys
from langchain_crossrerank import load_cross_encoder
model = load_cross_encoder({str(model_folder)!r}, activation="identity")
assert not model._graph.rewritten
print("onnx" in sys.modules, *model.score({PAIRS!r}))
"""
    )
    imported, *scores = out.split()
    assert (imported, [float(score) for score in scores]) == ("False", expected)


def test_the_bundled_model_needs_no_onnx(cache: Path) -> None:
    """The model inside the package is ready: loading it imports no `onnx` and writes no file."""
    out = run(
        f"""
import sys
from langchain_crossrerank import load_cross_encoder
load_cross_encoder("bundled").score({PAIRS!r})
print("onnx" in sys.modules)
"""
    )
    assert out == "False"
    assert kept(cache, "") == []
