"""What the commands that measure say about inputs they cannot use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import cli
from tests.integration.cli.collection import (
    evaluate_run,
    sweep_run,
)


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
        (lambda root: shutil.rmtree(root / "beir"), [], "'beir'"),
        (lambda root: (root / "beir" / "queries.jsonl").unlink(), [], "'beir/queries.jsonl'"),
        (lambda root: (root / "beir" / "qrels.tsv").unlink(), [], "'beir/qrels.tsv'"),
        (put("beir/corpus.jsonl", PAIRS + "\n{bad\n"), [], "beir/corpus.jsonl, line 3: '{bad' is not JSON"),
        (put("beir/queries.jsonl", PAIRS + '["q"]\n'), [], "beir/queries.jsonl, line 2: "),
        (put("beir/corpus.jsonl", PAIRS * 2), [], "beir/corpus.jsonl, line 2: the id 'a' comes twice"),
        (put("beir/queries.jsonl", PAIRS * 2), [], "beir/queries.jsonl, line 2: the id 'a' comes twice"),
        (put("beir/qrels.tsv", HEAD + "q1\tferry\t1\nq1\tferry\t2\n"), [], "line 3: 'q1' and 'ferry' are judged twice"),
        (put("beir/qrels.tsv", HEAD + "q1\tferry\thigh\n"), [], "beir/qrels.tsv, line 2: "),
        (put("beir/qrels.tsv", HEAD + "q1\tghost\t1\n"), [], "the corpus lacks, for example ['ghost']"),
        (
            put("beir/qrels.tsv", HEAD + "q9\tferry\t1\n"),
            [],
            "only queries that are not in the collection, for example ['q9']",
        ),
        (put("beir/qrels.tsv", HEAD), [], "holds no judgements"),
        (
            put("other.tsv", HEAD + "q1\tghost\t1\n"),
            ["--qrels", "other.tsv"],
            "the corpus lacks, for example ['ghost']",
        ),
        (put("other.tsv", HEAD + "q9\tferry\t1\n"), ["--qrels", "other.tsv"], "judges only queries that are not"),
        (put("other.tsv", ""), ["--qrels", "other.tsv"], "holds no judgements"),
        (put("x", ""), ["--qrels", "no.tsv"], "--qrels is 'no.tsv', and there is no such file"),
        (put("x", ""), ["--run", "no.tsv"], "--run is 'no.tsv', and there is no such file"),
        (put("x", ""), ["--split", "dev"], "no judgements of the split 'dev', and no others in qrels/"),
        (put("x", ""), ["--split", "dev"], "(on the command line --split)"),
        (put("r.tsv", ""), ["--run", "r.tsv"], "--run 'r.tsv' has no documents for any judged query"),
        (put("r.tsv", HEAD), ["--run", "r.tsv"], "--run 'r.tsv' has no documents for any judged query"),
        (put("r.tsv", HEAD + "q9\tferry\t1\n"), ["--run", "r.tsv"], "has no documents for any judged query"),
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
    error_of: Callable[[int], str],
    command: str,
    change: Callable[[Path], None],
    more: list[str],
    named: str,
) -> None:
    """An error in the folder, the judgements or the run is named, with its line, before a model is loaded."""
    change(tmp_path)
    assert named in error_of(cli.main([command, "beir", "--offline", *more]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (evaluate_run("--measures", "xyz@3"), "'xyz@3' is not a measure"),
        (evaluate_run("--measures", "nDCG@10,P"), "the measure 'P' cannot be computed"),
        (sweep_run("--measure", "xyz@3"), "'xyz@3' is not a measure"),
        (evaluate_run("--k", "0"), "--k is 0"),
        (evaluate_run("--top-n", "0"), "--top-n is 0"),
        (["sweep", "beir", "--offline", "--ks", "5,0"], "--ks is [5, 0]"),
        (evaluate_run("--files", "notes.txt"), "--make-queries"),
        (["profile", "notes.txt", "Why?", "--offline", "--repeats", "0"], "--repeats is 0"),
        (["profile", "missing.txt", "Why?", "--offline"], "'missing.txt'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_setting_that_cannot_be_used_is_one_line(
    beir: Path, notes: str, no_model: None, error_of: Callable[[int], str], arguments: list[str], named: str
) -> None:
    """An unknown measure and a number out of range are named before a model is loaded."""
    assert named in error_of(cli.main(arguments))
