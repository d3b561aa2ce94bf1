"""Indexes for the tests: with embeddings that need no model, and files made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from pypdf import PdfReader, PdfWriter

from langchain_crossrerank import index_files
from langchain_crossrerank.indexing import IndexReport

PDF = Path(__file__).parents[3] / "notebooks" / "data" / "llm_fundamentals.pdf"
EMBEDDINGS = DeterministicFakeEmbedding(size=16)

Index = Callable[..., IndexReport]


def index(paths: Any, **kwargs: Any) -> IndexReport:
    """Index with embeddings that need no model, and without a progress bar."""
    return index_files(paths, **{"embeddings": EMBEDDINGS, "show_progress": False, **kwargs})


def stored(store: VectorStore) -> list[Document]:
    """Give all chunks of a store."""
    return store.similarity_search("anything", k=1000)


def sources(store: VectorStore) -> set[str]:
    """Give the names of the files that a store has chunks of."""
    return {Path(chunk.metadata["source"]).name for chunk in stored(store)}


def counts(report: IndexReport) -> tuple[int, int, int]:
    """Give what a report counts: added, skipped, deleted."""
    return report.added, report.skipped, report.deleted


def long_text(paragraphs: int, *, about: str = "boats") -> str:
    """Make a text of so many paragraphs, each a chunk of its own."""
    return "\n\n".join(f"Paragraph {number} is about {about}. " + "It goes on. " * 25 for number in range(paragraphs))


def save_pdf(path: Path, *, pages: int, password: str | None = None, owner_password: str | None = None) -> Path:
    """Save the first pages of the project's PDF; none makes one page without text."""
    writer = PdfWriter()
    for page in PdfReader(PDF).pages[:pages]:
        writer.add_page(page)
    if pages == 0:
        writer.add_blank_page(200, 200)
    if password is not None:
        writer.encrypt(password, owner_password)
    writer.write(path)
    return path


def drawn_page() -> Any:
    """A page that shows a line and no text."""
    from pypdf import PageObject
    from pypdf.generic import DecodedStreamObject, NameObject

    page = PageObject.create_blank_page(width=200, height=200)
    content = DecodedStreamObject()
    content.set_data(b"0 0 m 100 100 l S")
    page[NameObject("/Contents")] = content
    return page
