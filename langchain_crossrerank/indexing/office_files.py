"""Refuses office files and books of a few kilobytes that would unpack to gigabytes."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from contextlib import suppress
from xml.parsers import expat

from langchain_crossrerank.errors import IndexingError

PACKED = (".docx", ".pptx", ".xlsx", ".epub")
"""File types that are ZIP archives."""

MAX_UNPACKED_BYTES = 50_000_000
"""How much a file may unpack to, without what cannot be packed, such as pictures."""
MAX_CELLS = 5_000_000
"""How many cells a sheet may span, from the first to the last, empty ones included."""

_CELL = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,9})", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d+)?(?:[eE]\+?\d)?")
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error, ValueError)
"""What `zipfile` raises for archives that are broken or locked."""


def check_unpacked(suffix: str, data: bytes, source: str) -> None:
    """Raise if a file would unpack to more than is read, or has a sheet that spans too many cells.

    Args:
        suffix: The file's type, one of `PACKED`.
        data: The file's content. What is not a ZIP archive passes: its converter says what is wrong with it.
        source: What errors name as the file.

    Raises:
        IndexingError: If a limit is exceeded.
    """
    unpacked, sheets = 0, []
    with suppress(*_BROKEN), zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        # `zipfile` reads no more of a member than its header says, so a header that lies only breaks the file.
        unpacked = sum(member.file_size for member in members if member.file_size > 2 * member.compress_size)
        if suffix == ".xlsx" and unpacked <= MAX_UNPACKED_BYTES:
            # All members, because a workbook says which ones are sheets, whatever they are called.
            sheets = [_Extent(archive, member) for member in members]
    if unpacked > MAX_UNPACKED_BYTES:
        raise IndexingError(
            f"{source!r} has {unpacked / 1e6:.0f} MB once unpacked; at most {MAX_UNPACKED_BYTES / 1e6:.0f} MB are "
            "read. Split it.",
            path=source,
        )
    for sheet in sheets:
        if sheet.rows * sheet.columns > MAX_CELLS:
            raise IndexingError(
                f"{source!r} has a sheet of {sheet.rows} rows and {sheet.columns} columns; at most {MAX_CELLS} cells "
                "are read, empty ones included. Delete what lies far outside the table, or split it.",
                path=source,
            )


class _Extent:
    """The number of rows and columns that a sheet spans, found without keeping its cells; 0 for what is not XML."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self.rows = 0
        self.columns = 0
        parser = expat.ParserCreate(namespace_separator="}")
        parser.StartElementHandler = self._start
        with archive.open(member) as content, suppress(expat.ExpatError):
            parser.ParseFile(content)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        place = attributes.get("r", "")
        if tag.endswith("row") and _NUMBER.fullmatch(place):
            self.rows = max(self.rows, int(float(place)))
        elif found := _CELL.fullmatch(place):
            column = 0
            for letter in found[1].upper():
                column = column * 26 + ord(letter) - ord("A") + 1
            self.rows = max(self.rows, int(found[2]))
            self.columns = max(self.columns, column)
