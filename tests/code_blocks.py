"""The fenced code blocks of Markdown files, and the reasons of those that are not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]+?) -->\n(?P=indent))?"
    r"```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block.

    Attributes:
        language: The word behind the fence; empty if there is none.
        code: The lines between the fences.
        line: Line of the opening fence in its file, from 1.
        reason: Why the block is not run, from `<!-- not run: REASON -->` in the line above; `None` if it is run.
    """

    language: str
    code: str
    line: int
    reason: str | None


def read_blocks(file: Path) -> list[CodeBlock]:
    """Return the fenced blocks of a file, in order."""
    text = file.read_text(encoding="utf-8")
    blocks = []
    for found in _BLOCK.finditer(text):
        fence = text.index("```", found.start())
        blocks.append(CodeBlock(found["language"], found["code"], text.count("\n", 0, fence) + 1, found["reason"]))
    return blocks
