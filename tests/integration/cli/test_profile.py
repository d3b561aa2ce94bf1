"""`crossrerank profile`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli
from tests.integration.cli.collection import (
    ASKED,
    check_page,
)


def test_profile_prints_each_stage(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The stages of search, rerank and answer are in order; standard error is empty."""
    assert cli.main(["profile", notes, ASKED["q1"], "--offline", "--repeats", "1"]) == 0
    captured = capsys.readouterr()
    stages = [line.split()[0] for line in captured.out.splitlines()[2:7]]
    assert stages == ["search", "tokenise", "forward", "select", "answer"]
    assert "1 queries x 1, bundled" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("suffix", ["json", "csv", "html"])
def test_a_profile_is_written_in_every_form(notes: str, tmp_path: Path, suffix: str) -> None:
    """JSON, CSV and HTML hold the same stages."""
    arguments = ["profile", notes, ASKED["q1"], "--offline", "--repeats", "2", "--output", f"x.{suffix}"]
    assert cli.main(arguments) == 0
    text = (tmp_path / f"x.{suffix}").read_text()
    stages = ["search", "tokenise", "forward", "select", "answer"]
    if suffix == "json":
        content = json.loads(text)
        assert [row["name"] for row in content["stages"]] == stages
        assert (content["queries"], content["repeats"], content["model"]) == (1, 2, "bundled")
    elif suffix == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["stage"] for row in rows] == stages
        assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    else:
        check_page(text, [f'<td class="text " data-title="stage">{stage}</td>' for stage in stages])
