"""The README's code runs as printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.chat_server import ChatServer
from tests.notebook_data import link_notebooks

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    """A chat server for the blocks that use `ChatOpenAI`."""
    server = ChatServer()
    yield server
    server.close()


def blocks(language: str) -> list[str]:
    """All fenced blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.+?)```", README, re.DOTALL)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """No block escapes the tests by its language."""
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) == {"python", "sh", "diff"}


def test_python_blocks_run_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chat: ChatServer
) -> None:
    """The Python blocks run in one namespace and print what the text says."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "LoRA freezes a model's weights" in printed.splitlines()[0]
    assert "Extractive answer" in printed
    assert "first stage" in printed
    assert chat.requests


def test_command_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each `crossrerank` line of the README succeeds, here with fewer questions."""
    from langchain_crossrerank.cli import main

    link_notebooks(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("crossrerank ")]
    assert len(lines) >= 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    assert "llm_fundamentals.pdf, page" in capsys.readouterr().out


def test_two_lines_of_migration_are_enough() -> None:
    """What the diff puts in works without what it takes out."""
    (diff,) = blocks("diff")
    added = "\n".join(line[1:] for line in diff.splitlines() if line.startswith("+"))
    namespace: dict[str, object] = {}
    exec(compile(added, "README.md", "exec"), namespace)
    assert len(added.splitlines()) == 2
    assert "bge-reranker-base" in repr(namespace["compressor"])
