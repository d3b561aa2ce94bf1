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
        '<row r="1000000"/><row>' + "<c/>" * 16384 + "</row>",
        '<row r="1000000"/><row>' + "<c/><row/>" * 8192 + "</row>",
    ],
)
@pytest.mark.parametrize("member", ["xl_worksheets_sheet1.xml", "elsewhere.bin"])
def test_a_cell_far_away_is_refused(cells: str, member: str) -> None:
    """A sheet of two cells cannot become a table of billions."""
    with pytest.raises(
        IndexingError, match=r"'a\.xlsx' has sheets of \d+ cells in all, .* 10+\d+ rows and 16384 columns"
    ):
        check_unpacked(".xlsx", archive(**{member: SHEET.format(cells)}), "a.xlsx")


@pytest.mark.parametrize("rows", ['<row r="101"/>', "<row/>" * 101, "<row><c/><c/></row>" * 51, '<row r="1e99"/>'])
def test_rows_count_whatever_they_hold(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without cells, and rows and cells that do not say where they are, take memory like any other."""
    monkeypatch.setattr("langchain_crossrerank.indexing.office_files.MAX_CELLS", 100)
    with pytest.raises(IndexingError, match="cells in all"):
        check_unpacked(".xlsx", archive(**{"xl_worksheets_sheet1.xml": SHEET.format(rows)}), "a.xlsx")


@pytest.mark.parametrize("parts", [2, 1])
def test_the_limit_is_on_all_sheets_together(parts: int) -> None:
    """Sheets are read together, and a part that is listed as two sheets is read twice."""
    sheet = SHEET.format('<row r="300000"><c r="J300000"/></row>')
    check_unpacked(".xlsx", archive(**{"xl_worksheets_sheet1.xml": sheet}), "a.xlsx")
    book = {f"xl_worksheets_sheet{number}.xml": sheet for number in range(1, parts + 1)}
    listed = "".join(f'<sheet name="{number}" sheetId="{number}" r:id="a{number}"/>' for number in (1, 2))
    book["xl_workbook.xml"] = f'<workbook xmlns:r="urn:r"><sheets>{listed}</sheets></workbook>'
    targets = "".join(
        f'<Relationship Id="a{number}" Target="worksheets/sheet{min(number, parts)}.xml"/>' for number in (1, 2)
    )
    book["xl_rels_workbook.xml.rels"] = f"<Relationships>{targets}</Relationships>"
    with pytest.raises(IndexingError, match=r"sheets of 6000000 cells in all, the largest with 300000 rows and 10 col"):
        check_unpacked(".xlsx", archive(**book), "a.xlsx")


@pytest.mark.parametrize("fault", ["encrypted", "unknown compression"])
def test_a_member_that_does_not_open_hides_no_other(fault: str) -> None:
    """A workbook's reader never opens such a member, so the sheets are checked all the same."""
    sheet = SHEET.format('<row r="1048576"><c r="XFD1048576"/></row>')
    data = bytearray(archive(**{"junk": "x", "xl_worksheets_sheet1.xml": sheet}))
    first = data.index(b"PK\x01\x02")
    # Flags and method of the first member, in the archive's directory and before the member.
    for start in (0, first):
        at = start + (6 if start == 0 else 8)
        data[at : at + 4] = b"\x01\x00\x00\x00" if fault == "encrypted" else b"\x00\x00\x63\x00"
    with pytest.raises(IndexingError, match="cells in all"):
        check_unpacked(".xlsx", bytes(data), "a.xlsx")


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
