"""From files to a vector store: what is read, what is refused, and that the same file twice adds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, FakeEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

from pypdf import PdfReader, PdfWriter

from langchain_crossrerank import CrossRerankError, index_files, load_embeddings
from langchain_crossrerank.embeddings import OFFLINE_EMBEDDINGS
from langchain_crossrerank.errors import IndexingError, InvalidInputError, MissingExtraError, ModelNotFoundError
from langchain_crossrerank.indexing import IndexReport, find_files, load_documents, split_documents
from langchain_crossrerank.indexing.stores import chunk_ids

PDF = Path(__file__).parents[2] / "notebooks" / "data" / "llm_fundamentals.pdf"
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


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """A small text file."""
    path = tmp_path / "note.txt"
    path.write_text("The ferry leaves at nine.")
    return path


@pytest.fixture(params=["chroma", "in-memory store", "folder"])
def index_again(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    """Index into the same place with every call: an unnamed collection, a store of the caller's, a kept folder."""
    place: dict[str, Any] = {}
    if request.param == "in-memory store":
        place["vector_store"] = InMemoryVectorStore(EMBEDDINGS)
    if request.param == "folder":
        place["persist_directory"] = tmp_path / "kept"

    def call(paths: Any, **kwargs: Any) -> IndexReport:
        report = index(paths, **place, **kwargs)
        if request.param == "chroma":
            place["vector_store"] = report.vector_store
        return report

    return call


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


def test_a_kept_folder_is_known_to_the_next_process(tmp_path: Path, note: Path) -> None:
    """What one process indexed into a folder, another finds there and does not add again."""
    note.write_text(long_text(3))
    script = (
        "import sys\n"
        "from langchain_core.embeddings import DeterministicFakeEmbedding\n"
        "from langchain_crossrerank import index_files\n"
        "report = index_files(sys.argv[1], embeddings=DeterministicFakeEmbedding(size=16),\n"
        "                     persist_directory=sys.argv[2], show_progress=False)\n"
        "print(report.added, report.skipped, report.deleted)\n"
    )
    command = [sys.executable, "-c", script, str(note), str(tmp_path / "kept")]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=note.parent)
    assert child.stdout.split() == ["3", "0", "0"], child.stderr
    report = index(note, persist_directory=tmp_path / "kept")
    assert counts(report) == (0, 3, 0)
    assert len(stored(report.vector_store)) == 3


def test_two_indexes_in_memory_do_not_share_chunks(note: Path) -> None:
    """Each call without a store or a folder makes a collection of its own."""
    other = note.with_name("other.txt")
    other.write_text("Another file.")
    first, second = index(note), index(other)
    third = index(note)
    assert sources(first.vector_store) == {"note.txt"}
    assert sources(second.vector_store) == {"other.txt"}
    assert counts(third) == (1, 0, 0)


@pytest.mark.parametrize("index_first", [False, True])
def test_an_index_lives_beside_the_callers_own_chroma(note: Path, index_first: bool) -> None:
    """A process may have a Chroma collection of its own, made before or after, in memory too."""
    script = (
        "import sys\n"
        "from langchain_chroma import Chroma\n"
        "from langchain_core.embeddings import DeterministicFakeEmbedding\n"
        "from langchain_crossrerank import index_files\n"
        "embeddings = DeterministicFakeEmbedding(size=16)\n"
        "steps = [lambda: Chroma(embedding_function=embeddings),\n"
        "         lambda: index_files(sys.argv[1], embeddings=embeddings, show_progress=False)]\n"
        "print([type(step()).__name__ for step in (steps[::-1] if sys.argv[2] == 'True' else steps)])\n"
    )
    command = [sys.executable, "-c", script, str(note), str(index_first)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=note.parent)
    expected = ["IndexReport", "Chroma"] if index_first else ["Chroma", "IndexReport"]
    assert child.stdout.strip() == str(expected), child.stderr


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


def test_a_kept_index_remembers_its_embeddings(tmp_path: Path) -> None:
    """Other embeddings than those that made an index are refused, by name, before anything is mixed."""
    note = tmp_path / "note.txt"
    note.write_text("The ferry leaves at nine.")
    arguments: dict[str, Any] = {"persist_directory": tmp_path / "kept", "show_progress": False}
    assert index_files(note, embeddings=DeterministicFakeEmbedding(size=8), **arguments).added == 1
    assert index_files(note, embeddings=DeterministicFakeEmbedding(size=8), **arguments).skipped == 1
    with pytest.raises(InvalidInputError, match="'DeterministicFakeEmbedding'"):
        index_files(note, embeddings=FakeEmbeddings(size=8), **arguments)


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


def test_a_kept_index_answers_from_the_named_files(tmp_path: Path, note: Path) -> None:
    """Files of earlier calls answer only with `all_files`, and the report says which files answer."""
    other = note.with_name("other.txt")
    other.write_text("The garden is open until the evening.")
    place: dict[str, Any] = {"persist_directory": tmp_path / "kept"}
    index([note, other], **place)
    named = index(other, **place)
    assert sources(named.vector_store) == {"other.txt"}
    assert named.sources == [str(other)]
    everything = index(other, all_files=True, **place)
    assert sources(everything.vector_store) == {"note.txt", "other.txt"}
    assert everything.sources == [str(note), str(other)]


def test_every_way_of_searching_a_kept_index_keeps_to_the_named_files(tmp_path: Path, note: Path) -> None:
    """Plain search, scores, diversity, vectors and `get` see the same files, with a filter of the caller's too."""
    other = note.with_name("other.txt")
    other.write_text("The garden is open until the evening.")
    index([note, other], persist_directory=tmp_path / "kept")
    store: Any = index(other, persist_directory=tmp_path / "kept").vector_store
    vector = EMBEDDINGS.embed_query("ferry")
    found = [
        store.similarity_search("ferry", k=9),
        store.similarity_search("ferry", k=9, filter={"start_index": 0}),
        [document for document, _ in store.similarity_search_with_score("ferry", k=9)],
        [document for document, _ in store.similarity_search_with_relevance_scores("ferry", k=9)],
        [document for document, _ in store.similarity_search_with_vectors("ferry", k=9)],
        [document for document, _ in store.similarity_search_by_vector_with_relevance_scores(vector, k=9)],
        store.similarity_search_by_vector(vector, k=9),
        store.max_marginal_relevance_search("ferry", k=9),
        store.as_retriever(search_type="mmr").invoke("ferry"),
    ]
    assert [{Path(document.metadata["source"]).name for document in documents} for documents in found] == [
        {"other.txt"}
    ] * len(found)
    assert len(store.get()["ids"]) == 1


def test_a_kept_index_without_its_collection_is_filled_again(tmp_path: Path, note: Path) -> None:
    """Records of chunks that are no longer there are not believed."""
    kept = tmp_path / "kept"
    index(note, persist_directory=kept).vector_store.delete_collection()  # type: ignore[attr-defined]
    report = index(note, persist_directory=kept)
    assert (report.added, len(stored(report.vector_store))) == (1, 1)


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


def drawn_page() -> Any:
    """A page that shows a line and no text."""
    from pypdf import PageObject
    from pypdf.generic import DecodedStreamObject, NameObject

    page = PageObject.create_blank_page(width=200, height=200)
    content = DecodedStreamObject()
    content.set_data(b"0 0 m 100 100 l S")
    page[NameObject("/Contents")] = content
    return page


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


def test_a_name_that_is_not_utf_8_can_be_searched(tmp_path: Path) -> None:
    """The chunk's source is text that every store takes."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.txt"))
    odd.write_text("It is late.")
    (chunk,) = stored(index(tmp_path, persist_directory=tmp_path / "kept").vector_store)
    assert chunk.metadata["source"].endswith(r"odd\xff.txt")


@pytest.mark.parametrize("name", ["what?", "100% done", "q?a=1&b"])
def test_a_kept_index_may_have_any_name(tmp_path: Path, note: Path, name: str) -> None:
    """Two folders whose names agree up to a question mark share nothing."""
    assert index(note, persist_directory=tmp_path / name).added == 1
    assert index(note, persist_directory=tmp_path / f"{name}2").added == 1
    assert index(note, persist_directory=tmp_path / name).skipped == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense"])
def test_a_damaged_note_of_the_embeddings_is_an_error(tmp_path: Path, note: Path, content: str) -> None:
    """A kept index that does not say what made it is not searched."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "embeddings.json").write_text(content)
    with pytest.raises(InvalidInputError, match="delete the folder to index again"):
        index(note, persist_directory=tmp_path / "kept")


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


def test_one_process_at_a_time_indexes_into_a_folder(tmp_path: Path, note: Path) -> None:
    """Another one says that it waits, and then finds what the first has stored."""
    place: dict[str, Any] = {"persist_directory": tmp_path / "kept"}
    index(note, **place)
    script = (
        "import logging, sys\n"
        "from langchain_core.embeddings import DeterministicFakeEmbedding\n"
        "from langchain_crossrerank import index_files\n"
        "logging.basicConfig(stream=sys.stdout, force=True)\n"
        "report = index_files(sys.argv[1], embeddings=DeterministicFakeEmbedding(size=16),\n"
        "                     persist_directory=sys.argv[2], show_progress=False)\n"
        "print(report.added, report.skipped, report.deleted, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(note), str(tmp_path / "kept")]
    lock = FileLock(tmp_path / "kept" / "index.lock")
    lock.acquire()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=note.parent) as child:
        try:
            said = list(takewhile(lambda line: "waiting for another process" not in line, child.stdout or ()))
            assert child.poll() is None, said
        finally:
            lock.release()
        assert child.communicate(timeout=120)[0].split()[-3:] == ["0", "1", "0"]


def test_chunks_beyond_the_recorded_ones_are_taken_out(index_again: Index, note: Path) -> None:
    """What somebody else stored of a longer version does not answer for ever."""
    store = index_again(note).vector_store
    ids = chunk_ids(str(note), 130)[1:]
    store.add_documents([Document("old", metadata={"source": str(note)}) for _ in ids], ids=ids)
    assert counts(index_again(note)) == (0, 1, len(ids))
    assert [chunk.page_content for chunk in stored(store)] == ["The ferry leaves at nine."]
