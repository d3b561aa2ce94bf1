"""`crossrerank ask` and `crossrerank compare`."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings

from langchain_crossrerank import CrossEncoder, cli, embeddings, load_cross_encoder
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.embeddings import load_embeddings
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.integration.cli.collection import ASKED, TEXTS

FERRY = TEXTS["ferry"]
QUESTION = ASKED["q1"]


def test_ask_quotes_the_answer_with_its_source(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ask --offline` prints an extractive answer and the sources with their scores."""
    assert cli.main(["ask", notes, QUESTION, "--offline"]) == 0
    captured = capsys.readouterr()
    assert f'- "{FERRY}" (notes.txt)' in captured.out
    assert "Extractive answer" in captured.out
    assert re.search(r"^\[1\] \d\.\d{3}  notes\.txt$", captured.out, re.MULTILINE)
    assert captured.out.splitlines()[-1] == "Searched notes.txt."
    assert captured.err == ""


def test_ask_offline_stays_offline_whatever_the_key(
    notes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--offline` answers without a language model even if a key is set."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
    assert cli.main(["ask", notes, QUESTION, "--offline"]) == 0
    assert "Extractive answer" in capsys.readouterr().out


def test_ask_prints_nothing_before_an_answer(
    notes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If scoring fails, standard output has no heading of an answer that does not come."""
    monkeypatch.setattr(Stages, "load_model", lambda self: ScriptedCrossEncoder({}, default=float("nan")))
    assert cli.main(["ask", notes, QUESTION, "--offline"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crossrerank: error: ")


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
    assert [line for line in lines if "kept by bundled" in line]
    assert re.fullmatch(r"\[1\] \d\.\d{3}  notes\.txt", lines[lines.index("Sources (score, file):") + 1])
    assert lines[-1] == "Searched notes.txt."
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


def test_an_emptied_folder_leaves_nothing_in_a_kept_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If the last file is gone, that is said, and its chunks are gone as well."""
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    folder.mkdir()
    (folder / "a.txt").write_text(FERRY)
    arguments = ["ask", str(folder), QUESTION, "--offline", "--persist", str(kept)]
    assert cli.main(arguments) == 0
    (folder / "a.txt").unlink()
    capsys.readouterr()
    assert cli.main(arguments) == 1
    assert "holds no files that are read" in capsys.readouterr().err
    with closing(sqlite3.connect(kept / "chroma.sqlite3")) as database:
        assert database.execute("SELECT count(*) FROM embeddings").fetchone() == (0,)


def test_skipped_files_are_named_on_standard_error(
    notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read is named, and the answer comes from the others."""
    (tmp_path / "broken.pdf").write_text("no PDF")
    assert cli.main(["ask", notes, str(tmp_path / "broken.pdf"), QUESTION, "--offline"]) == 0
    captured = capsys.readouterr()
    assert FERRY in captured.out
    assert [line for line in captured.err.splitlines() if "skipped" in line and "broken.pdf" in line]


def test_too_few_candidates_are_pointed_out(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--k` not above `--top-n` one line says that only the order can change."""
    assert cli.main(["compare", notes, QUESTION, "--offline", "--k", "2", "--top-n", "2"]) == 0
    assert capsys.readouterr().err == "crossrerank: --k 2 with --top-n 2: only the order can change\n"


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x1b[31m \u202e \x9b31m \x08"


@pytest.mark.parametrize("command", ["ask", "compare"])
@pytest.mark.parametrize("place", ["document", "file name", "broken file name", "question"])
def test_nothing_in_a_text_acts_on_the_terminal(
    notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    """Escape sequences, control characters and overrides of documents, names and questions are shown as escapes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    name = f"ferry{HOSTILE}\n[1] 0.999  trusted.pdf.txt" if place == "file name" else "ferry.txt"
    (folder / name).write_text(f"{FERRY} {HOSTILE if place == 'document' else ''} It is blue.", encoding="utf-8")
    if place == "broken file name":
        (folder / f"b{HOSTILE}\n.pdf").write_bytes(b"%PDF broken")
    question = f"{QUESTION} {HOSTILE}" if place == "question" else QUESTION
    assert cli.main([command, str(folder), question, "--offline", "--top-n", "1"]) == 0
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert not set("\x1b\x07\x9b\x08\u202e") & set(shown)
    assert not [line for line in shown.splitlines() if line.startswith("[1] 0.999")]
    if place == "broken file name":
        assert len(captured.err.splitlines()) == 1


def test_a_question_that_is_not_valid_text_is_searched_for(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte that is not UTF-8, which arrives as a lone surrogate, is replaced and the question is answered."""
    assert cli.main(["ask", notes, "When does \udcff the ferry leave?", "--offline"]) == 0
    assert FERRY in capsys.readouterr().out


@pytest.mark.parametrize("command", ["ask", "compare", "profile"])
@pytest.mark.parametrize("question", ["", " \n"])
def test_a_blank_question_is_refused_before_anything_is_read(
    no_model: None, capsys: pytest.CaptureFixture[str], command: str, question: str
) -> None:
    """A blank question is an error before files are looked for, a model is loaded or anything is printed."""
    assert cli.main([command, "missing.txt", question, "--offline"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crossrerank: error: query is ")


def test_a_pipe_is_80_columns_wide(notes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, a comparison is laid out in 80 columns without colours."""
    assert cli.main(["compare", notes, QUESTION, "--offline"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert "\x1b" not in output


@pytest.fixture
def kept(notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A second file, and the options of an index that has the notes already."""
    (tmp_path / "garden.txt").write_text("The garden is open to all guests until the evening.")
    options = ["--offline", "--persist", "kept"]
    assert cli.main(["ask", notes, QUESTION, *options]) == 0
    capsys.readouterr()
    return options


@pytest.mark.parametrize("command", ["ask", "compare"])
def test_a_kept_index_answers_from_the_named_files(
    kept: list[str], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Files of an earlier call are searched only with `--all`, and what is searched is said."""
    assert cli.main([command, "garden.txt", QUESTION, *kept]) == 0
    alone = capsys.readouterr().out
    assert FERRY[:20] not in alone
    assert alone.splitlines()[-1] == "Searched garden.txt."
    assert cli.main([command, "garden.txt", QUESTION, *kept, "--all"]) == 0
    together = capsys.readouterr().out
    assert FERRY[:20] in together
    assert set(re.findall(r"\w+\.txt", together.splitlines()[-1])) == {"garden.txt", "notes.txt"}


@pytest.mark.parametrize("command", ["ask", "compare"])
def test_all_needs_a_kept_index(notes: str, no_model: None, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """`--all` without `--persist` has nothing to add, and says what is missing."""
    assert cli.main([command, notes, QUESTION, "--offline", "--all"]) == 1
    assert "--persist" in capsys.readouterr().err


def test_files_that_are_not_read_are_reported(notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of a type that is not read are counted on standard error, one line each."""
    (tmp_path / "picture.png").write_bytes(b"png")
    assert cli.main(["ask", str(tmp_path), QUESTION, "--offline"]) == 0
    captured = capsys.readouterr()
    assert FERRY in captured.out
    assert all(line.startswith("crossrerank: ") for line in captured.err.splitlines())
    assert "png" in captured.err


def test_many_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More files than fit on a line are counted instead of named."""
    (tmp_path / "many").mkdir()
    for number in range(7):
        (tmp_path / "many" / f"{number}.txt").write_text(f"{FERRY} This is copy number {number}.")
    assert cli.main(["ask", "many", QUESTION, "--offline"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Searched 7 files."


def test_settings_of_the_model_reach_it(
    notes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options about the model's files are arguments of `load_cross_encoder`, and none is set unasked."""
    seen: list[dict[str, object]] = []

    def load(model: str, **settings: object) -> CrossEncoder:
        seen.append({"model": model, **settings})
        return load_cross_encoder("bundled")

    monkeypatch.setattr(loading, "load_cross_encoder", load)
    assert cli.main(["compare", notes, QUESTION, "--offline"]) == 0
    more = ["--backend", "onnx", "--precision", "int8", "--subfolder", "sub", "--file-name", "model.onnx"]
    assert cli.main(["compare", notes, QUESTION, "--offline", *more]) == 0
    assert seen[0] == {"model": "bundled", "local_files_only": True}
    expected = {"backend": "onnx", "precision": "int8", "subfolder": "sub", "file_name": "model.onnx"}
    assert seen[-1] == {"model": "bundled", "local_files_only": True, **expected}


@pytest.mark.parametrize(
    ("options", "fetching"),
    [
        (["--offline"], (False, False)),
        (["--offline", "--model", "org/model", "--embeddings", "org/embeddings"], (False, False)),
        (["--offline", "--model", "http://127.0.0.1:7997/rerank"], (True, False)),
        (["--model", "org/model"], (True, True)),
    ],
    ids=str,
)
def test_offline_fetches_no_model(
    notes: str, monkeypatch: pytest.MonkeyPatch, options: list[str], fetching: tuple[bool, bool]
) -> None:
    """With `--offline`, models that are named are looked for on this machine only; a server has none to fetch."""
    allowed: list[bool] = []

    def load_reranker(model: str, *, local_files_only: bool) -> CrossEncoder:
        allowed.append(not local_files_only)
        return load_cross_encoder("bundled")

    def load_bi_encoder(name: str, *, local_files_only: bool) -> Embeddings:
        allowed.append(not local_files_only)
        return load_embeddings("bundled")

    monkeypatch.setattr(loading, "load_cross_encoder", load_reranker)
    monkeypatch.setattr(embeddings, "load_embeddings", load_bi_encoder)
    assert cli.main(["compare", notes, QUESTION, *options]) == 0
    assert tuple(allowed) == fetching
