"""Takes text, places, headings and labels out of a PDF with pdfium; a program that runs on its own, within limits.

pdfium cannot be interrupted, and a page of a few hundred bytes can unpack to gigabytes or make it crash. So
`pdf_process` runs this file in a process of its own, which ends at a limit. It needs nothing but the standard library
and pypdfium2, so that it starts fast, and writes one line of JSON for each thing found.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

MAX_OBJECTS = 300_000
"""Objects on a page from which it is not read: taking its text would need minutes and gigabytes."""
MAX_OUTLINE = 20_000
"""Entries of an outline that are read."""
MAX_TITLE = 300
"""Characters of a title, an author or a page's label that are read; each chunk of the text below has them."""

Found = dict[str, Any]

_BROKEN_WORD = re.compile("[\x02\ufffe](?:\r?\n)?")
_LETTERS = re.compile(r"[^\W\d_]*$")


def read_parts(path: str, first_page: int) -> Iterator[Found]:
    """Read a PDF file.

    Args:
        path: The file.
        first_page: The page to start at, from 0.

    Yields:
        First `{"total": pages}`, or `{"error": "password" or "broken", "reason": ...}` and nothing more. Then for each
        page `{"page": number from 0, "label": ..., "lines": [[text, font size, top, bottom], ...], "drawn": ...}`, or
        `{"page": number, "unreadable": True}`. Last `{"outline": [[page, level, title, top], ...], "Title": ...,
        "Author": ...}`. Heights are in points and `None` if not known.
    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(path)
    except (pypdfium2.PdfiumError, OSError) as err:
        locked = getattr(err, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
        yield {"error": "password" if locked else "broken", "reason": str(err)}
        return
    try:
        yield {"total": len(pdf)}
        for number in range(first_page, len(pdf)):
            try:
                yield {"page": number, **_page(pdf, number)}
            except (pypdfium2.PdfiumError, ValueError, AssertionError, OSError):
                yield {"page": number, "unreadable": True}
        described = {key: pdf.get_metadata_value(key)[:MAX_TITLE] for key in ("Title", "Author")}
        yield {"outline": list(_outline(pdf)), **described}
    finally:
        pdf.close()


def _page(pdf: PdfDocument, number: int) -> Found:
    import pypdfium2

    page = pdf[number]
    try:
        drawn = pypdfium2.raw.FPDFPage_CountObjects(page)
        if drawn > MAX_OBJECTS:
            return {"unreadable": True}
        return {"label": pdf.get_page_label(number)[:MAX_TITLE], "lines": list(_lines(page)), "drawn": drawn > 0}
    finally:
        page.close()


def _lines(page: PdfPage) -> Iterator[tuple[str, float, float | None, float | None]]:
    import pypdfium2.raw as pdfium

    textpage = page.get_textpage()
    try:
        raw = textpage.get_text_range()
        placed = textpage.count_chars() == len(raw)
        x, y = ctypes.c_double(), ctypes.c_double()
        at = 0
        for part in raw.split("\r\n"):
            is_broken = "\x02" in part or "\ufffe" in part
            text = " ".join((_BROKEN_WORD.sub(_joint, part) if is_broken else part).split())
            if text:
                size, top, bottom = 0.0, None, None
                if placed:
                    first = at + len(part) - len(part.lstrip())
                    size = round(pdfium.FPDFText_GetFontSize(textpage, first + min(len(text) // 2, 8)), 1)
                    if pdfium.FPDFText_GetCharOrigin(textpage, first, x, y):
                        top = bottom = y.value
                    # A line whose last word was broken holds the next line, too.
                    if is_broken and pdfium.FPDFText_GetCharOrigin(textpage, at + len(part.rstrip()) - 1, x, y):
                        bottom = y.value
                yield text, size, top, bottom
            at += len(part) + 2
    finally:
        textpage.close()


def _joint(mark: re.Match[str]) -> str:
    """What is between the halves of a broken word: nothing, or the hyphen of a word such as X-ray or COVID-19."""
    letters = _LETTERS.search(mark.string, max(0, mark.start() - 40), mark.start())
    left, right = letters[0] if letters else "", mark.string[mark.end() : mark.end() + 1]
    return "" if len(left) > 1 and right.isalpha() and left.isupper() == right.isupper() else "-"


def _outline(pdf: PdfDocument) -> Iterator[tuple[int, int, str, float | None]]:
    import pypdfium2.raw as pdfium

    for count, entry in enumerate(pdf.get_toc()):
        if count >= MAX_OUTLINE:
            return
        target = entry.get_dest()
        page = target.get_index() if target is not None else None
        if target is None or page is None:
            continue
        mode, place = target.get_view()
        top = place[1] if mode == pdfium.PDFDEST_VIEW_XYZ and len(place) > 1 else None
        yield page, entry.level + 1, entry.get_title()[:MAX_TITLE], top


def _limit_memory(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory)):
        # A stricter limit that is set already stays.
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))


def main(path: str, first_page: str, memory: str, seconds: str) -> None:
    """Read a file and write what is found to standard output.

    Args:
        path: The file.
        first_page: The page to start at, from 0.
        memory: What the process may take, in bytes; not enforced on Windows and macOS.
        seconds: How long opening the file, each page, and the outline may take; up to a tenth less, because the clock
            is not restarted for each page.
    """
    _limit_memory(int(memory))
    limit = float(seconds)
    faulthandler.dump_traceback_later(limit, exit=True)
    started = time.monotonic()
    for found in read_parts(path, int(first_page)):
        print(json.dumps(found), flush=True)
        # Each restart makes a thread, which can take as long as a short page.
        if time.monotonic() - started > limit / 10:
            faulthandler.dump_traceback_later(limit, exit=True)
            started = time.monotonic()


if __name__ == "__main__":
    main(*sys.argv[1:])
