"""The site's pages: their code runs as printed, and they leave out nothing that the code has."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import langchain_crossrerank
from tests.code_blocks import CodeBlock, read_blocks
from tests.integration.chat_server import ChatServer
from tests.notebook_data import link_notebooks

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))
PACKAGE = Path(langchain_crossrerank.__file__).parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"dev", "docs", "release"}
"""Extras that users do not need."""


def blocks_to_run(page: str, language: str) -> list[CodeBlock]:
    """The page's blocks in a language, without those that say why they are not run."""
    return [block for block in read_blocks(DOCS / page) if block.language == language and block.reason is None]


def with_blocks(language: str) -> list[str]:
    """The pages that have something to run in a language."""
    return [page for page in PAGES if blocks_to_run(page, language)]


@pytest.fixture
def in_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that is empty but for the notebooks' data, which the pages use, with fewer questions."""
    link_notebooks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A chat server for the blocks that use `ChatOpenAI`."""
    server = ChatServer()
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    yield server
    server.close()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    """A block in a language that no test runs, and that is not mere output, has a reason."""
    unexplained = [
        f"line {block.line}: {block.language or 'no language'}"
        for block in read_blocks(DOCS / page)
        if block.reason is None and block.language not in ("python", "sh", "diff", "text", "json")
    ]
    assert not unexplained


@pytest.mark.slow
@pytest.mark.usefixtures("chat", "in_new_folder")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_to_run(page, "python") or blocks_to_run(page, "sh")])
def test_a_page_runs_from_top_to_bottom(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page's Python runs offline in one namespace, its commands succeed, and its pip lines name extras that exist."""
    namespace: dict[str, object] = {}
    for block in [block for block in read_blocks(DOCS / page) if block.reason is None]:
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, page, "exec"), namespace)
            assert capsys.readouterr().out.strip() or "print(" not in block.code
        elif block.language == "sh":
            run_commands(block)


def run_commands(block: CodeBlock) -> None:
    """Run the `crossrerank` lines of a block; other lines install packages or set variables."""
    from langchain_crossrerank.cli import main

    for line in block.code.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["crossrerank"]:
            assert main(words[1:]) == 0, line
        else:
            assert words[:1] in (["pip"], ["export"], []), f"line {block.line}: nothing runs {line!r}"
            assert set(named_extras(line)) <= set(EXTRAS), line


@pytest.mark.parametrize("page", with_blocks("diff"))
def test_what_a_diff_adds_is_enough(page: str) -> None:
    """The lines that a diff puts in run without those that it takes out."""
    for block in blocks_to_run(page, "diff"):
        added = [line[1:] for line in block.code.splitlines() if line.startswith("+")]
        assert added
        exec(compile("\n".join(added), page, "exec"), {})


def named_extras(line: str) -> list[str]:
    """The extras in a pip line."""
    return [extra for names in re.findall(r"langchain-crossrerank\[([\w,]+)\]", line) for extra in names.split(",")]


def test_every_environment_variable_is_described() -> None:
    """Each variable that the package reads or sets has a row in the page of variables."""
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    named = set()
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "os.environ" in text:
            literals = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
            named |= {
                value for value in literals if isinstance(value, str) and re.fullmatch(r"[A-Z]+(_[A-Z]+)+", value)
            }
    assert {"CROSSRERANK_CACHE", "OPENAI_API_KEY"} <= named
    assert not sorted(name for name in named if f"`{name}`" not in page)


def test_every_extra_is_described() -> None:
    """Each extra for users has a row in the page of extras."""
    page = (DOCS / "reference" / "extras.md").read_text(encoding="utf-8")
    assert not sorted(extra for extra in EXTRAS if extra not in FOR_DEVELOPERS and f"| `{extra}` |" not in page)


def test_the_home_page_answers_ten_questions() -> None:
    """The home page has the newcomer's ten questions, each with a link to a page that exists."""
    home = (DOCS / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)\. (.+?) \| (.+) \|$", home, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 11))
    for _, question, answer in rows:
        targets = re.findall(r"\]\(([^)]+)\)", answer)
        made_from_code = {"reference/errors.md"}
        assert targets, question
        assert all((DOCS / target).is_file() or target in made_from_code for target in targets), question
