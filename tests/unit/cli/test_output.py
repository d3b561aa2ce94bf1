"""What the commands print and write."""

from __future__ import annotations

import ast
import csv
import io
import os
from pathlib import Path

import pytest

from langchain_crossrerank import cli
from langchain_crossrerank.cli.output import SUFFIXES, check_target, note, report, say
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.results import EvaluationResult, MeasureResult

HOSTILE = "=HYPERLINK(\x1b[31m)\n\u202e"


def result_for(query_ids: list[str]) -> EvaluationResult:
    """An evaluation of these queries."""
    values = dict.fromkeys(query_ids, (0.5, -0.25))
    measure = MeasureResult("nDCG@10", 0.5, 0.75, 1.0, 0.25, 0.1, 0.4, 0.01, values)
    times = dict.fromkeys(query_ids, 1.0)
    return EvaluationResult([measure], len(query_ids), 0, 0, 20, "bundled", times, times, dict.fromkeys(query_ids, "?"))


def test_only_one_module_writes_to_the_terminal() -> None:
    """No command prints by itself, so that nothing reaches the terminal unchecked."""
    modules = sorted(Path(cli.__file__).parent.glob("*.py"))
    assert len(modules) > 5
    for module in modules:
        if module.name in ("output.py", "__init__.py"):
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "print"), module
            assert not (isinstance(node, ast.Attribute) and node.attr in {"write", "secho", "echo"}), module


def test_texts_and_notes_are_made_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """A text keeps its lines, a note is one line, and neither has a character that acts on the terminal."""
    say(HOSTILE)
    note(HOSTILE)
    captured = capsys.readouterr()
    assert captured.out == "=HYPERLINK(\\x1b[31m)\n\\u202e\n"
    assert captured.err == "crossrerank: =HYPERLINK(\\x1b[31m)\\n\\u202e\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_runs_nothing(tmp_path: Path, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A query id that a spreadsheet would run as a formula is marked as text; numbers stay numbers."""
    query_id = f"{start}cmd|' /C calc'!A0"
    report(result_for([query_id, "q1"]), [], str(tmp_path / "x.csv"))
    with (tmp_path / "x.csv").open(newline="") as file:
        _, first, second = csv.reader(file)
    assert first == [f"'{query_id}", "nDCG@10", "0.5", "-0.25"]
    assert second[0] == "q1"


def test_an_existing_file_is_replaced_and_what_it_links_to_is_not(tmp_path: Path) -> None:
    """A link at the target's place is replaced; the file it leads to keeps its content."""
    (tmp_path / "precious.txt").write_text("keep")
    (tmp_path / "x.csv").symlink_to(tmp_path / "precious.txt")
    report(result_for(["q1"]), [], str(tmp_path / "x.csv"))
    assert (tmp_path / "precious.txt").read_text() == "keep"
    assert (tmp_path / "x.csv").read_text().startswith("query_id")


@pytest.mark.parametrize("name", ["pipe.json", "device.json"])
def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path, name: str) -> None:
    """Only a plain file is replaced by a result, so that `/dev/null` and the like survive."""
    if name.startswith("pipe"):
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(os.devnull)
    with pytest.raises(InvalidInputError, match="device or a pipe"):
        check_target("--output", str(tmp_path / name), SUFFIXES)


def test_a_closed_pipe_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the reader of a pipe stops reading, the rest of the output is discarded."""
    dropped = []

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    monkeypatch.setattr("langchain_crossrerank.cli.output.drop_output", lambda: dropped.append(True))
    say("much")
    assert dropped == [True]
