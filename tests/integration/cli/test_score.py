"""`crossrerank score` on files: output, exit codes, and messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cli import main, score
from langchain_crossrerank.scoring import ScoringProgress
from langchain_crossrerank.scoring.source import Size

ROWS = [
    {"query": "what is LoRA?", "passage": text} for text in ("LoRA adapts models.", "Owls sleep.", "LoRA is small.")
]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_scored_like_its_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scores in the file are those of the model, and the command says what it wrote."""
    write_rows(tmp_path / "in.jsonl", ROWS)
    assert main(["score", "in.jsonl", "out.jsonl", "--offline"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    scores = load_cross_encoder("bundled").score([(row["query"], row["passage"]) for row in ROWS])
    assert [row["score"] for row in rows] == scores
    shown = capsys.readouterr()
    assert shown.out == "Wrote out.jsonl: 3 rows, 3 pairs.\n"
    assert shown.err == ""


def test_a_bad_row_stops_the_command_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that cannot be scored is an error with file and line, in one line."""
    write_rows(tmp_path / "in.jsonl", [*ROWS, {"query": "", "passage": "p"}])
    assert main(["score", "in.jsonl", "out.jsonl", "--offline"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("crossrerank: error: in.jsonl, line 4: query is ''")
    assert shown.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_skipped_rows_have_an_exit_code_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--on-error skip` the good rows are written, and a script can see that some are missing."""
    write_rows(tmp_path / "in.jsonl", [{"query": "", "passage": "p"}, *ROWS])
    assert main(["score", "in.jsonl", "out.jsonl", "--offline", "--on-error", "skip"]) == score.SKIPPED_ROWS
    shown = capsys.readouterr()
    assert shown.out == "Wrote out.jsonl: 3 rows, 3 pairs.\n"
    assert "1 rows could not be scored and are left out; see out.jsonl.errors.jsonl" in shown.err
    assert json.loads((tmp_path / "out.jsonl.errors.jsonl").read_text())["where"] == "in.jsonl, line 1"


def test_an_output_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file is replaced only with `--overwrite`."""
    write_rows(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("mine")
    assert main(["score", "in.jsonl", "out.jsonl", "--offline"]) == 1
    assert "exists; name another output" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert main(["score", "in.jsonl", "out.jsonl", "--offline", "--overwrite"]) == 0


def test_columns_are_named_by_options(tmp_path: Path) -> None:
    """Columns of any name can be read and written."""
    write_rows(tmp_path / "in.jsonl", [{"frage": row["query"], "antwort": row["passage"]} for row in ROWS])
    words = ["--query-column", "frage", "--passage-column", "antwort", "--score-column", "nähe"]
    assert main(["score", "in.jsonl", "out.jsonl", "--offline", *words]) == 0
    assert "nähe" in json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("pairs", "seconds", "words"),
    [(0, 0.0, ""), (500, 5.0, "100 pairs/s, 0:00:35 left"), (4000, 1.0, "4,000 pairs/s, 0:00:00 left")],
)
def test_progress_says_how_long_it_takes(pairs: int, seconds: float, words: str) -> None:
    """Speed and remaining time are shown as soon as they are known."""
    progress = ScoringProgress(rows=pairs, pairs=pairs, size=Size(4000, 4000), resumed_pairs=0, seconds=seconds)
    assert score.describe_rest(progress) == words
