"""Reads one file of any supported type into documents, with an error that says what is wrong if it cannot be read."""

from __future__ import annotations

import gzip
import logging
import os
import re
import stat
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from langchain_core.documents import Document

from langchain_crossrerank.blocks import CODE_SUFFIXES
from langchain_crossrerank.checks import check_choices
from langchain_crossrerank.errors import IndexingError, MissingExtraError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.files import open_regular
from langchain_crossrerank.indexing.conversion import CONVERTED, convert_to_markdown, with_commas
from langchain_crossrerank.indexing.manual_page import manual_page_to_markdown
from langchain_crossrerank.indexing.office_files import PACKED, check_table, check_unpacked
from langchain_crossrerank.indexing.pdf import PdfText, read_pdf
from langchain_crossrerank.indexing.texts import clean_text, decode_text

TEXT = (".txt", ".text", ".md", ".markdown", ".rst", ".rest", ".tex", ".org", ".adoc")
"""Types of prose that are read as text."""

PDF = (".pdf",)

SUFFIXES = (*PDF, *TEXT, *CODE_SUFFIXES, *CONVERTED)
"""File types that are read; manual pages, such as `ls.1` and `ls.1.gz`, are read too."""

MAX_TEXT_BYTES = 50_000_000
"""Size from which a file other than a PDF is refused, in bytes."""

MAX_PDF_BYTES = 4_000_000_000
"""Size from which a PDF is refused, in bytes."""

PdfReader = Literal["pypdfium2", "pypdf"]

_MANUAL_PAGE = re.compile(r".+\.[1-9][a-z]{0,2}(?:\.gz)?", re.IGNORECASE)
_PDF_ERRORS = ("FileNotDecryptedError", "WrongPasswordError", "DependencyError")
_KINDS = (
    (b"%PDF-", "a PDF", PDF),
    (b"PK\x03\x04", "a ZIP archive or an office file", (".docx", ".pptx", ".xlsx", ".epub")),
    (b"\x89PNG", "a picture", ()),
    (b"\xff\xd8\xff", "a picture", ()),
    (b"GIF8", "a picture", ()),
    (b"\x1f\x8b", "a gzip archive", ()),
    (b"\x7fELF", "a program", ()),
    (b"SQLite format 3", "a database", ()),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or a password-protected office file", ()),
    (b"{\\rtf", "an RTF file", ()),
)

_logger = logging.getLogger(__name__)


@dataclass
class FileText:
    """What was read from a file.

    Attributes:
        documents: One for each page of a PDF that has text; one for any other file.
        pages: Pages in the file; 1 for anything but a PDF.
        notes: What was left out, one sentence each, such as pages without text.
    """

    documents: list[Document]
    pages: int = 1
    notes: list[str] = field(default_factory=list)


def is_readable_type(path: Path) -> bool:
    """Return whether a file's name is that of a type that is read."""
    return path.suffix.lower() in SUFFIXES or is_manual_page(path)


def is_manual_page(path: Path) -> bool:
    """Return whether a file's name is that of a manual page, such as `ls.1` or `ls.1.gz`."""
    return _MANUAL_PAGE.fullmatch(path.name) is not None


def largest_size(path: Path) -> int:
    """Return the size up to which a file of this type is read, in bytes."""
    return MAX_PDF_BYTES if path.suffix.lower() in PDF else MAX_TEXT_BYTES


def show_path(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be stored: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def load_documents(path: str | os.PathLike[str], *, pdf_reader: PdfReader = "pypdfium2") -> list[Document]:
    """Read one file: a document for each page of a PDF, one document for any other file.

    Web pages, office files, books, notebooks and CSV tables become Markdown. What was left out, such as pages without
    text, is logged as a warning.

    Args:
        path: The file.
        pdf_reader: `"pypdfium2"`, which is fast and keeps words whole, or `"pypdf"` for LangChain's `PyPDFLoader`.

    Returns:
        Documents with `source` in their metadata; pages of a PDF also have `page` (from 0), `page_label` if the file
        has printed page labels, and, until they are split, `headings`.

    Raises:
        IndexingError: If the file is broken, encrypted, empty, not UTF-8, too large or of another type than its name
            says, or has no text.
        MissingExtraError: If the `rag` extra, or for converted types the `documents` extra, is not installed.
    """
    text = read_file(Path(path), pdf_reader=pdf_reader)
    for note in text.notes:
        _logger.warning("%s", note)
    return text.documents


def read_file(
    path: Path, *, pdf_reader: PdfReader = "pypdfium2", on_page: Callable[[int, int], None] | None = None
) -> FileText:
    """Read one file, as `load_documents` does, and return what was left out, too.

    Args:
        path: The file.
        pdf_reader: As in `load_documents`.
        on_page: Called after each page of a PDF with the pages read so far and the number of pages.

    Raises:
        IndexingError: As in `load_documents`.
        MissingExtraError: As in `load_documents`.
    """
    check_choices(pdf_reader=(pdf_reader, ("pypdfium2", "pypdf")))
    source = show_path(path)
    suffix = path.suffix.lower()
    head = _head(path, source)
    _check_kind(path, head, source)
    if suffix in PDF:
        return _read_pdf(path, source, pdf_reader, on_page)
    data = _bytes(path, source)
    if suffix in CONVERTED:
        text = _converted(path, data, source)
    else:
        try:
            text = decode_text(data)
        except UnicodeDecodeError as err:
            raise IndexingError(f"{source!r} is not UTF-8 text ({err}); convert it to UTF-8.", path=source) from err
        if is_manual_page(path) and re.search(r"^[.'](?:TH|SH|Dt|Sh|so)\b", text, re.MULTILINE):
            text = manual_page_to_markdown(text)
    text = clean_text(text).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise IndexingError(f"{source!r} is empty: it has no text.", path=source)
    return FileText([Document(text, metadata={"source": source})])


def _head(path: Path, source: str) -> bytes:
    """The first bytes, after making sure that reading the file cannot wait for anything or never end."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise IndexingError(
                f"{source!r} is not a regular file but a folder, pipe or device; it is not read.", path=source
            )
        with open_regular(path) as file:
            head = file.read(1024)
    except OSError as err:
        raise IndexingError(f"{source!r} cannot be read: {err.strerror or err}.", path=source) from err
    if not head:
        raise IndexingError(f"{source!r} is empty (0 bytes).", path=source)
    largest = largest_size(path)
    if found.st_size > largest:
        raise IndexingError(
            f"{source!r} has {found.st_size / 1e6:.0f} MB; at most {largest / 1e6:.0f} MB are read. Split it.",
            path=source,
        )
    return head


def _check_kind(path: Path, head: bytes, source: str) -> None:
    """Raise if the first bytes are those of a type that the name does not say."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return
    for mark, kind, suffixes in _KINDS:
        if head.startswith(mark) and suffix not in suffixes:
            hint = (
                f"rename it to end in {' or '.join(suffixes)}" if suffixes else "it holds no text that can be indexed"
            )
            raise IndexingError(
                f"{source!r} cannot be read as a {_type_name(suffix)}: it is {kind}; {hint}.", path=source
            )
    starts_like_html = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html"))
    if starts_like_html and suffix in (*PDF, *PACKED, ".txt", ".text"):
        raise IndexingError(
            f"{source!r} cannot be read as a {_type_name(suffix)}: it is a web page, perhaps one that asks to sign in; "
            "download it again, or rename it to end in .html.",
            path=source,
        )


def _type_name(suffix: str) -> str:
    return suffix.removeprefix(".").upper() if suffix in (*PDF, *CONVERTED) else f"{suffix or 'text'} file"


def _bytes(path: Path, source: str) -> bytes:
    try:
        with open_regular(path) as file:
            content: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            data = content.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise IndexingError(
            f"{source!r} cannot be read: {getattr(err, 'strerror', None) or err}.", path=source
        ) from err
    if len(data) > MAX_TEXT_BYTES:
        raise IndexingError(
            f"{source!r} has more than {MAX_TEXT_BYTES / 1e6:.0f} MB once unpacked. Split it.", path=source
        )
    return data


def _converted(path: Path, data: bytes, source: str) -> str:
    suffix = path.suffix.lower()
    if suffix in (".html", ".htm", ".xhtml", ".csv", ".ipynb"):
        try:
            decoded = decode_text(data)
        except UnicodeDecodeError as err:
            raise IndexingError(f"{source!r} is not UTF-8 text ({err}); convert it to UTF-8.", path=source) from err
        if suffix == ".csv":
            decoded = with_commas(decoded)
            check_table(decoded, source)
        data = decoded.encode("utf-8", "replace")
    if suffix in PACKED:
        check_unpacked(suffix, data, source)
    try:
        return convert_to_markdown(path, data)
    except MissingExtraError:
        raise
    except Exception as err:
        # A broken file can fail anywhere in any converter, with any error.
        reason = " ".join(str(err).split())[:200]
        raise IndexingError(
            f"{source!r} cannot be read as a {_type_name(suffix)} ({type(err).__name__}: {reason}); it may be broken, "
            "incomplete or protected by a password.",
            path=source,
        ) from err


def _read_pdf(path: Path, source: str, pdf_reader: PdfReader, on_page: Callable[[int, int], None] | None) -> FileText:
    found = read_pdf(path, source, on_page=on_page) if pdf_reader == "pypdfium2" else _read_with_pypdf(path, source)
    if not any(document.page_content.strip() for document in found.documents):
        raise IndexingError(
            f"{source!r} has no text; if it is scanned, run it through OCR first (for example ocrmypdf).", path=source
        )
    notes = []
    if found.without_text:
        notes.append(
            f"{source!r}: no text on {_pages(found.without_text)} of {found.pages}; if they are scanned, run the file "
            "through OCR first (for example ocrmypdf)."
        )
    if found.contents:
        notes.append(f"{source!r}: left out {_pages(found.contents)} of {found.pages}, a table of contents.")
    if found.unreadable:
        notes.append(f"{source!r}: {_pages(found.unreadable)} of {found.pages} cannot be read and is left out.")
    return FileText(found.documents, found.pages, notes)


def _read_with_pypdf(path: Path, source: str) -> PdfText:
    check_extra("rag", needed_for="PyPDFLoader", modules=("langchain_community", "pypdf"), backend="pypdf")
    from langchain_community.document_loaders import PyPDFLoader

    try:
        documents = PyPDFLoader(str(path)).load()
    except Exception as err:
        # A broken file can fail anywhere in the parser, with any error.
        if type(err).__name__ in _PDF_ERRORS:
            raise IndexingError(
                f"{source!r} is encrypted and pypdf cannot open it ({err}); save a copy without a password.",
                path=source,
            ) from err
        raise IndexingError(
            f"{source!r} cannot be read as a PDF ({type(err).__name__}: {err}); it may be broken or incomplete.",
            path=source,
        ) from err
    for document in documents:
        document.page_content = clean_text(document.page_content)
        document.metadata["source"] = source
    without_text = [place for place, document in enumerate(documents, start=1) if not document.page_content.strip()]
    return PdfText(documents, len(documents), without_text)


def _pages(numbers: Sequence[int]) -> str:
    """Name pages in few words: `page 3`, or `pages 1, 4-6`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:20]]
    more = ", ..." if len(ranges) > 20 else ""
    return f"{'page' if len(numbers) == 1 else 'pages'} {', '.join(shown)}{more}"
