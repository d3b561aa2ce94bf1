"""Graphs made ready once a machine: where they are kept, what happens when that fails, and what it costs later."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import langchain_crossrerank
from langchain_crossrerank import _machine
from langchain_crossrerank._machine import cache_folder, machine_key, recall, remember
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs import cache as prepared
from langchain_crossrerank.onnx_graphs import rewriting as graph
from langchain_crossrerank.onnx_graphs.cache import PreparedGraph, make_ready, prepare_graph
from langchain_crossrerank.onnx_graphs.provenance import PACKED, PRODUCER, unpack_at_load
from langchain_crossrerank.onnx_graphs.rewriting import NotUnderstoodError

PAIRS = [("what is lora", "low-rank adaptation"), ("what is lora", "the weather")]
MODEL_FILES = ("config.json", "tokenizer.json")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model with the bundled tokenizer whose graph is tiny and was never made ready."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_bytes((BUNDLED_FOLDER / name).read_bytes())
    write_graph(folder / "model.onnx")
    return folder


def write_graph(path: Path, *, seed: int = 0, pooled: bool = True) -> Path:
    """Write a graph that mixes what it looks up and puts out one logit, of the first token or of their mean."""
    random = np.random.default_rng(seed)
    weights = {"table": (30522, 4), "square": (4, 4), "head": (4, 1)}
    pool = (
        helper.make_node("Gather", ["mixed", "zero"], ["pooled"], axis=1)
        if pooled
        else helper.make_node("ReduceMean", ["mixed"], ["pooled"], axes=[1], keepdims=0)
    )
    made = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["all"], axes=[1], keepdims=1),
            helper.make_node("Add", ["rows", "all"], ["added"]),
            helper.make_node("MatMul", ["added", "square"], ["mixed"]),
            pool,
            helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [
            *(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), n) for n, shape in weights.items()),
            numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
        ],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def load(folder: Path, **settings: Any) -> OnnxCrossEncoder:
    """Load a folder anew, whatever this process has loaded already."""
    return OnnxCrossEncoder(ModelSource("tiny", folder), activation="identity", **settings)


@pytest.fixture
def expected(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scores of the model's own graph, not made ready."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "langchain_crossrerank.cross_encoders.backends.onnx.prepare_graph",
            lambda file, *_: PreparedGraph(file, "fp32", rewritten=False),
        )
        scores = load(model_folder).score(PAIRS)
    assert scores[0] != pytest.approx(scores[1])
    return pytest.approx(scores, abs=1e-4)


def kept(cache: Path, ending: str = ".onnx") -> list[Path]:
    """Files in the cache, hidden ones included."""
    return sorted(file for file in cache.iterdir() if file.name.endswith(ending)) if cache.exists() else []


def test_a_graph_is_made_ready_once(model_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the file of the first is found, and nothing is rewritten."""
    first = prepare_graph(model_folder / "model.onnx")
    assert (first.rewritten, [first.model]) == (True, kept(cache))

    def refuse(_: Path) -> bytes:
        raise AssertionError("made again")

    monkeypatch.setattr(prepared, "_rewritten", refuse)
    assert prepare_graph(model_folder / "model.onnx") == first


def test_the_name_is_the_content(model_folder: Path, cache: Path, tmp_path: Path) -> None:
    """A copy elsewhere finds the same file; another graph at the same place does not."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes((model_folder / "model.onnx").read_bytes())
    first = prepare_graph(model_folder / "model.onnx")
    assert prepare_graph(copy) == first
    write_graph(model_folder / "model.onnx", seed=1)
    assert prepare_graph(model_folder / "model.onnx").model != first.model
    assert len(kept(cache)) == 2


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
    assert found[0][1].model != found[1][1].model
    assert found[0][1].rewritten


def test_scores_stay(model_folder: Path, expected: Any) -> None:
    """Made ready, found ready, and as it came, a graph gives the same scores."""
    for _ in range(2):
        model = load(model_folder)
        assert model._graph.rewritten
        assert model.score(PAIRS) == expected


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_nothing_does_not_matter(
    model_folder: Path,
    cache: Path,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    """On a full or read-only disk the graph made ready is used from memory, the log says so, and no file stays."""

    monkeypatch.setattr(os, "fdopen", _failing_file(code))
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        model = load(model_folder)
    assert isinstance(model._graph.model, bytes)
    assert model.score(PAIRS) == expected
    assert "cannot be written" in caplog.text
    assert os.strerror(code) in caplog.text
    assert kept(cache, "") == []


def _failing_file(code: int) -> Any:
    @contextlib.contextmanager
    def open_failing(handle: int, _: str) -> Iterator[Any]:
        class Full:
            def write(self, content: bytes) -> None:
                os.write(handle, content[: len(content) // 2])
                raise OSError(code, os.strerror(code))

        try:
            yield Full()
        finally:
            os.close(handle)

    return open_failing


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
    assert kept(cache, "") == []
    assert prepare_graph(model_folder / "model.onnx").rewritten


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
    assert len(kept(cache, "")) == len(kept(cache)) == 1


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

    def fail(_: Path) -> Any:
        raise NotUnderstoodError("it is strange")

    monkeypatch.setattr(graph, "rewrite", fail)
    assert not prepare_graph(model_folder / "model.onnx").rewritten
    (file,) = kept(cache, "")
    assert json.loads(file.read_text(encoding="utf-8")) == {"reason": "it is strange"}
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


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "text": lambda content: b"no graph",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("precision", ["fp32", "int8", "auto"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cached_graph_is_not_fatal(
    model_folder: Path,
    cache: Path,
    expected: Any,
    caplog: pytest.LogCaptureFixture,
    damage: str,
    precision: Any,
) -> None:
    """A file that cannot be opened any more is warned of, and the model's own graph is used, in fp32."""
    load(model_folder, precision=precision)
    assert kept(cache)
    for file in kept(cache):
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    model = load(model_folder, precision=precision)
    assert model.score(PAIRS) == expected
    assert model.precision == "fp32"
    assert "int8" not in model.fingerprint
    assert "precision='fp32'" in repr(model)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("cannot be loaded" in line and str(cache) in line for line in warned)


def test_a_graph_in_memory_is_not_written_into_the_log() -> None:
    """Shown in a message, a graph is its file, or its size."""
    assert str(PreparedGraph(b"x" * 1000, "fp32", rewritten=True)) == "of 1000 bytes in memory"
    assert str(PreparedGraph(Path("a.onnx"), "fp32", rewritten=True)) == "a.onnx"


def test_a_folder_in_the_files_place_does_not_matter(model_folder: Path, cache: Path, expected: Any) -> None:
    """If a folder has the name that the graph would get, the graph is used from memory."""
    file = prepare_graph(model_folder / "model.onnx").model
    assert isinstance(file, Path)
    file.unlink()
    (file / "inside").mkdir(parents=True)
    model = load(model_folder)
    assert isinstance(model._graph.model, bytes)
    assert model.score(PAIRS) == expected


def test_a_graph_that_cannot_be_quantised_runs_in_fp32(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where eight bits cannot be had, the graph made ready in fp32 is used, and says so."""

    def fail(_: Path) -> bytes:
        raise NotUnderstoodError("it cannot be quantised")

    monkeypatch.setattr(graph, "quantise", fail)
    model = load(model_folder, precision="int8")
    assert (model.precision, model._graph.rewritten, model.scores_pairs_alone) == ("fp32", True, True)
    assert model.score(PAIRS) == expected


def test_each_precision_has_its_own_file(model_folder: Path, cache: Path) -> None:
    """Eight bits are kept beside fp32, not in its place."""
    exact, rough = (prepare_graph(model_folder / "model.onnx", precision) for precision in ("fp32", "int8"))
    assert {exact.model, rough.model} == set(kept(cache))
    assert (exact.precision, rough.precision) == ("fp32", "int8")


def test_a_damaged_reason_is_no_reason(model_folder: Path, cache: Path) -> None:
    """A memory that cannot be read does not keep a graph from being made ready."""
    file = prepare_graph(model_folder / "model.onnx").model
    assert isinstance(file, Path)
    file.unlink()
    for content in (b"", b"{", b"[]", b"\xff", b'{"reason": ""}'):
        file.with_suffix(".json").write_bytes(content)
        assert prepare_graph(model_folder / "model.onnx").rewritten
        file.unlink()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CROSSRERANK_CACHE": "/own/place", "XDG_CACHE_HOME": "/xdg"}, "/own/place"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/langchain-crossrerank"),
        ({"CROSSRERANK_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/langchain-crossrerank"),
        ({"HOME": "/home/me", "USERPROFILE": "/home/me"}, "/home/me/.cache/langchain-crossrerank"),
        ({"HOME": "/home/me", "USERPROFILE": "/home/me", "CROSSRERANK_CACHE": "~/mine"}, "/home/me/mine"),
    ],
)
def test_the_folder_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """`CROSSRERANK_CACHE` wins, then the user's cache folder; `~` stands for the home."""
    for name in ("CROSSRERANK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_make_ready_puts_the_faster_graph_in_place(model_folder: Path, cache: Path, expected: Any) -> None:
    """An exported graph is replaced by its faster form and marked, so that loading it makes and writes nothing."""
    file = model_folder / "model.onnx"
    before = file.read_bytes()
    make_ready(file)
    assert file.read_bytes() != before
    assert onnx.load(str(file)).producer_name == PRODUCER
    assert prepare_graph(file) == PreparedGraph(file, "fp32", rewritten=False)
    assert load(model_folder).score(PAIRS) == expected
    assert kept(cache, "") == []


def test_make_ready_marks_what_cannot_be_faster(
    model_folder: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A graph that is not understood stays as it is but for the mark, and the reason is logged."""

    def fail(_: Path) -> Any:
        raise NotUnderstoodError("it is strange")

    monkeypatch.setattr(graph, "rewrite", fail)
    file = model_folder / "model.onnx"
    before = onnx.load(str(file)).graph
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        make_ready(file)
    made = onnx.load(str(file))
    assert (made.producer_name, made.graph) == (PRODUCER, before)
    assert "it is strange" in caplog.text
    assert prepare_graph(file).model == file
    assert load(model_folder).score(PAIRS) == expected


def test_a_graph_that_cannot_be_loaded_at_all_is_an_error(model_folder: Path) -> None:
    """If the model's own graph is broken there is nothing to fall back on."""
    file = model_folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        load(model_folder)


def test_a_finding_is_kept_and_given_back() -> None:
    """`recall` gives what `remember` kept under the name, and nothing under another."""
    remember("finding", {"a": [1, 2]})
    assert (recall("finding"), recall("another")) == ({"a": [1, 2]}, None)


def test_the_machine_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor or another setting gives another key, the same give the same."""
    key = machine_key("model", 2)
    assert key == machine_key("model", 2) != machine_key("model", 4)
    monkeypatch.setattr(_machine, "_processor", lambda: "another")
    assert machine_key("model", 2) != key


@pytest.mark.parametrize(
    ("producer", "version", "sparing"), [(PRODUCER, PACKED, True), (PRODUCER, "", False), ("another", PACKED, False)]
)
def test_only_graphs_packed_here_are_unpacked_at_load(
    producer: str, version: str, sparing: bool, tmp_path: Path
) -> None:
    """Another program's quantised graph keeps onnxruntime's way with it; a packed one is unpacked once."""
    model = onnx.ModelProto(ir_version=10, producer_name=producer, producer_version=version)
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    for graph_or_file in (file, file.read_bytes()):
        options = onnxruntime.SessionOptions()
        unpack_at_load(options, graph_or_file)
        if sparing:
            assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
        else:
            with pytest.raises(RuntimeError, match="does not have"):
                options.get_session_config_entry("session.disable_quant_qdq")
