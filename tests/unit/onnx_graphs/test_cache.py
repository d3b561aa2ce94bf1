"""Graphs prepared once on each machine: where they are kept, what happens when that fails, and what it costs later."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import TensorProto, helper, numpy_helper

import langchain_crossrerank
from langchain_crossrerank import _machine
from langchain_crossrerank._machine import cache_folder, machine_key, recall, remember
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.errors import GraphRewriteError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs import cache as graph_cache
from langchain_crossrerank.onnx_graphs import quantising, rewriting
from langchain_crossrerank.onnx_graphs.cache import own_graph, prepare_graph, split_graph

PAIRS = [("what is lora", "low-rank adaptation"), ("what is lora", "the weather")]
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
    """Load a folder again, even if this process has loaded it already."""
    return OnnxCrossEncoder(ModelSource("tiny", folder), activation="identity", **settings)


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


def kept(cache: Path, ending: str = ".onnx") -> list[Path]:
    """Files in the cache, hidden ones included."""
    return sorted(file for file in cache.iterdir() if file.name.endswith(ending)) if cache.exists() else []


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


def test_scores_stay(model_folder: Path, expected: Any) -> None:
    """Rewritten, found rewritten, and unchanged, a graph returns the same scores."""
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


def test_each_precision_has_its_own_file(model_folder: Path, cache: Path) -> None:
    """Eight bits are kept in addition to fp32, not in its place."""
    exact, rough = (prepare_graph(model_folder / "model.onnx", precision) for precision in ("fp32", "int8"))
    assert {exact.graph.model, rough.graph.model} == {file.read_bytes() for file in kept(cache)}
    assert (exact.precision, rough.precision) == ("fp32", "int8")


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
    """`CROSSRERANK_CACHE` wins, then the user's cache folder; `~` is the home folder."""
    for name in ("CROSSRERANK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_graph_that_cannot_be_loaded_at_all_is_an_error(model_folder: Path) -> None:
    """If the model's own graph is broken there is nothing to fall back on."""
    file = model_folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        load(model_folder)


def test_a_finding_is_kept_and_given_back() -> None:
    """`recall` returns what `remember` kept under the name, and nothing under another."""
    remember("finding", {"a": [1, 2]})
    assert (recall("finding"), recall("another")) == ({"a": [1, 2]}, None)


def test_the_machine_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor or setting makes another key; the same ones make the same key."""
    key = machine_key("model", 2)
    assert key == machine_key("model", 2) != machine_key("model", 4)
    monkeypatch.setattr(_machine, "_processor", lambda: "another")
    assert machine_key("model", 2) != key
