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
    """Pack members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_that_unpacks_to_too_much_is_refused_unread(suffix: str, tmp_path: Path) -> None:
    """A few kilobytes cannot take gigabytes of memory, whatever the members are called."""
    half = b" " * (MAX_UNPACKED_BYTES // 2 + 1)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(archive(**{"word/document.xml": half, "word/picture.png": half}))
    assert path.stat().st_size < 100_000
    with pytest.raises(IndexingError, match=r"has 50 MB once unpacked"):
        read_file(path)


def test_pictures_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What packing does not make smaller cannot grow."""
    monkeypatch.setattr("langchain_crossrerank.indexing.office_files.MAX_UNPACKED_BYTES", 1000)
    picture = random.Random(3).randbytes(2000)
    check_unpacked(".docx", archive(**{"word/media/1.png": picture}), "a.docx")
    with pytest.raises(IndexingError, match="once unpacked"):
        check_unpacked(".docx", archive(**{"word/media/1.png": b" " * 2000}), "a.docx")


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
@pytest.mark.parametrize("member", ["xl/worksheets/sheet1.xml", "elsewhere.bin"])
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
        check_unpacked(".xlsx", archive(**{"xl/worksheets/sheet1.xml": SHEET.format(rows)}), "a.xlsx")


@pytest.mark.parametrize("parts", [2, 1])
def test_the_limit_is_on_all_sheets_together(parts: int) -> None:
    """Sheets are read together, and a part that is listed as two sheets is read twice."""
    sheet = SHEET.format('<row r="300000"><c r="J300000"/></row>')
    check_unpacked(".xlsx", archive(**{"xl/worksheets/sheet1.xml": sheet}), "a.xlsx")
    book = {f"xl/worksheets/sheet{number}.xml": sheet for number in range(1, parts + 1)}
    listed = "".join(f'<sheet name="{number}" sheetId="{number}" r:id="a{number}"/>' for number in (1, 2))
    book["xl/workbook.xml"] = f'<workbook xmlns:r="urn:r"><sheets>{listed}</sheets></workbook>'
    targets = "".join(
        f'<Relationship Id="a{number}" Target="worksheets/sheet{min(number, parts)}.xml"/>' for number in (1, 2)
    )
    book["xl/_rels/workbook.xml.rels"] = f"<Relationships>{targets}</Relationships>"
    with pytest.raises(IndexingError, match=r"sheets of 6000000 cells in all, the largest with 300000 rows and 10 col"):
        check_unpacked(".xlsx", archive(**book), "a.xlsx")


def relationships(**targets: str) -> str:
    named = "".join(f"<Relationship Id='{name}' Target='{target}'/>" for name, target in targets.items())
    return f"<Relationships>{named}</Relationships>"


NOISE = random.Random(5).randbytes(300_000)
LONG = "<x>" + NOISE[:200_000].hex() + "</x>"
REPEATED = {
    "slides": (
        ".pptx",
        "<p:sldId id='256' r:id='a'/>",
        {
            "ppt/presentation.xml": "<x xmlns:p='urn:p' xmlns:r='urn:r'>{}</x>",
            "ppt/_rels/presentation.xml.rels": relationships(a="slides/slide1.xml"),
            "ppt/slides/slide1.xml": LONG,
        },
    ),
    "charts and notes of slides": (
        ".pptx",
        "<p:sldId id='256' r:id='a'/>",
        {
            "ppt/presentation.xml": "<x xmlns:p='urn:p' xmlns:r='urn:r'>{}</x>",
            "ppt/_rels/presentation.xml.rels": relationships(a="slides/slide1.xml"),
            "ppt/slides/slide1.xml": "<x/>",
            "ppt/slides/_rels/slide1.xml.rels": relationships(a="../notesSlides/notesSlide1.xml"),
            "ppt/notesSlides/notesSlide1.xml": LONG,
        },
    ),
    "chapters": (
        ".epub",
        "<itemref idref='a'/>",
        {
            "OEBPS/content.opf": "<package><item id='a' href='my%20text/one.html'/>{}</package>",
            "OEBPS/my text/one.html": LONG,
        },
    ),
    "pictures": (
        ".docx",
        "<a:blip r:embed='a'/>",
        {
            "word/document.xml": "<x xmlns:a='urn:a' xmlns:r='urn:r'>{}</x>",
            "word/_rels/document.xml.rels": relationships(a="media/1.png"),
            "word/media/1.png": NOISE,
        },
    ),
}


@pytest.mark.parametrize(("suffix", "use", "members"), REPEATED.values(), ids=REPEATED)
def test_a_part_counts_as_often_as_it_is_shown(suffix: str, use: str, members: dict[str, bytes | str]) -> None:
    """A part of a few kilobytes cannot be shown until it takes gigabytes."""
    for times in (1, 100, 1000):
        data = archive(
            **{
                name: content.replace("{}", use * times) if isinstance(content, str) else content
                for name, content in members.items()
            }
        )
        if times < 1000:
            check_unpacked(suffix, data, f"a{suffix}")
        else:
            with pytest.raises(IndexingError, match=rf"'a\{suffix}' has [34]\d\d MB once unpacked"):
                check_unpacked(suffix, data, f"a{suffix}")


def test_parts_of_the_same_name_are_told_apart() -> None:
    """A book's chapters may all have one name, each in its own folder; a logo may be on each slide."""
    chapters = range(100)
    items = "".join(f"<item id='c{n}' href='{n}/index.html'/>" for n in chapters)
    spine = "".join(f"<itemref idref='c{n}'/>" for n in chapters)
    book = {f"OEBPS/{n}/index.html": f"<x>{'a' * 90_000}</x>" for n in chapters}
    check_unpacked(".epub", archive(**book, **{"OEBPS/content.opf": f"<x>{items}{spine}</x>"}), "a.epub")
    slide = "<x xmlns:a='urn:a' xmlns:r='urn:r'><a:blip r:embed='a'/></x>"
    slides = {f"ppt/slides/slide{n}.xml": slide for n in range(300)}
    slides |= {f"ppt/slides/_rels/slide{n}.xml.rels": relationships(a="../media/1.png") for n in range(300)}
    check_unpacked(".pptx", archive(**slides, **{"ppt/media/1.png": NOISE}), "a.pptx")


def test_text_that_packing_does_not_make_smaller_counts() -> None:
    """A member may be stored as it is, and be text all the same."""
    text = f"<x>{'a' * MAX_UNPACKED_BYTES}</x>"
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as file:
        file.writestr("word/document.xml", text)
    with pytest.raises(IndexingError, match="has 50 MB once unpacked"):
        check_unpacked(".docx", stored.getvalue(), "a.docx")


@pytest.mark.parametrize("table", ["," * 100_000 + "\n" + "x\n" * 100_000, "\n" * 6_000_000], ids=["wide", "empty"])
def test_a_table_whose_rows_become_too_wide_is_refused(table: str, tmp_path: Path) -> None:
    """Each row becomes as wide as the widest, which can be billions of cells."""
    path = tmp_path / "a.csv"
    path.write_text(table)
    with pytest.raises(IndexingError, match=r"a\.csv' is a table of \d+ rows and \d+ columns; at most .* Split it"):
        read_file(path)


@pytest.mark.parametrize("fault", ["encrypted", "unknown compression"])
def test_a_member_that_does_not_open_hides_no_other(fault: str) -> None:
    """A workbook's reader never opens such a member, so the sheets are checked all the same."""
    sheet = SHEET.format('<row r="1048576"><c r="XFD1048576"/></row>')
    data = bytearray(archive(**{"junk": "x", "xl/worksheets/sheet1.xml": sheet}))
    first = data.index(b"PK\x01\x02")
    # Flags and method of the first member, in the archive's directory and before the member.
    for start in (0, first):
        at = start + (6 if start == 0 else 8)
        data[at : at + 4] = b"\x01\x00\x00\x00" if fault == "encrypted" else b"\x00\x00\x63\x00"
    with pytest.raises(IndexingError, match="cells in all"):
        check_unpacked(".xlsx", bytes(data), "a.xlsx")


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 nothing else", archive(**{"xl/worksheets/sheet1.xml": "<worksheet><row"})]
)
def test_a_broken_file_is_left_to_its_converter(data: bytes, tmp_path: Path) -> None:
    """What cannot be unpacked or parsed gets the converter's error."""
    check_unpacked(".xlsx", data, "a.xlsx")
    path = tmp_path / "a.xlsx"
    path.write_bytes(data)
    with pytest.raises(IndexingError, match=r"a\.xlsx"):
        read_file(path)
