"""Contents lines: titles with the numbers of their pages, which say where something is and not what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

# It begins only where a run of dots begins, so that no run is tried from each of its dots.
_LEADERS = re.compile(r"(?<!\.)(?<!\. )(?:\. ?){4,}\s{0,20}([^.].{0,30})?$")
_PAGES = re.compile(r"(?:[A-Z][-.]?)?[\divxlcIVXLC]{1,6}(?:, [\divxlcIVXLC]{1,6}){0,9}")
_PRICE = re.compile(r"\d[.,]\d\d\b|[€$£¥]|\b(?:EUR|USD|GBP|CHF)\b")
_NUMBERING = re.compile(r"(?:\d{1,3}|[A-Z])((?:\.\d{1,3})*)\.?")
_PAGE = re.compile(r"\d{1,4}|[ivxlc]{1,6}")
_TITLE = re.compile(
    r"\W*(?:(?:table of )?contents|inhalt(?:sverzeichnis)?|table des matières|sommaire|índice(?: general)?|indice|"
    r"sumário|inhoud(?:sopgave)?|содержание|оглавление|目次|目录)\W*",
    re.IGNORECASE,
)
_FEWEST = 3
"""Entries that contents without dot leaders have at least."""


@dataclass(frozen=True)
class _Entry:
    """A line that ends in a page's number.

    Attributes:
        place: The line.
        page: The number, or `""` if there is none after the dots; `None` if there is a price.
        numbering: What is in front of the title, or `None`.
    """

    place: int
    page: str | None
    numbering: re.Match[str] | None
    has_leaders: bool


def contents_lines(texts: Sequence[str]) -> list[int]:
    """Find the contents lines among the lines of a text.

    Those are lines with dot leaders up to a page's number, and without leaders at least three lines below a title such
    as "Contents", or with numbers of sections in front. The pages of entries never fall, in contrast to prices.
    """
    found: list[int] = []
    run: list[_Entry] = []
    is_titled = False
    for place, text in enumerate([*texts, "."]):
        if not text.strip():
            continue
        entry = _entry(place, text)
        if entry is not None:
            run.append(entry)
            continue
        found += _contents(run, is_titled)
        is_titled = _TITLE.fullmatch(text) is not None or (is_titled and not run and not any(map(str.isalnum, text)))
        run = []
    return found


def has_page_number(text: str) -> bool:
    """Return whether a contents line names a page."""
    return text.rstrip()[-1:] != "."


def _entry(place: int, text: str) -> _Entry | None:
    if "...." in text or ". . ." in text:
        leaders = _LEADERS.search(text)
        page = (leaders[1] or "").strip() if leaders else "-"
        is_price = _PRICE.search(page) is not None
        return _Entry(place, None if is_price else page, None, True) if is_price or _is_page(page) else None
    # Nearly every line ends here.
    if not text[-1:].isalnum() or len(text) > 200:
        return None
    title, _, page = text.strip().replace("\t", " ").rpartition(" ")
    if not _PAGE.fullmatch(page) or not any(map(str.isalpha, title)):
        return None
    number, _, rest = title.partition(" ")
    return _Entry(place, page, _NUMBERING.fullmatch(number) if rest.strip() else None, False)


def _is_page(text: str) -> bool:
    return not text or _PAGES.fullmatch(text) is not None


def _contents(run: Sequence[_Entry], is_titled: bool) -> list[int]:
    if any(entry.page is None for entry in run):
        return []
    leading = [entry for entry in run if entry.has_leaders]
    found = leading if not _fall(leading) else [entry for entry in leading if not entry.page]
    if len(run) >= _FEWEST and not _fall(run):
        plain = [entry.numbering for entry in run if not entry.has_leaders]
        # A list with numbers in front and prices behind has no sections in sections.
        has_levels = all(plain) and any(numbering[1] for numbering in plain if numbering)
        found = list(run) if is_titled or has_levels else found
    return [entry.place for entry in found]


def _fall(entries: Iterable[_Entry]) -> bool:
    """Whether the pages of more than one entry in ten are lower than the one before."""
    pages = [int(entry.page) for entry in entries if entry.page and entry.page.isdecimal()]
    return sum(following < page for page, following in pairwise(pages)) * 10 > len(pages)
