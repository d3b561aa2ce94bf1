"""Reads PDF files with pdfium: text in lines and paragraphs, headings, printed page labels, no running heads."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank.blocks.contents import contents_lines, has_page_number
from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.indexing.pdf_process import Line, Page, read_pages

HEADINGS = "headings"
"""Metadata key of a page's headings, `(first character, level, title)` each; splitting replaces it by `section`."""

_NUMBERING = re.compile(
    r"^(?:(?:chapter|appendix|part|section|kapitel|глава)\s+)?[\dA-Z]{1,4}(?:\.\d+)*\.?\s+", re.IGNORECASE
)
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.)?\s*(?:\d{1,4}|[ivxlc]{1,7})(?:\s*(?:/|of|von)\s*\d{1,4})?\W*", re.IGNORECASE
)
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_CONTENTS_SHARE = 0.4
"""Share of contents lines from which a page is a page of contents."""
_EDGE = 2
"""Lines at a page's top and bottom that may be a running head or foot."""
_REPEATS = 3
"""Pages that a running head is at least on."""
_LARGER = 1.12
"""How much larger than running text a heading is, where the file has no outline."""


@dataclass
class PdfText:
    """What was read from a PDF file.

    Attributes:
        documents: A document for each page that has text.
        pages: The number of pages in the file.
        without_text: Pages, counted from 1, that show something but hold no text, such as scanned ones.
        unreadable: Pages, counted from 1, that could not be read.
        contents: Pages, counted from 1, that were left out because they hold a table of contents.
    """

    documents: list[Document]
    pages: int
    without_text: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)


def read_pdf(path: Path, source: str, *, on_page: Callable[[int, int], None] | None = None) -> PdfText:
    """Read a PDF file.

    Words that are broken at a line's end are joined. Running heads, page numbers and pages of contents are left out.

    Args:
        path: The file.
        source: What the documents name as their source.
        on_page: Called after each page with the pages read so far and the number of pages.

    Returns:
        One document per page, with the metadata `source`, `page` (from 0), `page_label` (as printed), `total_pages`,
        and `title` and `author` if the file has them.

    Raises:
        IndexingError: If the file is broken or needs a password.
        MissingExtraError: If pypdfium2 is not installed.
    """
    check_extra("rag", needed_for="reading PDF files", modules=("pypdfium2",), backend="pdf")
    file = read_pages(path, source, on_page=on_page)
    pages, total = file.pages, file.total
    if len(file.unreadable) == total:
        raise IndexingError(f"{source!r} cannot be read as a PDF (no page opens); it may be broken.", path=source)
    without_text = [page.number + 1 for page in pages if not page.lines and page.is_drawn]
    _drop_edges(pages)
    headings = _headings_by_outline(pages, file.outline) or _headings_by_size(pages)
    documents: list[Document] = []
    contents = {page.number for page in pages if page.lines and _is_contents(page)}
    if not any(page.lines and page.number not in contents for page in pages):
        contents = set()
    for page, found in zip(pages, headings, strict=True):
        if not page.lines or page.number in contents:
            continue
        text, starts = _page_text(page)
        metadata: dict[str, Any] = {"source": source, "page": page.number, "total_pages": total, **file.description}
        if page.label:
            metadata["page_label"] = page.label
        metadata[HEADINGS] = [(starts[line], level, title) for line, level, title in found]
        documents.append(Document(text, metadata=metadata))
    return PdfText(documents, total, without_text, file.unreadable, [number + 1 for number in sorted(contents)])


def _drop_edges(pages: Sequence[Page]) -> None:
    """Take running heads, running feet and page numbers off the pages."""
    counts: Counter[tuple[bool, str]] = Counter()
    for page in pages:
        for is_top in (True, False):
            lines = page.lines[:_EDGE] if is_top else page.lines[-_EDGE:]
            counts.update({(is_top, _without_figures(line.text)) for line in lines})
    steps = [_usual_step(page.lines) for page in pages]
    heights = {is_top: _running_height(pages, steps, is_top) for is_top in (True, False)}
    for page in pages:
        for is_top in (True, False):
            place = 0 if is_top else -1
            if len(page.lines) >= 3 and heights[is_top] is not None and _height(page.lines[place]) == heights[is_top]:
                page.lines.pop(place)
            for _ in range(_EDGE):
                # What is left must be more than what is taken off.
                if len(page.lines) < 3:
                    break
                text = page.lines[place].text
                is_repeated = counts[is_top, _without_figures(text)] >= _REPEATS
                is_running = is_repeated and len(text) <= 120 and not text.endswith((".", "!", "?", "。", ";"))
                if not (is_running or _PAGE_NUMBER.fullmatch(text)):
                    break
                page.lines.pop(place)


def _running_height(pages: Sequence[Page], steps: Sequence[float], is_top: bool) -> int | None:
    """The height at which most pages have one line that is set off from the text, or `None`."""
    heights: Counter[int] = Counter()
    for page, usual in zip(pages, steps, strict=True):
        if len(page.lines) < 4:
            continue
        edge, inner = (page.lines[0], page.lines[1]) if is_top else (page.lines[-1], page.lines[-2])
        height, next_height = _height(edge), _height(inner)
        if height is not None and next_height is not None and usual and abs(height - next_height) > 1.6 * usual:
            heights[height] += 1
    full = sum(len(page.lines) >= 4 for page in pages)
    if not heights:
        return None
    height, count = heights.most_common(1)[0]
    return height if count >= max(_REPEATS, full * 0.6) else None


def _height(line: Line) -> int | None:
    return round(line.top) if line.top is not None else None


def _usual_step(lines: Sequence[Line]) -> float:
    """The median distance between lines, in points; 0 if it is not known."""
    steps = sorted(
        above.bottom - line.top
        for above, line in pairwise(lines)
        if above.bottom is not None and line.top is not None and above.bottom > line.top
    )
    return steps[len(steps) // 2] if steps else 0.0


def _headings_by_outline(
    pages: Sequence[Page], outline: Sequence[tuple[int, int, str, float | None]]
) -> list[list[tuple[int, int, str]]] | None:
    """For each page its headings as (line, level, title), or `None` if the file has no outline."""
    if not outline:
        return None
    places = {page.number: place for place, page in enumerate(pages)}
    entries: dict[int, list[tuple[int, str, float | None]]] = {}
    for number, level, title, top in outline:
        place = places.get(number)
        if place is not None and pages[place].lines:
            entries.setdefault(place, []).append((level, title, top))
    found: list[list[tuple[int, int, str]]] = [[] for _ in pages]
    for place, on_page in entries.items():
        lines = _lines_of_titles(pages[place].lines, [(title, top) for _, title, top in on_page])
        headings: dict[int, tuple[int, int, str]] = {}
        for line, (level, title, _) in zip(lines, on_page, strict=True):
            headings.setdefault(line, (line, level, title))
        found[place] = sorted(headings.values())
    return found


@dataclass(frozen=True)
class _Comparable:
    """A line to compare titles with: its letters and figures, and those of it and the next line without a number."""

    letters: str
    bare: str
    top: float | None


def _comparable(lines: Sequence[Line]) -> list[_Comparable]:
    texts = [line.text for line in lines]
    joined = [text + following for text, following in zip(texts, [*texts[1:], ""], strict=True)]
    return [
        _Comparable(_squeeze(line.text), _squeeze(_NUMBERING.sub("", both, count=1)), line.top)
        for line, both in zip(lines, joined, strict=True)
    ]


class _Places:
    """Places on a page from its top, of which the first one at or below a height is found without trying all."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.depths: list[float] = []
        """How far down any line reaches up to each of the places; a line without a height counts as far down."""

    def add(self, number: int, top: float | None) -> None:
        depth = -top if top is not None else math.inf
        self.numbers.append(number)
        self.depths.append(max(depth, self.depths[-1]) if self.depths else depth)

    def first(self, top: float | None) -> int | None:
        place = bisect_left(self.depths, -top - 4) if top is not None else 0
        return self.numbers[place] if place < len(self.numbers) else None


def _lines_of_titles(lines: Sequence[Line], titles: Sequence[tuple[str, float | None]]) -> list[int]:
    """For each title, with its height on the page, the line that it is printed on."""
    wanted = [_squeeze(_NUMBERING.sub("", title, count=1)) or _squeeze(title) for title, _ in titles]
    beginnings = {beginning: _Places() for beginning in wanted}
    lengths = sorted(set(map(len, beginnings)))
    every = _Places()
    for number, line in enumerate(_comparable(lines)):
        every.add(number, line.top)
        shortest = bisect_left(lengths, len(line.letters) - 14)
        for length in lengths[shortest : bisect_right(lengths, len(line.bare))]:
            if (same := beginnings.get(line.bare[:length])) is not None:
                same.add(number, line.top)
    return [_line_of_title(beginnings[name], every, top) for name, (_, top) in zip(wanted, titles, strict=True)]


def _line_of_title(matching: _Places, every: _Places, top: float | None) -> int:
    below = matching.first(top)
    if below is not None:
        return below
    if matching.numbers:
        return matching.numbers[0]
    return (every.first(top) or 0) if top is not None else 0


def _headings_by_size(pages: Sequence[Page]) -> list[list[tuple[int, int, str]]]:
    """Headings of a file without an outline: lines set larger than running text; at most three sizes count."""
    written: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            written[line.size] += len(line.text)
    found: list[list[tuple[int, int, str]]] = [[] for _ in pages]
    if not written or written.most_common(1)[0][0] <= 0:
        return found
    body = written.most_common(1)[0][0]
    enough = sum(written.values()) * 0.15
    larger = sum(count for size, count in written.items() if size >= body * _LARGER)
    if larger > enough:
        return found
    sizes = sorted({size for size in written if size >= body * _LARGER}, reverse=True)
    levels = {size: min(level, 3) for level, size in enumerate(sizes, start=1)}
    for place, page in enumerate(pages):
        for number, line in enumerate(page.lines):
            level = levels.get(line.size, 0)
            if not level or len(line.text) > 120 or not any(map(str.isalpha, line.text)):
                continue
            previous = found[place][-1] if found[place] else None
            goes_on = previous is not None and previous[0] == number - 1 and page.lines[number - 1].size == line.size
            if previous is not None and goes_on and len(previous[2]) + len(line.text) < 160:
                found[place][-1] = (previous[0], level, f"{previous[2]} {line.text}")
            else:
                found[place].append((number, level, line.text))
    return found


def _is_contents(page: Page) -> bool:
    lines = [line.text for line in page.lines]
    entries = [lines[place] for place in contents_lines(lines)]
    # The lines of a form to fill in have dots, too.
    numbered = sum(map(has_page_number, entries))
    return numbered >= 3 and numbered * 2 >= len(entries) >= _CONTENTS_SHARE * len(lines)


def _page_text(page: Page) -> tuple[str, list[int]]:
    """Put lines together, with a blank line where the gap is wide; return where each line starts, too."""
    usual = _usual_step(page.lines)
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    above: Line | None = None
    for line in page.lines:
        if above is not None:
            gap = above.bottom - line.top if above.bottom is not None and line.top is not None else 0.0
            is_new = usual > 0 and (gap > 1.35 * usual + 1 or gap < -2 * usual)
            mark = "\n\n" if is_new or (above.size and line.size and abs(above.size - line.size) > 1.5) else "\n"
            parts.append(mark)
            length += len(mark)
        starts.append(length)
        parts.append(line.text)
        length += len(line.text)
        above = line
    return "".join(parts), starts


def _without_figures(text: str) -> str:
    return re.sub(r"\d+|\b[ivxlc]{1,7}\b", "#", text.lower())


def _squeeze(text: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", text.lower())
