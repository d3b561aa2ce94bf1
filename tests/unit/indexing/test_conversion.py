"""Conversion to Markdown: headings and tables survive, navigation does not."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("markitdown", reason="needs the documents extra")

from langchain_crossrerank.errors import IndexingError, MissingExtraError
from langchain_crossrerank.extractive import find_quotes
from langchain_crossrerank.indexing import load_documents, split_documents
from langchain_crossrerank.indexing.conversion import convert_to_markdown

PAGE = """<!doctype html><html><head><title>Fares</title><style>p {}</style></head><body>
<nav><a href="/">Home</a></nav><header>Harbour</header><div role="search">Search</div>
<h2>Dogs</h2><p>Dogs travel for free. Grüße.</p>
<table><tr><th>Who</th><th>Price</th></tr><tr><td>Adult</td><td>5 euros</td></tr></table>
<footer>Imprint</footer><script>alert(1)</script></body></html>"""


def test_a_web_page_is_its_content() -> None:
    """Navigation, banners, footers and scripts are left out; headings and tables are Markdown."""
    text = convert_to_markdown(Path("a.html"), PAGE.encode())
    assert text.startswith("# Fares")
    assert "## Dogs" in text
    assert "| Adult | 5 euros |" in text
    assert "Grüße" in text
    assert not any(word in text for word in ("Home", "Harbour", "Search", "Imprint", "alert"))


def test_the_main_part_of_a_page_is_enough() -> None:
    """Where a page marks its content, nothing else is read."""
    text = convert_to_markdown(Path("a.html"), b"<body><div>Menu</div><main><h1>A</h1><p>It is late.</p></main></body>")
    assert "It is late." in text
    assert "Menu" not in text


@pytest.mark.parametrize(
    "body",
    [
        "<form id='page'><p>It is late.</p><input value='x'><button>Send</button></form>",
        "<main><aside class='note'><p>It is late.</p></aside></main>",
        "<h2><button>Is it?</button></h2><div hidden><p>It is late.</p></div>",
        "<div class='sidebar'><h1>Time</h1><p>It is late.</p></div>",
        "<article>A <article><p>It is late.</p></article></article>",
    ],
    ids=["form", "aside", "accordion", "sidebar around the page", "article in an article"],
)
def test_content_is_kept_once_wherever_it_is(body: str) -> None:
    """Forms around pages, asides beside text, folded answers, and articles in articles."""
    text = convert_to_markdown(Path("a.html"), f"<body>{body}</body>".encode())
    assert text.count("It is late.") == 1
    assert ("Is it?" in body) == ("## Is it?" in text)
    assert "Send" not in text


@pytest.mark.parametrize("mark", ["id='nav'", "class='navbar x'", "class='sidebar'", "id='toc'", "id='footer'"])
def test_what_is_named_like_navigation_is_left_out(mark: str) -> None:
    """Many pages mark it by its name alone."""
    page = f"<body><div {mark}><ul><li><a href='/a'>All our ferries</a></li></ul></div><h1>A</h1><p>It is late.</p>"
    text = convert_to_markdown(Path("a.html"), page.encode())
    assert "It is late." in text
    assert "ferries" not in text


def test_the_first_row_of_a_table_without_a_header_is_its_header() -> None:
    """Office programs mark no header; two columns are names and values, and need none."""
    rows = "<tr><td>Who</td><td>Price</td><td>Bags</td></tr><tr><td>Adult</td><td>5 euros</td><td>2</td></tr>"
    text = convert_to_markdown(Path("a.html"), f"<body><table>{rows}</table></body>".encode())
    assert text == "| Who | Price | Bags |\n| --- | --- | --- |\n| Adult | 5 euros | 2 |"
    rows = "<tr><th>Length</th><td>30 m</td></tr><tr><th>Width</th><td>8 m</td></tr>"
    text = convert_to_markdown(Path("a.html"), f"<body><table>{rows}</table></body>".encode())
    assert text == "| Length | 30 m |\n| Width | 8 m |"


def test_a_caption_is_above_its_table() -> None:
    """The table has its header all the same; code is left alone."""
    table = "<table><caption>Fares</caption><tr><th>Who</th><th>Price</th></tr><tr><td>Dog</td><td>0</td></tr></table>"
    text = convert_to_markdown(Path("a.html"), f"<body>{table}<pre>| a |\n| b |</pre></body>".encode())
    assert text.startswith("Fares\n\n| Who | Price |\n| --- | --- |\n| Dog | 0 |\n")
    assert "| a |\n| b |" in text


def test_the_title_of_a_sheet_is_above_its_table(tmp_path: Path) -> None:
    """A row with one cell above the names of the columns is not their header."""
    openpyxl = pytest.importorskip("openpyxl", reason="needs the documents extra")
    book = openpyxl.Workbook()
    for row in (["Fares of 2024"], [], ["Who", "Price", "Bags"], ["Adult", 5, 2]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    quotes = find_quotes(split_documents(load_documents(tmp_path / "a.xlsx")))
    assert [quote.text for quote in quotes] == ["Who: Adult; Price: 5; Bags: 2"]


def test_a_workbook_shows_what_its_cells_say(tmp_path: Path) -> None:
    """Empty cells and errors are empty, and "None" and the like are text; a day has no time, a count no decimals."""
    openpyxl = pytest.importorskip("openpyxl", reason="needs the documents extra")
    book = openpyxl.Workbook()
    book.active.title = "NaN"
    for row in (
        ["Part", "Checked", "Count", "Remark", None],
        ["valve", datetime(2024, 1, 2), 5, "NaN is not a number", None],
        ["pump", None, None, "None", "#N/A"],
        [None, datetime(2024, 1, 3, 4, 5), 2.5, "N/A", "Unnamed: 3 is odd"],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (document,) = load_documents(tmp_path / "a.xlsx")
    assert document.page_content.splitlines() == [
        "## NaN",
        "| Part | Checked | Count | Remark |  |",
        "| --- | --- | --- | --- | --- |",
        "| valve | 2024-01-02 | 5 | NaN is not a number |  |",
        "| pump |  |  | None |  |",
        "|  | 2024-01-03 04:05:00 | 2.5 | N/A | Unnamed: 3 is odd |",
    ]


def test_a_table_of_a_csv_file_has_its_header_in_each_chunk(tmp_path: Path) -> None:
    """Rows are chunks that say what their cells are."""
    path = tmp_path / "a.csv"
    path.write_text("Name,Price\n" + "".join(f"part {n},{n} euros\n" for n in range(60)))
    chunks = split_documents(load_documents(path))
    assert len(chunks) > 2
    assert all("| Name | Price |" in chunk.page_content for chunk in chunks)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_may_have_semicolons_or_tabs_between_its_cells(tmp_path: Path, mark: str) -> None:
    """As office programs write it where numbers have decimal commas."""
    path = tmp_path / "a.csv"
    path.write_text(mark.join(("Name", "Price", "Bags")) + "\n" + mark.join(("Adult", '"1,50"', "3")) + "\n")
    (quote,) = find_quotes(split_documents(load_documents(path)))
    assert quote.text == "Name: Adult; Price: 1,50; Bags: 3"


def test_a_notebook_is_its_text_and_code(tmp_path: Path) -> None:
    """Cells of both kinds are read."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Fares\n", "It is late."]},
        {"cell_type": "code", "metadata": {}, "source": ["x = 1"], "outputs": [], "execution_count": None},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    text = load_documents(path)[0].page_content
    assert "# Fares" in text
    assert "x = 1" in text


def test_a_word_file_keeps_its_headings(tmp_path: Path) -> None:
    """A heading's style becomes a Markdown heading."""
    pytest.importorskip("mammoth", reason="needs the documents extra")
    path = tmp_path / "a.docx"
    path.write_bytes(
        word_file(
            "<w:p><w:pPr><w:pStyle w:val='Heading1'/></w:pPr><w:r><w:t>Fares</w:t></w:r></w:p>"
            "<w:p><w:r><w:t>Dogs travel for free.</w:t></w:r></w:p>"
        )
    )
    (chunk,) = split_documents(load_documents(path))
    assert chunk.page_content == "Fares\n\nDogs travel for free."
    assert chunk.metadata["section"] == "Fares"


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    """Whatever the converter raises, the error names the file and the type."""
    path = tmp_path / "a.docx"
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(IndexingError, match=r"cannot be read as a DOCX .* may be broken") as caught:
        load_documents(path)
    assert "\n" not in str(caught.value)


def test_the_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the documents extra the error says what installs it."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "langchain-crossrerank\[documents\]"') as caught:
        convert_to_markdown(Path("a.docx"), b"")
    assert (caught.value.extra, caught.value.backend) == ("documents", "documents")


def word_file(body: str) -> bytes:
    """The smallest Word file with this body."""
    names = "xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'"
    office = "http://schemas.openxmlformats.org"
    packages = "application/vnd.openxmlformats-package.relationships+xml"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    relationships = f"<Relationships xmlns='{office}/package/2006/relationships'>"
    kinds = f"{office}/officeDocument/2006/relationships"
    parts = {
        "[Content_Types].xml": f"<Types xmlns='{office}/package/2006/content-types'>"
        "<Default Extension='xml' ContentType='application/xml'/>"
        f"<Default Extension='rels' ContentType='{packages}'/>"
        f"<Override PartName='/word/document.xml' ContentType='{main}'/></Types>",
        "_rels/.rels": f"{relationships}<Relationship Id='a' Type='{kinds}/officeDocument' Target='word/document.xml'/>"
        "</Relationships>",
        "word/document.xml": f"<w:document {names}><w:body>{body}</w:body></w:document>",
        "word/styles.xml": f"<w:styles {names}><w:style w:type='paragraph' w:styleId='Heading1'>"
        "<w:name w:val='heading 1'/></w:style></w:styles>",
        "word/_rels/document.xml.rels": f"{relationships}"
        f"<Relationship Id='a' Type='{kinds}/styles' Target='styles.xml'/></Relationships>",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return packed.getvalue()
