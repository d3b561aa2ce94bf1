"""`crossrerank evaluate`, with the models inside the package and without network."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import EvaluationResult, cli, evaluation, extras
from tests.integration.cli.collection import (
    ANSWERS,
    ASKED,
    TEXTS,
    check_page,
    evaluate_run,
    rows_of,
    run_rows,
    write_rows,
    write_table,
)

QUESTIONS = Path(__file__).parents[3] / "notebooks" / "data" / "llm_fundamentals_questions"
HEAD = "query-id\tcorpus-id\tscore\n"
NO_VERDICT = "No verdict, because fewer than 10 queries are judged"


def test_evaluate_prints_a_verdict_and_a_table(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict on the first measure comes first, then a row for each measure; standard error is empty."""
    assert cli.main(evaluate_run()) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith(f"{NO_VERDICT}: nDCG@10 0.387 -> 1.000 (+0.613, 95 % interval ")
    assert [line.split()[0] for line in lines[4:7]] == ["nDCG@10", "RR@10", "R@5"]
    assert "3 queries, 5 candidates at most, bundled" in captured.out
    assert captured.err == ""


def test_evaluate_embeds_a_folder_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a run the folder's documents are embedded and searched; the shipped questions find their passages."""
    folder = tmp_path / "questions"
    shutil.copytree(QUESTIONS, folder)
    kept = (folder / "qrels.tsv").read_text().splitlines(keepends=True)
    (folder / "qrels.tsv").write_text(
        "".join(line for line in kept if line.split("\t")[0] in {"query-id", "q02", "q03"})
    )
    assert cli.main(["evaluate", "questions", "--offline", "--measures", "RR@10,R@k", "--k", "15"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^RR@10 ", captured.out, re.MULTILINE)
    recall = re.search(r"^R@15 +\d\.\d+ +(\d\.\d+)", captured.out, re.MULTILINE)
    assert recall is not None
    assert float(recall[1]) > 0.5
    assert "2 queries, 15 candidates at most, bundled" in captured.out


def test_json_holds_the_whole_result(beir: Path, tmp_path: Path, results: list[EvaluationResult]) -> None:
    """`--output x.json` contains what `to_dict` returns, and nothing else."""
    assert cli.main(evaluate_run("--output", "x.json")) == 0
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(results[0].to_dict()))


def test_csv_has_a_row_for_each_query_and_measure(beir: Path, tmp_path: Path, results: list[EvaluationResult]) -> None:
    """`--output x.csv` has every query's values before and after, under a header."""
    assert cli.main(evaluate_run("--output", "x.csv")) == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["query_id", "measure", "before", "after"]
    assert [(key, name, float(before), float(after)) for key, name, before, after in rows] == [
        (key, row.name, *values) for row in results[0].measures for key, values in row.per_query.items()
    ]
    assert len(rows) == 3 * 3


def test_html_is_a_page_of_its_own(beir: Path, tmp_path: Path, results: list[EvaluationResult]) -> None:
    """`--output x.html` is a whole page, light or dark, that fetches nothing and holds the result's table."""
    assert cli.main(evaluate_run("--output", "x.html")) == 0
    check_page((tmp_path / "x.html").read_text(encoding="utf-8"), rows_of(results[0]._repr_html_()))


def test_the_ending_of_output_may_be_in_capitals(beir: Path, tmp_path: Path) -> None:
    """`.JSON` is JSON too."""
    assert cli.main(evaluate_run("--output", "x.JSON")) == 0
    assert json.loads((tmp_path / "x.JSON").read_text())["queries"] == 3


@pytest.mark.parametrize(("least", "code"), [("0.61", 0), ("-1", 0), ("0", 0), ("0.62", 3), ("1", 3)])
def test_a_gain_below_the_minimum_is_exit_code_3(
    beir: Path, capsys: pytest.CaptureFixture[str], least: str, code: int
) -> None:
    """The gain of 0.613 passes up to that and fails above, which is said in one line after the result."""
    assert cli.main(evaluate_run("--min-ndcg-gain", least)) == code
    captured = capsys.readouterr()
    assert captured.out.startswith(NO_VERDICT)
    said = f"crossrerank: nDCG@10 gain +0.6131 is below {float(least)}\n" if code else ""
    assert captured.err == said


def test_a_gain_that_is_reached_exactly_is_enough(beir: Path, tmp_path: Path) -> None:
    """A gain of exactly the minimum is enough."""
    assert cli.main(evaluate_run("--output", "x.json")) == 0
    gain = json.loads((tmp_path / "x.json").read_text())["measures"][0]["difference"]
    assert cli.main(evaluate_run("--min-ndcg-gain", repr(gain))) == 0


def test_the_gain_is_measured_even_if_its_measure_is_not_listed(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With other `--measures`, nDCG@10 is measured as well, and the verdict is still that of the first one listed."""
    assert cli.main(evaluate_run("--measures", "RR@10", "--measures", "R@2", "--min-ndcg-gain", "0.62")) == 3
    captured = capsys.readouterr()
    assert "RR@10 0.200 -> 1.000" in captured.out.splitlines()[0]
    assert [line.split()[0] for line in captured.out.splitlines()[4:7]] == ["RR@10", "R@2", "nDCG@10"]
    assert "nDCG@10 gain +0.6131" in captured.err


def test_qrels_replace_the_judgements_of_the_folder(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--qrels` may judge queries that the folder's file does not, and the folder needs no file of its own."""
    write_table(tmp_path / "other.tsv", [("q3", "tower", 1), ("q2", "bees", 1)])
    for folders in ([("q1", "ferry", 1)], None):
        if folders is None:
            (beir / "qrels.tsv").unlink()
        else:
            write_table(beir / "qrels.tsv", folders)
        assert cli.main(evaluate_run("--qrels", "other.tsv")) == 0
        output = capsys.readouterr().out
        assert "2 queries," in output
        assert re.search(r"^R@5 +1\.000 +1\.000 ", output, re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in reversed(run_rows())),
        "query-id\tcorpus-id\trank\tscore\n" + "".join(f"{q}\t{d}\t{10 - s:.0f}\t{s}\n" for q, d, s in run_rows()),
        "query-id\tcorpus-id\n" + "".join(f"{q}\t{d}\n" for q, d, _ in run_rows()),
        "".join(f"{q} Q0 {d} {10 - s:.0f} {s} bm25\n" for q, d, s in reversed(run_rows())),
        "\n" + "".join(f"{q}\tQ0\t{d}\t{10 - s:.0f}\t{s}\tbm25\r\n" for q, d, s in run_rows()),
    ],
    ids=["scores", "ranks and scores", "order", "TREC by spaces", "TREC by tabs"],
)
def test_a_run_is_read_in_the_usual_forms(
    beir: Path, tmp_path: Path, results: list[EvaluationResult], text: str
) -> None:
    """A table with or without ranks and scores, and a TREC run, are the same first stage."""
    (tmp_path / "run.tsv").write_text(text, newline="")
    assert cli.main(evaluate_run("--measures", "RR@10")) == 0
    assert results[0].measures[0].per_query == dict.fromkeys(ANSWERS, (0.2, 1.0))


def test_a_query_that_the_run_lacks_counts_as_0(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judged query without candidates is not dropped, and that is said."""
    write_table(tmp_path / "run.tsv", [row for row in run_rows() if row[0] != "q2"])
    assert cli.main(evaluate_run()) == 0
    output = capsys.readouterr().out
    assert "3 queries, 5 candidates" in output
    assert "1 queries found nothing and count as 0" in output


def test_k_is_the_number_of_candidates(beir: Path, results: list[EvaluationResult]) -> None:
    """`--k 3` reranks the first three of a run, and `R@k` is recall at 3."""
    assert cli.main(evaluate_run("--k", "3")) == 0
    assert results[0].k == 3
    assert [row.name for row in results[0].measures] == ["nDCG@10", "RR@10", "R@3"]


def test_top_n_changes_nothing_that_is_measured(beir: Path, results: list[EvaluationResult]) -> None:
    """All candidates are reranked and measured, whatever `--top-n`."""
    for top_n in ("1", "5"):
        assert cli.main(evaluate_run("--top-n", top_n)) == 0
    assert results[0].measures == results[1].measures


def test_a_checkpoint_saves_the_second_run(
    beir: Path, tmp_path: Path, results: list[EvaluationResult], counting: Callable[..., Any]
) -> None:
    """A second run with the same `--checkpoint` scores nothing and has the same result."""
    model = counting()
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    assert model.pairs == 3 * 5
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    assert model.pairs == 3 * 5
    assert results[0] == results[1]


def test_an_interrupted_run_resumes_from_its_checkpoint(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], counting: Callable[..., Any]
) -> None:
    """Ctrl-C is exit code 130, one line and no output file; the next run scores only what was left."""
    counting(interrupted_at=ASKED["q3"])
    arguments = evaluate_run("--checkpoint", "done.jsonl", "--output", "x.json")
    assert cli.main(arguments) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "crossrerank: interrupted\n")
    assert not (tmp_path / "x.json").exists()
    model = counting()
    assert cli.main(arguments) == 0
    assert model.pairs == 5
    assert json.loads((tmp_path / "x.json").read_text())["queries"] == 3


def other_run(root: Path) -> list[str]:
    write_table(root / "run.tsv", [(query_id, name, -score) for query_id, name, score in run_rows()])
    return []


def other_text(root: Path) -> list[str]:
    rows = [{"_id": key, "text": text.replace("nine", "ten")} for key, text in TEXTS.items()]
    write_rows(root / "beir" / "corpus.jsonl", rows)
    return []


def other_k(root: Path) -> list[str]:
    return ["--k", "4"]


@pytest.mark.parametrize("change", [other_run, other_text, other_k])
def test_a_checkpoint_of_something_else_is_refused(
    beir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error_of: Callable[[int], str],
    change: Callable[[Path], list[str]],
) -> None:
    """What was found in another run, another corpus or with another k is never taken for this one."""
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    capsys.readouterr()
    more = change(tmp_path)
    said = error_of(cli.main(evaluate_run("--checkpoint", "done.jsonl", *more)))
    assert "'done.jsonl' belongs to another model, retriever or setting" in said


def test_a_folder_as_checkpoint_is_one_line(beir: Path, error_of: Callable[[int], str]) -> None:
    """A file that cannot be read is an error like any other, without a traceback."""
    assert "'beir'" in error_of(cli.main(evaluate_run("--checkpoint", "beir")))


def test_a_terminal_gets_colours_unless_they_are_refused(
    beir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is coloured where colours are wanted, never with `NO_COLOR`, and has the same words."""
    shown = {}
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for refused in ("", "1"):
        monkeypatch.setenv("NO_COLOR", refused)
        assert cli.main(evaluate_run()) == 0
        shown[refused] = capsys.readouterr().out
    assert re.search(r"\x1b\[(?:\d+;)*3\d", shown[""])
    assert not re.search(r"\x1b\[(?:\d+;)*[349]\d", shown["1"])
    words = [re.sub(r"\x1b\[[\d;]*m", "", text).split() for text in shown.values()]
    assert words[0][:8] == words[1][:8]
    assert {"nDCG@10", "0.387", "+0.613"} <= set(words[1])


@pytest.mark.parametrize("command", [["evaluate", "beir"], ["sweep", "beir"]])
def test_a_missing_extra_is_reported_before_any_work(
    no_model: None, monkeypatch: pytest.MonkeyPatch, error_of: Callable[[int], str], command: list[str]
) -> None:
    """Without the `eval` extra one line names what to install, before the folder is read or a model is loaded."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ir_measures" else object())
    said = error_of(cli.main([*command, "--offline"]))
    assert "ir_measures" in said
    assert 'pip install "langchain-crossrerank[eval]"' in said


def test_a_split_has_its_own_judgements(beir: Path, results: list[EvaluationResult]) -> None:
    """`--split dev` takes `qrels/dev.tsv`, and `qrels/test.tsv` is the default."""
    (beir / "qrels.tsv").unlink()
    (beir / "qrels").mkdir()
    write_table(beir / "qrels" / "test.tsv", [("q1", "ferry", 1), ("q2", "bread", 1)])
    write_table(beir / "qrels" / "dev.tsv", [("q3", "tower", 1)])
    assert cli.main(evaluate_run()) == 0
    assert cli.main(evaluate_run("--split", "dev")) == 0
    assert [set(result.texts) for result in results] == [{"q1", "q2"}, {"q3"}]


def test_a_sample_is_measured_and_reported(
    beir: Path, tmp_path: Path, results: list[EvaluationResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--sample 2` measures two of three judged queries, and says so on the terminal and in the file."""
    assert cli.main(evaluate_run("--sample", "2", "--output", "x.json")) == 0
    assert results[0].queries == 2
    assert "A random sample of 2 of 3 judged queries" in capsys.readouterr().out
    assert "A random sample of 2 of 3" in json.loads((tmp_path / "x.json").read_text())["notes"][0]


def test_what_was_left_out_of_a_collection_is_reported(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judgement of a document that is not there is counted in a note below the result."""
    write_table(beir / "qrels.tsv", [(key, name, 1) for key, name in ANSWERS.items()] + [("q1", "ghost", 1)])
    assert cli.main(evaluate_run()) == 0
    assert "ghost" in capsys.readouterr().out.split("Gained most")[1]


def test_a_test_set_in_one_file_is_measured(tmp_path: Path, results: list[EvaluationResult]) -> None:
    """A file of questions with the contexts that answer them is a collection, too."""
    rows = [{"user_input": ASKED[key], "reference_contexts": [TEXTS[name]]} for key, name in ANSWERS.items()]
    write_rows(tmp_path / "ragas.jsonl", rows)
    assert cli.main(["evaluate", "ragas.jsonl", "--offline"]) == 0
    assert results[0].queries == 3


def test_two_rerankers_are_compared(
    beir: Path,
    tmp_path: Path,
    tiny_onnx_folder: Path,
    results: list[EvaluationResult],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--against` measures another model on the same first stage, and prints and writes how the two compare."""
    arguments = evaluate_run("--against", str(tiny_onnx_folder), "--checkpoint", "done.jsonl")
    assert cli.main([*arguments, "--output", "x.json"]) == 0
    assert [result.model for result in results] == ["bundled", str(tiny_onnx_folder)]
    expected = results[0].against(results[1])
    assert expected.verdict in capsys.readouterr().out
    assert json.loads((tmp_path / "x.json").read_text())["against"] == json.loads(json.dumps(expected.to_dict()))
    assert (tmp_path / "done.jsonl.against").exists()
    assert cli.main([*arguments, "--output", "x.html"]) == 0
    check_page((tmp_path / "x.html").read_text(encoding="utf-8"), rows_of(expected._repr_html_()))


@pytest.mark.parametrize("first_stage", [["--run", "run.tsv"], []], ids=["run", "embedded"])
def test_a_model_to_compare_with_is_loaded_first(
    beir: Path,
    results: list[EvaluationResult],
    error_of: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
    first_stage: list[str],
) -> None:
    """A model of `--against` that cannot be loaded costs no embedding and no evaluation."""
    monkeypatch.setattr(evaluation, "kept_vector_store", None)
    arguments = ["evaluate", "beir", "--offline", *first_stage, "--against", "./no-model"]
    assert "'./no-model'" in error_of(cli.main(arguments))
    assert results == []


def test_a_failed_comparison_leaves_the_first_result(
    beir: Path,
    tmp_path: Path,
    tiny_onnx_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If the second model cannot be measured, the result of the first is printed and written, and the error is said."""
    original = evaluation.evaluate

    def measure(retriever: Any, *args: Any, **kwargs: Any) -> EvaluationResult:
        result = original(retriever, *args, **kwargs)
        if result.model != "bundled":
            raise OSError("the disk is full")
        return result

    monkeypatch.setattr(evaluation, "evaluate", measure)
    assert cli.main(evaluate_run("--against", str(tiny_onnx_folder), "--output", "x.json")) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(NO_VERDICT)
    assert captured.err == "crossrerank: error: the disk is full\n"
    assert json.loads((tmp_path / "x.json").read_text())["model"] == "bundled"
