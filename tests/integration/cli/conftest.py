"""Fixtures of the command line's tests: files to search, a collection to measure, chat servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

import huggingface_hub.constants

from langchain_crossrerank import EvaluationResult, WrapperCrossEncoder, evaluation, load_cross_encoder
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from tests.integration.cli.collection import ANSWERS, ASKED, TEXTS, run_rows, write_rows, write_table
from tests.integration.cli.scripted_chat import ScriptedChatServer, ask_for_first_words


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
    """Do what the command's environment variables do in a fresh process; here, transformers may already be imported."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test has its own working directory and model cache, and no API key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small collection, and `run.tsv` next to it, which ranks every answer last."""
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
    """Loading a cross-encoder fails the test."""

    def not_yet(self: Stages) -> None:
        raise AssertionError("a model was loaded before the check")

    monkeypatch.setattr(Stages, "load_model", not_yet)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CountingCrossEncoder]:
    """Lets the command count what it scores."""

    def start(**kwargs: Any) -> CountingCrossEncoder:
        model = CountingCrossEncoder(**kwargs)
        monkeypatch.setattr(Stages, "load_model", lambda self: model)
        return model

    return start


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """Returns the one line of an error, after checking the exit code."""

    def check(code: int) -> str:
        captured = capsys.readouterr()
        assert code == 1, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("crossrerank: error: ")
        return lines[0]

    return check


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
