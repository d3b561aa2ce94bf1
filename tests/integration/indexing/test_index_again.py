"""What a second call adds, skips and deletes, in every kind of store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pypdf import PdfReader, PdfWriter

from langchain_crossrerank.errors import IndexingError, InvalidInputError
from langchain_crossrerank.indexing.stores import chunk_ids
from tests.integration.indexing.small_indexes import (
    EMBEDDINGS,
    PDF,
    Index,
    counts,
    drawn_page,
    index,
    long_text,
    sources,
    stored,
)

pytest.importorskip("langchain_chroma", reason="needs the rag extra")


def test_the_same_file_twice_adds_nothing(index_again: Index, note: Path) -> None:
    """The second and third time every chunk is skipped, and the store holds what it held."""
    first = index_again([PDF, note])
    texts = sorted(chunk.page_content for chunk in stored(first.vector_store))
    assert counts(first) == (len(texts), 0, 0)
    for _ in range(2):
        again = index_again([PDF, note])
        assert counts(again) == (0, first.added, 0)
        assert sorted(chunk.page_content for chunk in stored(again.vector_store)) == texts


def test_the_same_long_file_twice_adds_nothing(index_again: Index, note: Path) -> None:
    """A file of several hundred chunks is skipped whole, too."""
    note.write_text(long_text(250))
    assert counts(index_again(note)) == (250, 0, 0)
    assert counts(index_again(note)) == (0, 250, 0)


def test_a_relative_path_is_the_same_file(index_again: Index, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is known again however its path is written."""
    index_again(note)
    monkeypatch.chdir(note.parent)
    assert counts(index_again("./note.txt")) == (0, 1, 0)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 3), (150, 2), (2, 150)])
def test_a_changed_file_replaces_its_chunks(index_again: Index, note: Path, before: int, after: int) -> None:
    """After a change only the new version's chunks are there, and other files keep theirs."""
    other = note.with_name("other.txt")
    other.write_text("Another file.")
    note.write_text(long_text(before))
    index_again([note, other])
    note.write_text(long_text(after, about="trains"))
    report = index_again(note, all_files=True)
    assert counts(report) == (after, 0, before)
    chunks = stored(report.vector_store)
    assert len(chunks) == after + 1
    assert not [chunk for chunk in chunks if "boats" in chunk.page_content]
    assert sources(report.vector_store) == {"note.txt", "other.txt"}


def test_another_file_does_not_push_the_first_one_out(index_again: Index, note: Path) -> None:
    """Indexing a second file adds to the first."""
    index_again(note)
    other = note.with_name("other.txt")
    other.write_text("Another file.")
    report = index_again(other, all_files=True)
    assert counts(report) == (1, 0, 0)
    assert sources(report.vector_store) == {"note.txt", "other.txt"}


def test_an_unchanged_file_is_not_read_again(index_again: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call on the same place opens no document, and counts the same chunks."""
    first = index_again(PDF)
    monkeypatch.setattr("langchain_crossrerank.indexing.building.read_file", lambda *_, **__: pytest.fail("read"))
    again = index_again(PDF)
    assert (again.read, counts(again)) == (0, (0, first.added, 0))


def test_other_sizes_are_another_index(index_again: Index, note: Path) -> None:
    """A file is cut again if it is to be cut differently, and its old chunks are gone."""
    note.write_text(long_text(6))
    index_again(note)
    report = index_again(note, chunk_size=200, chunk_overlap=0)
    assert max(len(chunk.page_content) for chunk in stored(report.vector_store)) <= 200


def test_a_file_that_is_gone_stops_answering(index_again: Index, tmp_path: Path) -> None:
    """Its chunks are taken out when its folder is indexed again; files that were not named stay."""
    folder, elsewhere = tmp_path / "rules", tmp_path / "elsewhere.txt"
    folder.mkdir()
    elsewhere.write_text("The pool is elsewhere.")
    for name in ("old.txt", "new.txt"):
        (folder / name).write_text(f"The pool of {name} opens at six.")
    index_again([folder, elsewhere])
    (folder / "old.txt").unlink()
    report = index_again(folder, all_files=True)
    assert report.deleted == 1
    assert sources(report.vector_store) == {"new.txt", "elsewhere.txt"}


def test_the_last_file_of_a_folder_stops_answering_once_it_is_gone(index_again: Index, tmp_path: Path) -> None:
    """The call says that the folder holds nothing to read, and what it held is taken out all the same."""
    folder, elsewhere = tmp_path / "rules", tmp_path / "elsewhere.txt"
    folder.mkdir()
    elsewhere.write_text("The pool is elsewhere.")
    (folder / "old.txt").write_text("The pool opens at six.")
    store = index_again([folder, elsewhere]).vector_store
    (folder / "old.txt").unlink()
    with pytest.raises(InvalidInputError, match="holds no files that are read"):
        index_again(folder)
    assert sources(store) == {"elsewhere.txt"}


def test_a_file_that_is_gone_stops_answering_beside_one_that_breaks(index_again: Index, tmp_path: Path) -> None:
    """Also where no file of the folder can be read any more."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for name in ("old.txt", "new.txt"):
        (folder / name).write_text(f"The pool of {name} opens at six.")
    store = index_again(folder).vector_store
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_bytes(b"\xff\xff\xfe")
    with pytest.raises(IndexingError, match="is not UTF-8"):
        index_again(folder)
    assert sources(store) == set()


def test_what_is_left_out_is_noted_each_time(index_again: Index, tmp_path: Path, note: Path) -> None:
    """Pages without text and types that are not read are in the report, also where nothing was read again."""
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    writer = PdfWriter()
    writer.add_page(PdfReader(PDF).pages[0])
    writer.add_blank_page(200, 200).merge_page(drawn_page())
    writer.write(tmp_path / "mixed.pdf")
    for _ in range(2):
        notes = "\n".join(index_again(tmp_path).notes)
        assert "1 .png file" in notes
        assert "no text on page 2 of 2" in notes


def test_a_copy_is_left_out_and_noted(index_again: Index, tmp_path: Path) -> None:
    """Of files with the same content the first answers, each time; a copy answers once the first is gone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("The ferry leaves at nine.")
    for _ in range(2):
        report = index_again(folder)
        assert sources(report.vector_store) == {"a.txt"}
        assert report.sources == [str(folder / "a.txt")]
        assert any("b.txt" in remark and "is a copy of" in remark for remark in report.notes)
    (folder / "a.txt").unlink()
    assert sources(index_again(folder).vector_store) == {"b.txt"}


def test_a_file_that_becomes_a_copy_forgets_what_it_said(index_again: Index, tmp_path: Path) -> None:
    """Its old chunks are taken out with its record, so that it is read again once it differs."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("The pool opens at six.")
    second.write_text("The pool opens at nine.")
    index_again([first, second])
    second.write_text("The pool opens at six.")
    report = index_again([first, second], all_files=True)
    assert [chunk.page_content for chunk in stored(report.vector_store)] == ["The pool opens at six."]
    assert counts(report) == (0, 1, 1)
    assert sources(index_again(second, all_files=True).vector_store) == {"a.txt", "b.txt"}


def test_a_copy_of_a_file_that_cannot_be_read_is_indexed(index_again: Index, tmp_path: Path) -> None:
    """The same bytes may be readable under another name; once they are, further copies are left out."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("0.txt", "handbook.pdf", "second.pdf"):
        (folder / name).write_bytes(PDF.read_bytes())
    for _ in range(2):
        report = index_again(folder)
        assert [Path(failure.path).name for failure in report.failures] == ["0.txt"]
        assert sources(report.vector_store) == {"handbook.pdf"}
        assert report.sources == [str(folder / "handbook.pdf")]


def test_chunks_beyond_the_recorded_ones_are_taken_out(index_again: Index, note: Path) -> None:
    """What somebody else stored of a longer version does not answer for ever."""
    store = index_again(note).vector_store
    ids = chunk_ids(str(note), 130)[1:]
    store.add_documents([Document("old", metadata={"source": str(note)}) for _ in ids], ids=ids)
    assert counts(index_again(note)) == (0, 1, len(ids))
    assert [chunk.page_content for chunk in stored(store)] == ["The ferry leaves at nine."]


class KeepingStore(InMemoryVectorStore):
    """A store that cannot delete."""

    def delete(self, ids: Any = None, **kwargs: Any) -> None:
        raise NotImplementedError


def test_a_store_that_cannot_delete_is_filled_and_noted(note: Path) -> None:
    """Indexing works, and the report says where old chunks stay."""
    store = KeepingStore(EMBEDDINGS)
    note.write_text(long_text(2))
    assert counts(index(note, vector_store=store)) == (2, 0, 0)
    note.write_text(long_text(1))
    report = index(note, vector_store=store)
    assert any("KeepingStore cannot delete" in remark for remark in report.notes)


def test_a_callers_reopened_store_is_brought_up_to_date(tmp_path: Path, note: Path) -> None:
    """A store that another process filled is asked for what it holds: nothing twice, nothing old."""
    faiss = pytest.importorskip("langchain_community.vectorstores.faiss", reason="needs the rag extra")
    pytest.importorskip("faiss")
    note.write_text(long_text(3))
    store = faiss.FAISS.from_texts(["a text of the caller's"], EMBEDDINGS)
    assert counts(index(note, vector_store=store)) == (3, 0, 0)
    store.save_local(str(tmp_path / "faiss"))
    reopened = faiss.FAISS.load_local(str(tmp_path / "faiss"), EMBEDDINGS, allow_dangerous_deserialization=True)
    assert counts(index(note, vector_store=reopened)) == (0, 3, 0)
    note.write_text(long_text(1, about="trains"))
    again = faiss.FAISS.load_local(str(tmp_path / "faiss"), EMBEDDINGS, allow_dangerous_deserialization=True)
    assert counts(index(note, vector_store=again)) == (1, 0, 3)
    assert sorted("boats" in chunk.page_content for chunk in stored(again)) == [False, False]
