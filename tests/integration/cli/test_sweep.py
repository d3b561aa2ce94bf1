"""`crossrerank sweep`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli, evaluation
from tests.integration.cli.collection import (
    check_page,
    rows_of,
    sweep_run,
)


def test_sweep_prints_a_row_for_each_k(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each number of candidates has its row, and the best one that is smallest is marked."""
    assert cli.main(sweep_run()) == 0
    captured = capsys.readouterr()
    rows = [line.split() for line in captured.out.splitlines()[2:5]]
    assert [row[:3] for row in rows] == [["1", "0.000", "0.000"], ["2", "0.000", "0.000"], ["5", "1.000", "1.000"]]
    assert captured.out.splitlines()[4].endswith("<- knee")
    assert "Without reranking: nDCG@10 0.387." in captured.out
    assert captured.err == ""


def test_sweep_embeds_a_folder_by_itself(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a run as many candidates are fetched as the largest k asks for."""
    assert cli.main(["sweep", "beir", "--offline", "--ks", "2", "--ks", "5", "--measure", "R@5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:4]]
    assert [row[:2] for row in rows] == [["2", "1.000"], ["5", "1.000"]]


def test_a_sweep_has_one_row_of_csv_for_each_k(beir: Path, tmp_path: Path) -> None:
    """`--output x.csv` has quality, ceiling and times for each k, ascending."""
    assert cli.main(sweep_run("--output", "x.csv", "--measure", "RR@10")) == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["k"], row["measure"], float(row["quality"]), float(row["ceiling"])) for row in rows] == [
        ("1", "RR@10", 0.0, 0.0),
        ("2", "RR@10", 0.0, 0.0),
        ("5", "RR@10", 1.0, 1.0),
    ]
    assert all(0 < float(row["p50_ms"]) <= float(row["p95_ms"]) for row in rows)


def test_a_sweep_is_written_as_json_and_html(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON contains what `to_dict` returns, and HTML is a complete page with the table."""
    original = evaluation.sweep
    seen: list[evaluation.SweepResult] = []

    def remembering(*args: Any, **kwargs: Any) -> evaluation.SweepResult:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(evaluation, "sweep", remembering)
    assert cli.main(sweep_run("--output", "x.json")) == 0
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(seen[0].to_dict()))
    assert cli.main(sweep_run("--output", "x.html")) == 0
    check_page((tmp_path / "x.html").read_text(), rows_of(seen[1]._repr_html_()))


@pytest.mark.parametrize(
    ("budget", "advice"),
    [
        ("1e9", "Within 1e+09 ms (p95): --k 5 --top-n 1."),
        ("1e-9", "Within 1e-09 ms (p95): no number of candidates above 1 was that fast."),
    ],
)
def test_a_budget_is_answered_with_options(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str, advice: str
) -> None:
    """`--budget-ms` advises a number of candidates and of kept documents, on the terminal and in the file."""
    assert cli.main(sweep_run("--budget-ms", budget, "--output", "x.json")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == advice
    assert json.loads((tmp_path / "x.json").read_text())["notes"] == [advice]


def test_a_budget_that_is_met_without_a_gain_is_answered(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers of candidates that are fast enough and no better than no reranking are told from slow ones."""
    assert cli.main([*sweep_run()[:-1], "2", "--budget-ms", "1e9"]) == 0
    advice = "Within 1e+09 ms (p95): no number of candidates is better than no reranking."
    assert capsys.readouterr().out.splitlines()[-1] == advice


@pytest.mark.parametrize("budget", ["0", "-5"])
def test_a_budget_that_nothing_can_meet_is_refused_first(
    beir: Path, no_model: None, error_of: Callable[[int], str], budget: str
) -> None:
    """A budget of no time is named before a model is loaded."""
    assert f"--budget-ms is {float(budget):g}" in error_of(cli.main(sweep_run(f"--budget-ms={budget}")))
