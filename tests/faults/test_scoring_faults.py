"""Scoring a file that is killed, meets a full disk or another run's files loses nothing and repeats nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring import file_scoring, score_file
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CHILD = Path(__file__).with_name("score_in_child.py")
WORDS = ("ferry", "harbour", "nine", "owl", "sleeps", "old", "tree", "near", "quiet", "river", "leaves", "morning")


def write_rows(path: Path, count: int) -> Path:
    """Write rows whose passages have different lengths; every 29th has no query."""
    rows = [
        {
            "query": " " if number % 29 == 28 else f"where is the {WORDS[number % len(WORDS)]}?",
            "passage": " ".join(WORDS[number % 7 :] * (1 + number % 5)) + f" {number}",
        }
        for number in range(count)
    ]
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=50)
    elif path.suffix == ".csv":
        path.write_text("query,passage\n" + "".join(f"{row['query']},{row['passage']}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def outputs(folder: Path, name: str) -> dict[str, bytes]:
    """Return the content of everything that a run left, except its log."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (name, f"out-{name}.log.jsonl")
    }


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_kills_at_random_moments_change_no_byte(
    suffix: str, tiny_onnx_folder: Path, tmp_path: Path, child_environment: dict[str, str], tally: Tally
) -> None:
    """A run that was killed eight times has the same output and the same errors as an undisturbed one."""
    found = []
    for kills in (0, 8):
        folder = tmp_path / f"killed-{kills}"
        folder.mkdir()
        source = write_rows(folder / f"rows.{suffix}", 400)
        # The error file names the input, so both runs have the same path for it.
        words = [source.name, f"out-{source.name}", str(tiny_onnx_folder), str(kills), "11"]
        done = subprocess.run(
            [sys.executable, str(CHILD), *words],
            cwd=folder,
            env=child_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        killed = json.loads(done.stdout.splitlines()[-1])
        found.append(outputs(folder, source.name))
    assert len([lines for lines in killed if lines is not None]) >= 4
    steady, disturbed = found
    assert set(steady) == {f"out-rows.{suffix}", f"out-rows.{suffix}.errors.jsonl"}
    assert disturbed == steady
    tally("scoring run killed", 8)


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the first row": lambda patch: patch.setattr(file_scoring._Run, "_score_rest", _end),
    "before the output is written": lambda patch: patch.setattr(file_scoring._Run, "_write", _end),
    "between errors and output": lambda patch: patch.setattr(file_scoring, "write_json_lines", _end),
    "before the journal is removed": lambda patch: patch.setattr(Path, "unlink", _end),
}


def _end(*_: Any, **__: Any) -> None:
    os._exit(9)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_the_seams_changes_no_byte(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends between two of its parts is continued by the same call, and leaves the same files."""
    found = []
    for folder, is_killed in ((tmp_path / "steady", False), (tmp_path / "killed", True)):
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_rows(Path("rows.jsonl"), 60)
        if is_killed:
            child = os.fork()
            if child == 0:
                with pytest.MonkeyPatch.context() as patch:
                    MOMENTS[moment](patch)
                    score_file("rows.jsonl", "out-rows.jsonl", model=FakeCrossEncoder(), on_error="skip", chunk_pairs=7)
                    os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            assert Path("out-rows.jsonl.partial").exists()
        result = score_file("rows.jsonl", "out-rows.jsonl", model=FakeCrossEncoder(), on_error="skip", chunk_pairs=7)
        assert (result.rows, result.skipped) == (58, 2)
        found.append(outputs(folder, "rows.jsonl"))
    assert found[0] == found[1]


def test_a_full_disk_keeps_what_was_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot grow is an error that names the file, and the next run goes on from there."""
    resource = pytest.importorskip("resource", reason="needs limits of processes")
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows.jsonl"), 300)
    score_file("rows.jsonl", "steady.jsonl", model=FakeCrossEncoder(), on_error="skip", chunk_pairs=16)
    child = os.fork()
    if child == 0:
        # A file may grow to 3,000 bytes: the kernel then writes a part of a line, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
        try:
            score_file("rows.jsonl", "out.jsonl", model=FakeCrossEncoder(), on_error="skip", chunk_pairs=16)
        except OSError as err:
            os._exit(7 if "out.jsonl.partial" in str(err) and "same command again" in str(err) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not Path("out.jsonl").exists()
    model = FakeCrossEncoder()
    result = score_file("rows.jsonl", "out.jsonl", model=model, on_error="skip", chunk_pairs=16)
    assert result.resumed_rows > 0
    assert sum(map(len, model.batches)) < 290
    assert Path("out.jsonl").read_bytes() == Path("steady.jsonl").read_bytes()


def test_a_disk_that_is_full_at_the_end_keeps_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If only the output does not fit, the next run writes it without scoring anything."""
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows.csv"), 60)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_scoring, "write_csv", full)
        with pytest.raises(OSError, match="No space left"):
            score_file("rows.csv", "out.csv", model=FakeCrossEncoder(), on_error="skip")
    assert not Path("out.csv").exists()
    model = FakeCrossEncoder()
    assert score_file("rows.csv", "out.csv", model=model, on_error="skip").rows == 58
    assert model.batches == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("input", "content of the input"),
        ("columns", "columns"),
        ("model", "setting of the model"),
        ("chunk", "chunk_pairs"),
    ],
)
def test_another_run_is_not_continued(
    change: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of another input, model or setting are never mixed in, and the message says what changed."""
    monkeypatch.chdir(tmp_path)
    source = write_rows(Path("rows.jsonl"), 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_scoring._Run, "_write", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score_file(source, "out.jsonl", model=FakeCrossEncoder())
    settings: dict[str, Any] = {"columns": {"score_column": "other"}, "chunk": {"chunk_pairs": 5}}.get(change, {})
    model = FakeCrossEncoder()
    if change == "input":
        source.write_bytes(source.read_bytes().replace(b"ferry", b"wherry"))
    if change == "model":
        model.max_length = 64
    with pytest.raises(InvalidInputError, match=f"belongs to a run with another .*{complaint}.*delete the file"):
        score_file(source, "out.jsonl", model=model, **settings)
    assert not Path("out.jsonl").exists()
