"""Reading PDF files: text, headings, labels, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing.pdf import HEADINGS, _headings_by_outline, read_pdf
from langchain_crossrerank.indexing.pdf_process import Line, Page, read_pages
from langchain_crossrerank.indexing.pdf_program import MAX_OBJECTS, MAX_TITLE

PROSE = ["The ferry leaves at nine in the morning.", "It takes two hours to the island.", "Dogs travel for free."]


def test_a_page_is_a_document_with_its_lines(write_pdf: Callable[..., Path]) -> None:
    """Each page keeps its lines, its number from 0 and the number of pages."""
    path = write_pdf("a.pdf", [PROSE, ["Another page."]])
    read = read_pdf(path, "a.pdf")
    assert [document.page_content for document in read.documents] == ["\n".join(PROSE), "Another page."]
    assert [document.metadata["page"] for document in read.documents] == [0, 1]
    assert read.documents[0].metadata["total_pages"] == 2
    assert read.pages == 2


def test_running_heads_and_page_numbers_are_left_out(write_pdf: Callable[..., Path]) -> None:
    """What is repeated at the top or bottom of pages, and page numbers, are not text."""
    pages = [[f"The manual of the pump {n}", *PROSE, f"Page {n}"] for n in range(1, 5)]
    read = read_pdf(write_pdf("a.pdf", pages), "a.pdf")
    assert {document.page_content for document in read.documents} == {"\n".join(PROSE)}


def test_a_line_set_off_at_the_top_of_each_page_is_left_out(write_pdf: Callable[..., Path]) -> None:
    """A running head that names another section on each page is known by its place."""
    heads = ("Fares", "Dogs", "Timetable", "The island", "Tickets")
    body = b" ".join(b"(" + line.encode() + b") Tj T*" for line in PROSE * 2)
    pages = [b"BT /F1 11 Tf 14 TL 60 770 Td (" + head.encode() + b") Tj 0 -40 Td " + body + b" ET" for head in heads]
    read = read_pdf(write_pdf("a.pdf", pages), "a.pdf")
    assert {document.page_content for document in read.documents} == {"\n".join(PROSE * 2)}


def test_pages_that_repeat_one_line_keep_it(write_pdf: Callable[..., Path]) -> None:
    """A line is not taken for a running head where nothing would be left of the page."""
    read = read_pdf(write_pdf("a.pdf", [[f"Chapter {n} is short"] for n in range(5)]), "a.pdf")
    assert [document.page_content for document in read.documents] == [f"Chapter {n} is short" for n in range(5)]


@pytest.mark.parametrize(
    ("left", "right", "word"),
    [
        ("war", "ranty", "warranty"),
        ("WAR", "RANTY", "WARRANTY"),
        ("COVID", "19", "COVID-19"),
        ("Smith", "Jones", "Smith-Jones"),
        ("e", "mail", "e-mail"),
        ("X", "ray", "X-ray"),
        ("PDF", "file", "PDF-file"),
    ],
)
def test_a_word_broken_at_the_end_of_a_line_is_whole(
    write_pdf: Callable[..., Path], left: str, right: str, word: str
) -> None:
    """A hyphen that belongs to the word stays."""
    path = write_pdf("a.pdf", [[f"It is about a {left}-", f"{right} of the ferry."]])
    assert read_pdf(path, "a.pdf").documents[0].page_content == f"It is about a {word} of the ferry."


def test_pages_of_contents_are_left_out(write_pdf: Callable[..., Path]) -> None:
    """A page of lines with dot leaders is neither a document nor reported as a page without text."""
    contents = [f"{n} A chapter " + ". " * 20 + str(n) for n in range(1, 8)]
    read = read_pdf(write_pdf("a.pdf", [contents, PROSE]), "a.pdf")
    assert [document.metadata["page"] for document in read.documents] == [1]
    assert (read.without_text, read.contents) == ([], [1])


@pytest.mark.parametrize("price", ["2.50", "3,00 EUR", "", "{n}"])
def test_a_page_of_prices_or_a_form_is_read(write_pdf: Callable[..., Path], price: str) -> None:
    """Dot leaders alone make no contents; where a file is nothing else, even contents are read."""
    lines = [f"Ferry {n} " + ". " * 20 + price.format(n=n) for n in range(1, 8)]
    read = read_pdf(write_pdf("a.pdf", [lines]), "a.pdf")
    assert [document.metadata["page"] for document in read.documents] == [0]
    assert read.contents == []


def test_pages_without_text_are_counted_from_1(write_pdf: Callable[..., Path]) -> None:
    """A page that only draws is reported; an empty one is not, for nothing is lost with it."""
    read = read_pdf(write_pdf("a.pdf", [b"0 0 100 100 re f", PROSE, b"", b"0 0 9 9 re f"]), "a.pdf")
    assert read.without_text == [1, 4]
    assert [document.metadata["page"] for document in read.documents] == [1]


def test_the_outline_gives_the_headings(write_pdf: Callable[..., Path]) -> None:
    """Titles of the outline are found in the text, with or without the number that is printed in front."""
    path = write_pdf(
        "a.pdf", [["1. Fares", *PROSE], PROSE, ["Timetable", *PROSE]], outline=[("Fares", 0), ("Timetable", 2)]
    )
    read = read_pdf(path, "a.pdf")
    assert [document.metadata[HEADINGS] for document in read.documents] == [
        [(0, 1, "Fares")],
        [],
        [(0, 1, "Timetable")],
    ]


def test_titles_are_found_by_their_heights(write_pdf: Callable[..., Path]) -> None:
    """Of lines that begin like a title the first one at or below its height counts, of other titles the first line."""
    path = write_pdf("a.pdf", [["Cheaper fares", *PROSE, "Fares", *PROSE, "2.1 Fares", *PROSE, "Dogs"]])
    heights = [line.top for line in read_pages(path, "a.pdf").pages[0].lines]
    titles = [("Fares", 800.0), ("Fares", heights[8]), ("Fares", 0.0), ("Fares", None), ("Cats", heights[4])]
    lines = [[(0, 1, title, height)] for title, height in titles]
    found = [_headings_by_outline(read_pages(path, "a.pdf").pages, outline) for outline in lines]
    assert [on_page[0][0][0] for on_page in found if on_page] == [4, 8, 4, 4, 4]


def test_an_outline_of_many_entries_on_a_page_of_many_lines_is_read_in_one_pass() -> None:
    """Comparing each entry with each line would take hours."""
    page = Page(0, [Line(f"{'1.1' * (n % 7)} Fares", 0.0, -float(n), -float(n)) for n in range(100_000)], "", True)
    long = Page(1, [Line("1" + ".1" * 100_000)], "", True)
    outline = [(0, 1, "Fares", -5.0 * n) for n in range(20_000)] + [(1, 1, "1" + ".1" * 100, None)]
    headings = _headings_by_outline([page, long], outline)
    assert headings is not None
    assert [line for line, _, _ in headings[0]] == [0, *range(1, 5 * 20_000 - 5, 5)], "up to four points above"
    assert headings[1] == [(0, 1, "1" + ".1" * 100)]


def test_without_an_outline_larger_lines_are_headings(write_pdf: Callable[..., Path]) -> None:
    """A line that is set larger than running text is a heading."""
    small = b" ".join(b"(" + line.encode() + b") Tj T*" for line in PROSE * 4)
    page = b"BT /F1 18 Tf 20 TL 60 760 Td (Fares) Tj T* /F1 11 Tf 14 TL " + small + b" ET"
    (document,) = read_pdf(write_pdf("a.pdf", [page]), "a.pdf").documents
    assert document.metadata[HEADINGS] == [(0, 1, "Fares")]


def test_printed_page_labels_are_kept(write_pdf: Callable[..., Path]) -> None:
    """The label that is printed on a page is in its metadata."""
    path = write_pdf("a.pdf", [PROSE, PROSE], labels="/PageLabels<</Nums[0<</S/r>>1<</S/D/St 7>>]>>")
    assert [document.metadata["page_label"] for document in read_pdf(path, "a.pdf").documents] == ["i", "7"]


def test_what_every_chunk_of_a_page_names_is_short(write_pdf: Callable[..., Path]) -> None:
    """A label or an outline's title may be as long as the file."""
    path = write_pdf(
        "a.pdf",
        [PROSE],
        labels=f"/PageLabels<</Nums[0<</P({'x' * 10_000})>>]>>",
        outline=[("y" * 10_000, 0)],
    )
    (document,) = read_pdf(path, "a.pdf").documents
    assert document.metadata["page_label"] == "x" * MAX_TITLE
    assert document.metadata[HEADINGS] == [(0, 1, "y" * MAX_TITLE)]


def test_a_wide_gap_begins_a_paragraph(write_pdf: Callable[..., Path]) -> None:
    """Lines with more space between them than usual are apart in the text, too."""
    page = b"BT /F1 11 Tf 14 TL 60 760 Td (One.) Tj T* (Two.) Tj T* (Three.) Tj 0 -40 Td (Four.) Tj T* (Five.) Tj ET"
    (document,) = read_pdf(write_pdf("a.pdf", [page]), "a.pdf").documents
    assert document.page_content == "One.\nTwo.\nThree.\n\nFour.\nFive."


def test_each_page_is_reported_as_it_is_read(write_pdf: Callable[..., Path]) -> None:
    """The callback gets the pages read so far and their number."""
    seen: list[tuple[int, int]] = []
    read_pdf(write_pdf("a.pdf", [PROSE] * 3), "a.pdf", on_page=lambda page, pages: seen.append((page, pages)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_page_of_too_many_objects_is_not_read(write_pdf: Callable[..., Path]) -> None:
    """A page that would need minutes is reported, and the others are read."""
    read = read_pdf(write_pdf("a.pdf", [PROSE, b"BT /F1 9 Tf " + b"(x) Tj " * (MAX_OBJECTS + 1) + b"ET"]), "a.pdf")
    assert (read.unreadable, len(read.documents)) == ([2], 1)


@pytest.mark.parametrize("content", [b"%PDF-1.5\nnothing else", b"no PDF at all"])
def test_a_broken_file_is_an_indexing_error(tmp_path: Path, content: bytes) -> None:
    """What pdfium cannot open is named, with what to do."""
    path = tmp_path / "a.pdf"
    path.write_bytes(content)
    with pytest.raises(IndexingError, match=r"'a\.pdf' cannot be read as a PDF .* fetch it again"):
        read_pdf(path, "a.pdf")
