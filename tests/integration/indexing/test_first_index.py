"""From files to a vector store: what is read, how it is cut, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pypdf import PdfReader

from langchain_crossrerank import CrossRerankError, load_embeddings
from langchain_crossrerank.embeddings import OFFLINE_EMBEDDINGS
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, ModelNotFoundError
from langchain_crossrerank.indexing import find_files, load_documents, split_documents
from tests.integration.indexing.small_indexes import EMBEDDINGS, PDF, counts, index, save_pdf, sources, stored

pytest.importorskip("langchain_chroma", reason="needs the rag extra")


def test_a_pdf_becomes_chunks_with_file_page_and_place() -> None:
    """Every chunk names its file, its page from 0 and its first character, and is not longer than asked."""
    report = index(PDF, chunk_size=400, chunk_overlap=40)
    chunks = stored(report.vector_store)
    assert (report.added, report.skipped, report.deleted, report.failures) == (len(chunks), 0, 0, [])
    assert {chunk.metadata["source"] for chunk in chunks} == {str(PDF.resolve())}
    assert {chunk.metadata["page"] for chunk in chunks} == set(range(len(PdfReader(PDF).pages)))
    assert all(type(chunk.metadata["start_index"]) is int for chunk in chunks)
    assert max(len(chunk.page_content) for chunk in chunks) <= 400 + 300
    pages = {document.metadata["page"]: document.page_content for document in load_documents(PDF)}
    for chunk in chunks:
        own_text = chunk.page_content[chunk.metadata.get("carried", 0) :]
        start = chunk.metadata["start_index"]
        # A sentence that goes over the end of a page is completed from the next one.
        assert own_text in pages[chunk.metadata["page"]][start:] + " " + pages.get(chunk.metadata["page"] + 1, "")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.markdown", "A.TXT"])
def test_text_and_markdown_are_read_as_utf_8(tmp_path: Path, name: str) -> None:
    """A text file is one document; umlauts, emoji and a byte order mark are read right."""
    path = tmp_path / name
    path.write_bytes("\ufeffGrüße 🙂 aus Köln".encode())
    report = index(path)
    (chunk,) = stored(report.vector_store)
    assert chunk.page_content == "Grüße 🙂 aus Köln"
    assert chunk.metadata == {"source": str(path.resolve()), "start_index": 0}


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path, note: Path) -> None:
    """Files of known types are found at any depth, others are passed over, and each file counts once."""
    deep = tmp_path / "sub" / "deeper"
    deep.mkdir(parents=True)
    (deep / "deep.MD").write_text("# Deep")
    save_pdf(tmp_path / "sub" / "page.pdf", pages=1)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "data.json").write_text("{}")
    report = index([tmp_path, note, str(note), os.fspath(deep)])
    assert sources(report.vector_store) == {"note.txt", "deep.MD", "page.pdf"}
    assert find_files([tmp_path, note]) == [note, tmp_path / "sub" / "deeper" / "deep.MD", tmp_path / "sub/page.pdf"]


@pytest.mark.parametrize("wrap", [str, Path, lambda path: [path], lambda path: iter([str(path)])])
def test_paths_come_in_any_form(note: Path, wrap: Callable[[Path], Any]) -> None:
    """A string, a path, a list and an iterator all name files."""
    assert counts(index(wrap(note))) == (1, 0, 0)


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (lambda folder: folder / "missing.txt", "missing.txt"),
        (lambda folder: [folder / "note.txt", folder / "missing"], "missing"),
        (lambda folder: folder / "table.ods", "table.ods.*save it as .xlsx or CSV"),
        (lambda folder: folder / "empty", "empty"),
        (lambda folder: [], "no files were given"),
    ],
    ids=["missing", "one missing", "unknown type", "empty folder", "nothing"],
)
def test_a_path_that_cannot_be_meant_is_refused(
    tmp_path: Path, note: Path, paths: Callable[[Path], Any], named: str
) -> None:
    """An unknown path, an unknown type, a folder with nothing to read and no path at all raise, naming it."""
    (tmp_path / "table.ods").write_text("a,b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInputError, match=named):
        index(paths(tmp_path))


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-5, 0), (100, 100), (100, 101), (100, -1), (1, 1)])
def test_chunk_sizes_must_fit_together(note: Path, size: int, overlap: int) -> None:
    """A size below 1, a negative overlap or one as large as the chunk is refused with both numbers."""
    with pytest.raises(InvalidInputError, match=f"chunk_size={size} and chunk_overlap={overlap}"):
        index(note, chunk_size=size, chunk_overlap=overlap)


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (50, 0), (50, 49), (200, 20)])
def test_chunks_keep_to_their_size_and_lose_no_word(size: int, overlap: int) -> None:
    """No chunk is longer than asked, each stands in the document where it says, and all words are there."""
    document = Document(" ".join(f"word{number}" for number in range(120)), metadata={"source": "x"})
    chunks = split_documents([document], chunk_size=size, chunk_overlap=overlap)
    assert max(len(chunk.page_content) for chunk in chunks) <= size
    for chunk in chunks:
        start = chunk.metadata["start_index"]
        assert document.page_content[start : start + len(chunk.page_content)] == chunk.page_content
    covered = {chunk.metadata["start_index"] + i for chunk in chunks for i in range(len(chunk.page_content))}
    assert {i for i, letter in enumerate(document.page_content) if letter != " "} <= covered


def test_a_store_and_a_folder_exclude_each_other(tmp_path: Path, note: Path) -> None:
    """Two places to store in are refused instead of one being ignored."""
    with pytest.raises(InvalidInputError, match="vector_store and persist_directory"):
        index(note, vector_store=InMemoryVectorStore(EMBEDDINGS), persist_directory=tmp_path / "kept")


@pytest.mark.parametrize("show", [False, True])
def test_progress_is_shown_on_standard_error(note: Path, show: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar is written to standard error, or nowhere when it is not wanted."""
    index(note, show_progress=show)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Indexing" in captured.err) is show


def without(missing: Iterable[str]) -> Callable[[str], Any]:
    """Make a `find_spec` that does not find these modules."""
    gone = set(missing)
    return lambda name: None if name in gone else find_spec(name)


@pytest.mark.parametrize(
    ("call", "module"),
    [
        (index, "langchain_chroma"),
        (index, "langchain_text_splitters"),
        (index, "sentencex"),
        (lambda _: split_documents([Document("a")]), "langchain_text_splitters"),
        (lambda _: split_documents([Document("a")]), "sentencex"),
        (lambda _: load_documents(PDF), "pypdfium2"),
        (lambda _: load_documents(PDF, pdf_reader="pypdf"), "pypdf"),
        (lambda _: load_documents(PDF, pdf_reader="pypdf"), "langchain_community"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(
    note: Path, monkeypatch: pytest.MonkeyPatch, module: str, call: Callable[[Path], Any]
) -> None:
    """Where a part of the rag extra is not installed, the error names the module and what to run."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", without([module]))
    with pytest.raises(MissingExtraError) as caught:
        call(note)
    assert caught.value.extra == "rag"
    assert str(caught.value).startswith(module)
    assert 'pip install "langchain-crossrerank[rag]"' in str(caught.value)


def test_text_is_read_without_any_extra(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a text file needs nothing but the package."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda name: None)
    assert [document.page_content for document in load_documents(note)] == ["The ferry leaves at nine."]


def test_embeddings_that_cannot_be_fetched_name_the_offline_ones() -> None:
    """Without network an unknown hub name raises, and the error says what works offline."""
    with pytest.raises(ModelNotFoundError) as caught:
        load_embeddings("crossrerank-tests/no-such-embeddings")
    message = str(caught.value)
    assert "'crossrerank-tests/no-such-embeddings'" in message
    assert f'"{OFFLINE_EMBEDDINGS}"' in message
    assert "--offline" in message


def test_a_folder_without_a_model_is_no_embeddings(tmp_path: Path) -> None:
    """An empty folder raises an error of this package, naming it."""
    with pytest.raises(CrossRerankError, match=str(tmp_path)):
        load_embeddings(str(tmp_path))


@pytest.mark.slow
def test_the_offline_embeddings_find_by_meaning(tmp_path: Path) -> None:
    """The bundled bi-encoder puts the passage that means the same first."""
    for name, text in [("a.txt", "The vessel departs at nine o'clock."), ("b.txt", "Bread is made of flour.")]:
        (tmp_path / name).write_text(text)
    report = index(tmp_path, embeddings=load_embeddings(OFFLINE_EMBEDDINGS))
    (best,) = report.vector_store.similarity_search("When does the ship leave?", k=1)
    assert Path(best.metadata["source"]).name == "a.txt"


def test_a_name_that_is_not_utf_8_can_be_searched(tmp_path: Path) -> None:
    """The chunk's source is text that every store takes."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.txt"))
    odd.write_text("It is late.")
    (chunk,) = stored(index(tmp_path, persist_directory=tmp_path / "kept").vector_store)
    assert chunk.metadata["source"].endswith(r"odd\xff.txt")
