"""Reading one file: what is read as what, and one line that says what is wrong."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing import load_documents
from langchain_crossrerank.indexing.reading import MAX_TEXT_BYTES, read_file

TEXT = "The ferry leaves at nine."


@pytest.mark.parametrize("name", ["a.txt", "a.rst", "a.py", "A.MD", "a.toml", "README"])
def test_text_and_source_files_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    """Prose and source text is one document."""
    path = tmp_path / name
    path.write_text(TEXT)
    (document,) = load_documents(path)
    assert (document.page_content, document.metadata) == (TEXT, {"source": str(path)})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    """UTF-16 and UTF-32 are read if they begin with a byte order mark."""
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße 🙂".encode(encoding))
    assert load_documents(path)[0].page_content == "Grüße 🙂"


@pytest.mark.parametrize(("name", "pack"), [("ls.1", bytes), ("ls.1.gz", gzip.compress)])
def test_a_manual_page_becomes_markdown(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    """Sections of a manual page are headings, packed or not."""
    path = tmp_path / name
    path.write_bytes(pack(b".TH LS 1\n.SH NAME\nls \\- list\n.SH OPTIONS\n.TP\n\\fB\\-a\\fR\nshow all\n"))
    text = load_documents(path)[0].page_content
    assert "## Name\n" in text
    assert "- -a: show all" in text


def test_what_cannot_be_stored_is_cleaned(tmp_path: Path) -> None:
    """NUL and soft hyphens are dropped, ligatures become letters, and line ends are those of Unix."""
    path = tmp_path / "a.txt"
    path.write_bytes("a\x00b ﬁne co\u00adop\r\nnext\rlast".encode())
    assert load_documents(path)[0].page_content == "ab fine coop\nnext\nlast"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.md", b" \n\t\n", "is empty"),
        ("a.txt", "Grüße".encode("latin-1"), "is not UTF-8 text"),
        ("a.txt", b"%PDF-1.5\n", r"it is a PDF; rename it to end in \.pdf"),
        ("a.pdf", b"PK\x03\x04....", r"it is a ZIP archive or an office file; rename it"),
        ("a.md", b"\x89PNG\r\n\x1a\n", "it is a picture"),
        ("a.pdf", b"<!DOCTYPE html><html>Sign in</html>", "it is a web page"),
        ("a.txt", b"<html><p>It is late.</p></html>", r"it is a web page.* rename it to end in \.html"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "old or a password-protected office file"),
        ("a.1.gz", b"\x1f\x8b\x08\x00broken", "cannot be read"),
        ("a.pdf", b"%PDF-1.5\n", "cannot be read as a PDF"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """The error names the file, what is wrong and what to do, on one line."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IndexingError, match=message) as caught:
        load_documents(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.path == str(path)


def test_a_very_large_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The size decides, not the content."""
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.write(b"a")
        file.truncate(MAX_TEXT_BYTES * 10)
    with pytest.raises(IndexingError, match="has 500 MB"):
        load_documents(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe is refused at once."""
    path = tmp_path / "a.txt"
    os.mkfifo(path)
    with pytest.raises(IndexingError, match="is not a regular file"):
        load_documents(path)


def test_pages_without_text_are_noted(write_pdf: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """The note names the pages and OCR, in the result and in the log."""
    drawn = b"0 0 100 100 re f"
    path = write_pdf("a.pdf", [drawn, [TEXT], drawn, drawn, drawn])
    (note,) = read_file(path).notes
    assert "no text on pages 1, 3-5 of 5" in note
    assert "OCR" in note
    load_documents(path)
    assert "no text on pages 1, 3-5" in caplog.text


def test_pages_of_contents_are_noted(write_pdf: Callable[..., Path]) -> None:
    """What is left out on purpose is said, too."""
    contents = [f"{n} A chapter " + ". " * 20 + str(n) for n in range(1, 8)]
    (note,) = read_file(write_pdf("a.pdf", [[TEXT], contents])).notes
    assert "left out page 2 of 2, a table of contents" in note


def test_a_scanned_file_says_so(write_pdf: Callable[..., Path]) -> None:
    """A PDF without any text is an error with a word on OCR."""
    with pytest.raises(IndexingError, match="has no text; if it is scanned, run it through OCR"):
        load_documents(write_pdf("a.pdf", [b"0 0 100 100 re f"]))


def test_pypdf_stays_a_choice(write_pdf: Callable[..., Path]) -> None:
    """LangChain's PyPDFLoader reads the same pages."""
    pytest.importorskip("langchain_community", reason="needs the rag extra")
    path = write_pdf("a.pdf", [[TEXT], ["It is late."]])
    texts = [document.page_content for document in load_documents(path, pdf_reader="pypdf")]
    assert [text.strip() for text in texts] == [TEXT, "It is late."]
    assert texts == [document.page_content for document in load_documents(path)]
