"""Files that the commands write."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli
from tests.integration.cli.collection import (
    ASKED,
    check_page,
    evaluate_run,
)


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.html"])
def test_output_is_written_whole_or_not_at_all(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """When the file cannot take its name the old one stays, nothing lies about, and the result is printed anyway."""
    (tmp_path / name).write_text("old")
    before = sorted(tmp_path.iterdir())

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    assert cli.main(evaluate_run("--output", name)) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("No verdict, because fewer than 10 queries are judged")
    assert captured.err == f"crossrerank: error: [Errno 13] Permission denied: '{name}'\n"
    assert (tmp_path / name).read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", [["evaluate", "beir"], ["sweep", "beir"], ["profile", "notes.txt", "Why?"]])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.txt", "'x.txt'; name a file that ends in .json, .csv or .html."),
        ("x", "'x'; name a file that ends in .json, .csv or .html."),
        ("", "''; name a file that ends in .json, .csv or .html."),
        ("no/such/x.json", "there is no folder 'no/such'"),
        ("folder.json", "which is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_first(
    beir: Path,
    notes: str,
    no_model: None,
    tmp_path: Path,
    error_of: Callable[[int], str],
    command: list[str],
    name: str,
    said: str,
) -> None:
    """An unknown ending, a folder that is not there, and a folder as target are named before a model is loaded."""
    (tmp_path / "folder.json").mkdir()
    assert said in error_of(cli.main([*command, "--offline", "--output", name]))
    assert not (tmp_path / "no").exists()


def test_compare_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare --output` writes a page of its own, light or dark, with every text escaped."""
    (tmp_path / "notes.txt").write_text('The <b>ferry</b> & "boat" leave <img src=x onerror=alert(1)> at nine.')
    arguments = ["compare", "notes.txt", "When <script>leaves</script> the ferry?", "--offline", "--output", "out.html"]
    assert cli.main([*arguments, "--top-n", "1"]) == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    check_page(text.replace("&lt;img src=x", ""), ["The &lt;b&gt;ferry&lt;/b&gt; &amp; &#34;boat&#34; leave"])
    assert "When &lt;script&gt;leaves&lt;/script&gt; the ferry?" in text
    assert not re.search("<b>ferry|<script>leaves|<img", text)
    assert capsys.readouterr().out.startswith("Query: When <script>")


@pytest.mark.parametrize(
    ("name", "said"), [("no/out.html", "there is no folder 'no'"), ("folder.html", "which is a folder")]
)
def test_a_page_that_cannot_be_written_is_refused_first(
    notes: str, no_model: None, tmp_path: Path, error_of: Callable[[int], str], name: str, said: str
) -> None:
    """`compare --output` looks at its target before a model is loaded."""
    (tmp_path / "folder.html").mkdir()
    assert said in error_of(cli.main(["compare", notes, ASKED["q1"], "--offline", "--output", name]))


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_compare_writes_figures(notes: str, tmp_path: Path, suffix: str) -> None:
    """`compare --output` writes each candidate with both places and its score, also those that were not kept."""
    arguments = ["compare", notes, ASKED["q1"], "--offline", "--top-n", "1", "--output", f"x.{suffix}"]
    assert cli.main(arguments) == 0
    text = (tmp_path / f"x.{suffix}").read_text(encoding="utf-8")
    rows = json.loads(text)["documents"] if suffix == "json" else list(csv.DictReader(text.splitlines()))
    assert [int(row["initial_rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert sum(row["rank"] in (1, "1") for row in rows) == 1
