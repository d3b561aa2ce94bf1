"""Office files and books that unpack to far more than they are."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing.office_files import MAX_UNPACKED_BYTES, PACKED, check_unpacked
from langchain_crossrerank.indexing.reading import read_file

SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'
)


def archive(**members: bytes | str) -> bytes:
    """Pack members, whose names have `_` for `/`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "/"), content)
    return packed.getvalue()


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_that_unpacks_to_too_much_is_refused_unread(suffix: str, tmp_path: Path) -> None:
    """A few kilobytes cannot take gigabytes of memory, whatever the members are called."""
    half = b" " * (MAX_UNPACKED_BYTES // 2 + 1)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(archive(**{"word_document.xml": half, "word_picture.png": half}))
    assert path.stat().st_size < 100_000
    with pytest.raises(IndexingError, match=r"has 50 MB once unpacked"):
        read_file(path)


def test_pictures_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What packing does not make smaller cannot grow."""
    monkeypatch.setattr("langchain_crossrerank.indexing.office_files.MAX_UNPACKED_BYTES", 1000)
    picture = random.Random(3).randbytes(2000)
    check_unpacked(".docx", archive(**{"word_media_1.png": picture}), "a.docx")
    with pytest.raises(IndexingError, match="once unpacked"):
        check_unpacked(".docx", archive(**{"word_media_1.png": b" " * 2000}), "a.docx")


@pytest.mark.parametrize(
    "cells",
    [
        '<row r="1"><c r="A1"/></row><row r="1048576"><c r="XFD1048576"/></row>',
        '<row><c r="$XFD$1048576"/></row>',
        '<row r="1e6"><any r="xfd1"/></row>',
    ],
)
@pytest.mark.parametrize("member", ["xl_worksheets_sheet1.xml", "elsewhere.bin"])
def test_a_cell_far_away_is_refused(cells: str, member: str) -> None:
    """A sheet of two cells cannot become a table of billions."""
    with pytest.raises(IndexingError, match=r"'a\.xlsx' has a sheet of 10\d+ rows and 16384 columns"):
        check_unpacked(".xlsx", archive(**{member: SHEET.format(cells)}), "a.xlsx")


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 nothing else", archive(**{"xl_worksheets_sheet1.xml": "<worksheet><row"})]
)
def test_a_broken_file_is_left_to_its_converter(data: bytes, tmp_path: Path) -> None:
    """What cannot be unpacked or parsed gets the converter's error."""
    check_unpacked(".xlsx", data, "a.xlsx")
    path = tmp_path / "a.xlsx"
    path.write_bytes(data)
    with pytest.raises(IndexingError, match=r"a\.xlsx"):
        read_file(path)
