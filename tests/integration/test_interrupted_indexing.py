"""Indexing that ends before it is done: nothing stays behind that a later call would not find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_crossrerank import index_files
from langchain_crossrerank.errors import ModelNotFoundError
from langchain_crossrerank.indexing import IndexReport
from langchain_crossrerank.indexing.records import RECORDS_FILE

PARAGRAPHS = 300
"""More chunks than are stored at once."""


class InterruptedEmbeddings(DeterministicFakeEmbedding):
    """Embeddings that are interrupted, as by Ctrl-C, when they are asked for a text with some word."""

    size: int = 16
    word: str = "poison"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, or stop."""
        if any(self.word in text for text in texts):
            raise KeyboardInterrupt
        return super().embed_documents(texts)


class FailingEmbeddings(InterruptedEmbeddings):
    """Embeddings that fail on a text with some word."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, or fail."""
        try:
            return super().embed_documents(texts)
        except KeyboardInterrupt:
            raise RuntimeError("no vector for this text") from None


def long_text(paragraphs: int, *, end: str = "") -> str:
    """Make a text of so many paragraphs, each a chunk of its own."""
    return "\n\n".join(f"Paragraph {number}. " + "It goes on. " * 25 for number in range(paragraphs)) + end


def index(paths: Any, embeddings: Any, **place: Any) -> IndexReport:
    return index_files(paths, embeddings=embeddings, show_progress=False, **place)


def stored(report: IndexReport, name: str) -> list[str]:
    """The chunks of a file, searched among all that the store holds."""
    found = report.vector_store.similarity_search("anything", k=2 * PARAGRAPHS)
    return [chunk.page_content for chunk in found if Path(chunk.metadata["source"]).name == name]


@pytest.fixture
def interrupted(tmp_path: Path) -> dict[str, Any]:
    """A kept index into which half of a long file was stored when Ctrl-C was pressed."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "long.txt").write_text(long_text(PARAGRAPHS, end=" poison"))
    (tmp_path / "files" / "short.txt").write_text("The ferry leaves at nine.")
    place = {"persist_directory": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        index(tmp_path / "files" / "long.txt", InterruptedEmbeddings(), **place)
    return place


def test_a_file_deleted_after_an_interruption_is_not_searched(tmp_path: Path, interrupted: dict[str, Any]) -> None:
    """What was stored of it is taken out with the next call on its folder."""
    (tmp_path / "files" / "long.txt").unlink()
    report = index(tmp_path / "files", InterruptedEmbeddings(), all_files=True, **interrupted)
    assert report.deleted > 0
    assert stored(report, "long.txt") == []


def test_a_file_that_shrank_after_an_interruption_has_no_old_end(tmp_path: Path, interrupted: dict[str, Any]) -> None:
    """The chunks beyond its new end are gone."""
    (tmp_path / "files" / "long.txt").write_text(long_text(2))
    report = index(tmp_path / "files", InterruptedEmbeddings(), **interrupted)
    assert len(stored(report, "long.txt")) == 2


def test_an_interrupted_file_is_finished_by_the_next_call(tmp_path: Path, interrupted: dict[str, Any]) -> None:
    """The same call again stores what was missing."""
    report = index(tmp_path / "files" / "long.txt", InterruptedEmbeddings(word="nothing"), **interrupted)
    assert len(stored(report, "long.txt")) == PARAGRAPHS


def test_of_a_file_that_cannot_be_embedded_any_more_nothing_is_searched(tmp_path: Path) -> None:
    """Not its earlier version either: half a file would be searched as if it were the whole one."""
    note, place = tmp_path / "note.txt", {"persist_directory": tmp_path / "kept"}
    other = tmp_path / "other.txt"
    other.write_text("It rains.")
    note.write_text(long_text(3))
    assert len(stored(index([note, other], FailingEmbeddings(), **place), "note.txt")) == 3
    note.write_text(long_text(3, end="\n\nThis is poison."))
    report = index([note, other], FailingEmbeddings(), all_files=True, **place)
    assert [failure.path for failure in report.failures] == [str(note)]
    report.vector_store.sources = None  # type: ignore[attr-defined]
    assert stored(report, "note.txt") == []


def test_embeddings_that_cannot_be_loaded_leave_no_name_behind(tmp_path: Path) -> None:
    """After a first try with a model that is not there, any other model makes the index."""
    note = tmp_path / "note.txt"
    note.write_text("The ferry leaves at nine.")
    with pytest.raises(ModelNotFoundError):
        index(note, str(tmp_path / "missing"), persist_directory=tmp_path / "kept")
    assert not (tmp_path / "kept" / RECORDS_FILE).exists()
    assert index(note, DeterministicFakeEmbedding(size=16), persist_directory=tmp_path / "kept").added == 1
