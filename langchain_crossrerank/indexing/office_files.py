"""Refuses office files and books of a few kilobytes that would unpack to gigabytes."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from xml.parsers import expat

from langchain_crossrerank.errors import IndexingError

PACKED = (".docx", ".pptx", ".xlsx", ".epub")
"""File types that are ZIP archives."""

MAX_UNPACKED_BYTES = 50_000_000
"""How much a file may unpack to, without what cannot be packed, such as pictures."""
MAX_CELLS = 5_000_000
"""How many cells all sheets of a workbook may span, each from its first to its last, empty ones included."""

_CELL = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,300})", re.IGNORECASE)
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
        if suffix == ".xlsx" and unpacked <= MAX_UNPACKED_BYTES:
            # All members, because a workbook says which ones are sheets, whatever they are called.
            parts = [_Part(archive, member) for member in members]
    if unpacked > MAX_UNPACKED_BYTES:
        raise IndexingError(
            f"{source!r} has {unpacked / 1e6:.0f} MB once unpacked; at most {MAX_UNPACKED_BYTES / 1e6:.0f} MB are "
            "read. Split it.",
            path=source,
        )
    cells = _count_cells(parts)
    if cells > MAX_CELLS:
        largest = max(parts, key=lambda part: part.cells)
        raise IndexingError(
            f"{source!r} has sheets of {cells} cells in all, the largest with {largest.rows} rows and "
            f"{largest.columns} columns; at most {MAX_CELLS} cells are read, empty ones included. Delete what lies far "
            "outside the tables, or split it.",
            path=source,
        )


def _count_cells(parts: Sequence[_Part]) -> int:
    """Return the cells of all sheets; a part that the workbook lists as several sheets is read, and counted, again."""
    listed = Counter(sheet for part in parts for sheet in part.sheets)
    uses: Counter[str] = Counter()
    for part in parts:
        for sheet, target in part.targets:
            uses[target] += listed[sheet]
    return sum(part.cells * max(uses[part.name], 1) for part in parts)


class _Part:
    """What matters of a member of a workbook, found without keeping its cells; empty for what is not XML or locked.

    Attributes:
        name: Its file name, without folders.
        rows: The number of its last row, if it is a sheet.
        columns: The number of its last column.
        sheets: The relationships that it lists as sheets, if it is the workbook.
        targets: Relationships and the file names that they lead to, if it holds those.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self.name = posixpath.basename(member.filename)
        self.rows = 0
        self.columns = 0
        self.sheets: list[str] = []
        self.targets: list[tuple[str, str]] = []
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

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if self._open and self._open[-1] is not None:
            self._open[-1] = self._add_cell(attributes.get("r", ""), self._open[-1])
        if name == "row":
            # As in openpyxl, rows and cells that do not say where they are follow the last one.
            self._row = _row_number(attributes["r"]) if "r" in attributes else self._row + 1
            self.rows = max(self.rows, self._row)
        elif name == "sheet":
            self.sheets += [value for key, value in attributes.items() if key.rpartition("}")[2] == "id"]
        elif name == "Relationship":
            self.targets.append((attributes.get("Id", ""), posixpath.basename(attributes.get("Target", ""))))
        self._open.append(0 if name == "row" else None)

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
