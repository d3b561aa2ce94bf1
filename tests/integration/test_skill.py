"""The skill for coding agents works when it is followed to the letter on a small application."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.code_blocks import read_blocks

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

ROOT = Path(__file__).parent.parent.parent
SKILL = ROOT / "skills" / "add-reranking" / "SKILL.md"


def apply_diff(diff: str, file: Path) -> None:
    """Put the added import at the top, and replace the removed line by the added one."""
    lines = diff.splitlines()
    (removed,) = [line[1:] for line in lines if line.startswith("-")]
    imported, replacement = [line[1:] for line in lines if line.startswith("+")]
    code = file.read_text(encoding="utf-8")
    assert code.count(removed) == 1
    first_import = code.index("from langchain_core")
    code = f"{code[:first_import]}{imported}\n{code[first_import:]}"
    file.write_text(code.replace(removed, replacement), encoding="utf-8")


def run_line(line: str, folder: Path) -> str:
    """Run a line of shell with this interpreter's programs, and return what it prints."""
    programs = Path(sys.executable).parent
    line = line.replace("python ", f"{sys.executable} ", 1) if line.startswith("python ") else line
    line = line.replace("crossrerank ", f"{sys.executable} -m langchain_crossrerank.cli ", 1)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_following_the_skill_puts_the_answer_first(tmp_path: Path) -> None:
    """Every command of the skill succeeds, its diff applies, and the changed application ranks the answer first."""
    app = tmp_path / "app"
    shutil.copytree(Path(__file__).parent / "sample_app", app)
    printed = {}
    for block in read_blocks(SKILL):
        if block.reason is not None:
            continue
        if block.language == "diff":
            apply_diff(block.code, app / "app.py")
            continue
        assert block.language == "sh", f"line {block.line}"
        for line in block.code.splitlines():
            printed[block.line] = (line, run_line(line, app))
    found, info, before, after, compared = (text for _, text in printed.values())
    assert "app.py:11:retriever = store.as_retriever" in found
    assert "langchain-crossrerank" in info
    assert "relevance_score" not in before
    assert "The ferry to the island leaves at nine" in after.splitlines()[0]
    assert "relevance_score" in after.splitlines()[0]
    assert "Searched guide.md." in compared


def test_the_skill_says_when_to_use_it() -> None:
    """The front matter has the folder's name and a description."""
    head = SKILL.read_text(encoding="utf-8").split("---\n")[1]
    assert f"name: {SKILL.parent.name}\n" in head
    assert "description: " in head
