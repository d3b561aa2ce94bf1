"""Refuses office files, books and tables of a few kilobytes that would unpack to gigabytes."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import unquote
from xml.parsers import expat

from langchain_crossrerank.errors import IndexingError

PACKED = (".docx", ".pptx", ".xlsx", ".epub")
"""File types that are ZIP archives."""

MAX_UNPACKED_BYTES = 50_000_000
"""How much a file may unpack to, as often as it shows each part, without pictures that it shows once."""
MAX_CELLS = 5_000_000
"""How many cells a table, or all sheets of a workbook, may span from the first to the last, empty ones included."""

_SHOWING: dict[str, dict[str, tuple[str, ...]]] = {
    ".docx": {"blip": ("embed", "link"), "imagedata": ("id",)},
    ".pptx": {"sldId": ("id",), "chart": ("id",)},
    ".xlsx": {"sheet": ("id",)},
    ".epub": {"itemref": ("idref",)},
}
"""For each file type the elements that show another part, and the attributes by which they name it."""

_CELL = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,300})", re.IGNORECASE)
_RELATIONSHIPS = re.compile(r"^(.*/|)_rels/([^/]*)\.rels$", re.DOTALL)
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error, ValueError)
"""What `zipfile` raises for archives that are broken or locked."""


def check_unpacked(suffix: str, data: bytes, source: str) -> None:
    """Raise if a file would unpack to more than is read, or has sheets that span too many cells.

    Args:
        suffix: The file's type, one of `PACKED`.
        data: The file's content. What is not a ZIP archive passes: its converter says what is wrong with it.
        source: What errors name as the file.

    Raises:
        IndexingError: If a limit is exceeded.
    """
    unpacked, parts = 0, []
    with suppress(*_BROKEN), zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        # `zipfile` reads no more of a member than its header says, so a header that lies only breaks the file.
        unpacked = sum(member.file_size for member in members if member.file_size > 2 * member.compress_size)
        if unpacked <= MAX_UNPACKED_BYTES:
            # All members, because a file says which ones are sheets or chapters, whatever they are called.
            parts = [_Part(archive, member, suffix) for member in members]
    uses = _count_uses(parts)
    unpacked = max(unpacked, sum(part.unpacked(uses[part.name]) for part in parts))
    if unpacked > MAX_UNPACKED_BYTES:
        raise IndexingError(
            f"{source!r} has {unpacked / 1e6:.0f} MB once unpacked; at most {MAX_UNPACKED_BYTES / 1e6:.0f} MB are "
            "read. Split it.",
            path=source,
        )
    cells = sum(part.cells * max(uses[part.name], 1) for part in parts)
    if cells > MAX_CELLS:
        largest = max(parts, key=lambda part: part.cells)
        raise IndexingError(
            f"{source!r} has sheets of {cells} cells in all, the largest with {largest.rows} rows and "
            f"{largest.columns} columns; at most {MAX_CELLS} cells are read, empty ones included. Delete what lies far "
            "outside the tables, or split it.",
            path=source,
        )


def check_table(text: str, source: str) -> None:
    """Raise if a CSV table has too many cells once all of its rows are as wide as the widest.

    Args:
        text: The table. What is not CSV passes: its converter says what is wrong with it.
        source: What errors name as the file.

    Raises:
        IndexingError: If it has more than `MAX_CELLS`.
    """
    rows, columns = 0, 1
    with suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline="")):
            rows, columns = rows + 1, max(columns, len(row))
    if rows * columns > MAX_CELLS:
        raise IndexingError(
            f"{source!r} is a table of {rows} rows and {columns} columns; at most {MAX_CELLS} cells are read, empty "
            "ones included. Split it.",
            path=source,
        )


def _count_uses(parts: Sequence[_Part]) -> Counter[str]:
    """Return how often each part is shown: it is read, and counted, again each time."""
    listed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        listed[part.name].update(part.listed)
    uses: Counter[str] = Counter()
    # Twice, because a chart is shown as often as the slide that it is on.
    for _ in range(2):
        known, uses = uses, Counter()
        for part in parts:
            for name, target in part.targets:
                times = known[part.owner]
                uses[target] += max(listed[part.owner][name], times > 1) * max(times, 1)
    return uses


class _Part:
    """What matters of a member of an archive, found without keeping it; empty for what is not XML or locked.

    Attributes:
        name: Its place in the archive.
        owner: The place of the part whose relationships it holds; otherwise its own.
        size: Its size once unpacked, in bytes.
        is_picture: Whether it is one, or anything else that packing does not make smaller and that is not XML.
        rows: The number of its last row, if it is a sheet.
        columns: The number of its last column.
        listed: How often it shows each of its relationships.
        targets: Relationships and the places that they lead to, if it holds those.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, suffix: str) -> None:
        # Some readers do not mind case.
        self.name = posixpath.normpath(member.filename.lower())
        self.owner = _RELATIONSHIPS.sub(r"\1\2", self.name)
        self.size = member.file_size
        self.is_picture = member.file_size <= 2 * member.compress_size
        self.rows = 0
        self.columns = 0
        self.listed: Counter[str] = Counter()
        self.targets: list[tuple[str, str]] = []
        self._showing = _SHOWING[suffix]
        self._is_workbook = suffix == ".xlsx"
        self._is_document = suffix == ".docx"
        self._row = 0
        # For each open element the last column so far if it is a row, otherwise `None`.
        self._open: list[int | None] = []
        parser = expat.ParserCreate(namespace_separator="}")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = lambda _: self._open.pop()
        # A member that is locked or broken may be one that nobody opens.
        with suppress(expat.ExpatError, *_BROKEN), archive.open(member) as content:
            parser.ParseFile(content)

    @property
    def cells(self) -> int:
        """The cells that it spans; a row takes memory without any, too."""
        return self.rows * max(self.columns, 1)

    def unpacked(self, uses: int) -> int:
        """What it takes, in bytes, if it is shown so many times; a picture may be shown once for nothing."""
        return self.size * (max(uses - 1, 0) if self.is_picture else max(uses, 1))

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self.is_picture = False
        name = tag.rpartition("}")[2]
        if self._open and self._open[-1] is not None:
            self._open[-1] = self._add_cell(attributes.get("r", ""), self._open[-1])
        if name == "row" and self._is_workbook:
            # As in openpyxl, rows and cells that do not say where they are follow the last one.
            self._row = _row_number(attributes["r"]) if "r" in attributes else self._row + 1
            self.rows = max(self.rows, self._row)
        elif name in self._showing:
            names = self._showing[name]
            self.listed.update(value for key, value in attributes.items() if key.rpartition("}")[2] in names)
        elif name == "Relationship":
            self._lead_to(attributes.get("Id", ""), attributes.get("Target", ""))
        elif name == "item":
            self._lead_to(attributes.get("id", ""), attributes.get("href", ""))
        self._open.append(0 if name == "row" and self._is_workbook else None)

    def _lead_to(self, name: str, place: str) -> None:
        # Where mammoth looks for a document's pictures, wherever the document itself is.
        folder = "word" if self._is_document else posixpath.dirname(self.owner)
        # A book's links may be escaped.
        for target in {place.lower(), unquote(place).lower()}:
            self.targets.append((name, posixpath.normpath(posixpath.join(folder, target)).lstrip("/")))

    def _add_cell(self, place: str, last_column: int) -> int:
        """Note a cell and return its column."""
        column = last_column + 1
        if found := _CELL.fullmatch(place):
            column = 0
            for letter in found[1].upper():
                column = column * 26 + ord(letter) - ord("A") + 1
            self.rows = max(self.rows, int(found[2]))
        self.columns = max(self.columns, column)
        return column


def _row_number(place: str) -> int:
    """Return the number that openpyxl reads, which may be written as `1e6`; `ValueError` if there is none."""
    try:
        return int(place)
    except ValueError:
        number = float(place)
        if not number.is_integer():
            raise
        return int(number)
