"""Files that cannot be read: one line each, and the others are indexed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from pypdf import PdfReader, PdfWriter

from langchain_crossrerank.errors import IndexingError
from tests.integration.indexing.small_indexes import PDF, index, save_pdf, sources, stored

pytest.importorskip("langchain_chroma", reason="needs the rag extra")


def cut_short(path: Path) -> None:
    path.write_bytes(PDF.read_bytes()[:3000])


def no_pdf(path: Path) -> None:
    path.write_text("This is no PDF at all.")


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def encrypted(path: Path) -> None:
    save_pdf(path, pages=1, password="secret")


def scanned(path: Path) -> None:
    save_pdf(path, pages=0)


def latin_1(path: Path) -> None:
    path.write_bytes("Grüße aus Köln".encode("latin-1"))


def blank(path: Path) -> None:
    path.write_text(" \n\t\n")


BAD_FILES: list[tuple[str, Callable[[Path], None], str]] = [
    ("cut.pdf", cut_short, "cannot be read as a PDF"),
    ("text.pdf", no_pdf, "cannot be read as a PDF"),
    ("empty.pdf", no_bytes, "is empty"),
    ("locked.pdf", encrypted, "is encrypted"),
    ("scan.pdf", scanned, "has no text; if it is scanned"),
    ("latin.txt", latin_1, "is not UTF-8 text"),
    ("blank.txt", blank, "is empty"),
    ("empty.md", no_bytes, "is empty"),
]


@pytest.mark.parametrize(("name", "make", "reason"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_a_bad_file_is_reported_and_the_others_are_indexed(
    tmp_path: Path, note: Path, name: str, make: Callable[[Path], None], reason: str
) -> None:
    """A failure names its file and the reason, and does not stop the rest."""
    bad = tmp_path / name
    make(bad)
    report = index([bad, note])
    (failure,) = report.failures
    assert isinstance(failure, IndexingError)
    assert failure.path == str(bad)
    assert str(bad) in str(failure)
    assert reason in str(failure)
    assert sources(report.vector_store) == {"note.txt"}
    assert report.added == 1


def test_when_every_file_is_bad_it_raises(tmp_path: Path) -> None:
    """Without one readable file the error names each of them."""
    for name, make, _ in BAD_FILES:
        make(tmp_path / name)
    with pytest.raises(IndexingError) as caught:
        index(tmp_path)
    assert [name for name, _, _ in BAD_FILES if str(tmp_path / name) not in str(caught.value)] == []
    assert Path(caught.value.path).parent == tmp_path


def test_a_pdf_that_only_forbids_changes_is_read(tmp_path: Path) -> None:
    """A PDF that opens without a password is indexed, although it is encrypted."""
    path = save_pdf(tmp_path / "owned.pdf", pages=1, password="", owner_password="secret")
    assert PdfReader(path).is_encrypted
    assert index(path).failures == []


def test_a_page_without_text_among_others_is_no_failure(tmp_path: Path) -> None:
    """One scanned page does not spoil a PDF whose other pages have text."""
    path = tmp_path / "mixed.pdf"
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.add_page(PdfReader(PDF).pages[0])
    writer.write(path)
    report = index(path)
    assert report.failures == []
    assert {chunk.metadata["page"] for chunk in stored(report.vector_store)} == {1}


class FailingEmbeddings(DeterministicFakeEmbedding):
    """Embeddings that refuse texts about poison."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if any("poison" in text for text in texts):
            raise RuntimeError("no vector for this text")
        return super().embed_documents(texts)


def test_a_file_that_cannot_be_embedded_does_not_stop_the_others(tmp_path: Path) -> None:
    """The file is reported with the reason, nothing of it is stored, and it is tried again the next time."""
    for name, text in (("a.txt", "It is late."), ("b.txt", "This is poison."), ("c.txt", "It rains.")):
        (tmp_path / name).write_text(text)
    store = InMemoryVectorStore(FailingEmbeddings(size=16))
    for skipped in (0, 2):
        report = index(tmp_path, vector_store=store)
        (failure,) = report.failures
        assert failure.path.endswith("b.txt")
        assert "cannot be embedded or stored (RuntimeError: no vector for this text)" in str(failure)
        assert (report.skipped, sources(store)) == (skipped, {"a.txt", "c.txt"})


def test_a_bad_file_is_remembered_until_it_changes(tmp_path: Path, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported each time without being parsed again, and read when it is mended."""
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.5 broken")
    place: dict[str, Any] = {"persist_directory": tmp_path / "kept"}
    first = index([note, bad], **place)
    second = index([note, bad], **place)
    assert [str(failure) for failure in second.failures] == [str(failure) for failure in first.failures]
    assert second.read == 0
    save_pdf(bad, pages=1)
    assert index([note, bad], **place).failures == []


@pytest.mark.parametrize("name", ["notes.md", "notes.pdf"])
def test_a_file_of_terabytes_is_refused_by_its_size(tmp_path: Path, note: Path, name: str) -> None:
    """Nothing of it is read, and what was stored of it before it grew is taken out."""
    place: dict[str, Any] = {"persist_directory": tmp_path / "kept"}
    large = tmp_path / name
    large.write_bytes(PDF.read_bytes() if name.endswith(".pdf") else b"It rains.")
    assert index([large, note], **place).failures == []
    with large.open("r+b") as file:
        file.truncate(1 << 42)
    for _ in range(2):
        report = index([large, note], all_files=True, **place)
        assert [failure.path for failure in report.failures] == [str(large)]
        assert "has 4398047 MB" in str(report.failures[0])
        report.vector_store.sources = None  # type: ignore[attr-defined]
        assert sources(report.vector_store) == {"note.txt"}
