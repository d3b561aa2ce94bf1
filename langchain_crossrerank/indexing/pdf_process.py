"""Runs `pdf_program` in a process of its own, so that no PDF file can take this one's time or memory, or crash it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from multiprocessing import spawn
from pathlib import Path

from langchain_crossrerank._process import ForkSafeLock
from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing import pdf_program
from langchain_crossrerank.indexing.pdf_program import Found
from langchain_crossrerank.indexing.texts import clean_text

MAX_MEMORY = 1 << 30
"""What the process may take, in bytes; not enforced on Windows and macOS."""
MAX_PAGE_SECONDS = 30.0
"""How long opening a file, a page, or an outline may take."""
MAX_FILE_SECONDS = 120.0
"""How long a file may take, besides `MAX_SECONDS_EACH` for each of its pages: many pages may share a slow one."""
MAX_SECONDS_EACH = 0.2
MAX_TEXT = 50_000_000
"""How many characters of text a file may hold in all: pages may share one, so that it has far more than its size."""

_LINE = 20
"""What a line counts for at least, in characters, because each takes memory besides its text."""
_MAX_STARTS = 3
"""Processes for one file; each page that ends one is left out, and what is left after the last one, too."""

_PDFIUM = ForkSafeLock()
"""pdfium is not safe to call from two threads at once."""


@dataclass
class Line:
    """A line with its font size and the heights of its first and last character, all in points."""

    text: str
    size: float = 0.0
    top: float | None = None
    bottom: float | None = None


@dataclass
class Page:
    """A page: its number from 0, its lines, the label printed on it, and whether it shows anything."""

    number: int
    lines: list[Line]
    label: str
    is_drawn: bool


@dataclass
class PdfPages:
    """What a PDF file holds.

    Attributes:
        total: The number of pages.
        pages: Those that could be read.
        unreadable: Pages, counted from 1, that could not be read.
        outline: Page (from 0), level (from 1), title and height on the page of each entry.
        description: `title` and `author`, if the file has them.
    """

    total: int = 0
    pages: list[Page] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    outline: list[tuple[int, int, str, float | None]] = field(default_factory=list)
    description: dict[str, str] = field(default_factory=dict)


def read_pages(path: Path, source: str, *, on_page: Callable[[int, int], None] | None = None) -> PdfPages:
    """Read what a PDF file holds, in a process that may take `MAX_MEMORY` and `MAX_PAGE_SECONDS` for a page.

    After `MAX_FILE_SECONDS` and `MAX_SECONDS_EACH` for each page, the pages that are left are unreadable.

    Args:
        path: The file.
        source: What errors name as the file.
        on_page: Called after each page with the pages read so far and the number of pages.

    Raises:
        IndexingError: If the file is broken, needs a password, holds more than `MAX_TEXT`, or cannot be opened within
            the limits.
    """
    file = PdfPages()
    following, size = 0, 0
    started = time.monotonic()
    for _ in range(_MAX_STARTS):
        is_whole = is_late = False
        for found in (parts := _run(path, following)):
            if "error" in found:
                raise _refusal(source, found)
            file.total = found.get("total", file.total)
            if "page" in found:
                size += _text_size(found)
                if size > MAX_TEXT:
                    raise IndexingError(
                        f"{source!r} has more than {MAX_TEXT / 1e6:.0f} MB of text in its first {found['page'] + 1} "
                        f"of {file.total} pages; no more is read. Split it.",
                        path=source,
                    )
                following = _add_page(file, found)
                if on_page is not None:
                    on_page(following, file.total)
                is_late = time.monotonic() - started > MAX_FILE_SECONDS + MAX_SECONDS_EACH * file.total
                if is_late:
                    parts.close()
                    break
            is_whole = "outline" in found
            if is_whole:
                _add_outline(file, found)
        if file.total == 0:
            raise IndexingError(
                f"{source!r} cannot be read as a PDF: opening it crashes pdfium, or takes more than "
                f"{MAX_PAGE_SECONDS:.0f} seconds or {MAX_MEMORY >> 20} MB of memory.",
                path=source,
            )
        if is_whole or is_late or following >= file.total:
            break
        following += 1
        file.unreadable.append(following)
    file.unreadable += range(following + 1, file.total + 1)
    return file


def _run(path: Path, first_page: int) -> Generator[Found]:
    """Yield what the program finds, until it has finished or ended at a limit."""
    if getattr(sys, "frozen", False):
        # A frozen application's executable is the application, not Python.
        with _PDFIUM:
            yield from pdf_program.read_parts(str(path), first_page)
        return
    limits = (str(MAX_MEMORY), str(MAX_PAGE_SECONDS))
    command = [os.fsdecode(spawn.get_executable()), "-P", pdf_program.__file__, str(path), str(first_page), *limits]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            for line in process.stdout or ():
                # A process that is killed can leave half a line.
                if line.endswith(b"\n"):
                    yield json.loads(line)
        finally:
            process.kill()


def _refusal(source: str, found: Found) -> IndexingError:
    if found["error"] == "password":
        return IndexingError(
            f"{source!r} is encrypted and opens only with its user password, which was not given; "
            "save a copy without a password.",
            path=source,
        )
    return IndexingError(
        f"{source!r} cannot be read as a PDF ({found['reason']}); it may be broken or incomplete: open it in a viewer, "
        "or fetch it again.",
        path=source,
    )


def _text_size(found: Found) -> int:
    return len(found.get("label", "")) + sum(max(len(line[0]), _LINE) for line in found.get("lines", ()))


def _add_page(file: PdfPages, found: Found) -> int:
    """Note a page and return the number of the next one, from 0."""
    number = int(found["page"])
    if found.get("unreadable"):
        file.unreadable.append(number + 1)
        return number + 1
    cleaned = [
        Line(_one_line(text), _finite(size) or 0.0, _finite(top), _finite(bottom))
        for text, size, top, bottom in found["lines"]
    ]
    lines = [line for line in cleaned if line.text]
    file.pages.append(Page(number, lines, clean_text(found["label"]).strip(), found["drawn"]))
    return number + 1


def _add_outline(file: PdfPages, found: Found) -> None:
    entries = [(page, level, _one_line(title), top) for page, level, title, top in found["outline"]]
    file.outline = [entry for entry in entries if entry[2]]
    described = {key.lower(): _one_line(found[key]) for key in ("Title", "Author")}
    file.description = {key: value for key, value in described.items() if value and not value.startswith("(")}


def _finite(place: float | None) -> float | None:
    return place if place is not None and math.isfinite(place) else None


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())
