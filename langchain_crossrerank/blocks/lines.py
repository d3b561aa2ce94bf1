"""The lines that a text is read by, and the blocks that are made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "paragraph", "item", "row", "code", "noise"]


@dataclass(frozen=True)
class Line:
    """A line of a text, without its line break."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """The first character after the line's text."""
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is on the line."""
        return not self.text.strip()

    @property
    def indent(self) -> int:
        """Characters of white space at the front."""
        return len(self.text) - len(self.text.lstrip())


@dataclass(frozen=True)
class Block:
    """A part of a text that belongs together.

    Attributes:
        kind: What it is; `"noise"` is what holds no statement: rules, contents lines, comments, images.
        start: Its first character in the text.
        end: The first character after it.
        level: A heading's level, starting at 1; otherwise 0.
        lead: Where the header row of a table or the line that introduces a list is in the text, as `(start, end)`.
        words: A heading's title; a row's cells.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    lead: tuple[int, int] | None = None
    words: tuple[str, ...] = ()


def lines_of(text: str) -> Iterator[Line]:
    """Return the lines of a text."""
    start = 0
    for whole in text.splitlines(keepends=True):
        yield Line(whole.rstrip("\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), start)
        start += len(whole)


def noise(line: Line) -> Block:
    """Return a block of one line that holds no statement."""
    return Block("noise", line.start, line.end)
