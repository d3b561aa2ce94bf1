"""Tests of Chroma collections kept in folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

pytest.importorskip("langchain_chroma", reason="needs the rag extra")

from langchain_chroma import Chroma

from langchain_crossrerank.indexing import index_files

EMBEDDINGS = DeterministicFakeEmbedding(size=8)


def keep(text: str, folder: str | Path) -> None:
    """Write a text into a file of the working directory, and index it into a folder."""
    Path("note.txt").write_text(text)
    index_files("note.txt", embeddings=EMBEDDINGS, persist_directory=folder)


def kept_texts(folder: Path) -> list[str]:
    """What a copy of the folder holds, so that nothing an earlier client has open answers."""
    copy = folder.parent / f"copy of {folder.name}"
    shutil.copytree(folder, copy)
    documents: list[str] = Chroma("crossrerank", persist_directory=str(copy)).get()["documents"]
    return documents


def test_a_relative_folder_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same relative name in two working directories means two collections."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        keep(f"The {name} ferry leaves at nine.", "kept")
    assert kept_texts(tmp_path / "second" / "kept") == ["The second ferry leaves at nine."]


def test_a_deleted_folder_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting a folder and indexing into it again, in the same process, stores the chunks on disk."""
    monkeypatch.chdir(tmp_path)
    keep("The ferry leaves at nine.", tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept")
    keep("The ferry leaves at ten.", tmp_path / "kept")
    assert kept_texts(tmp_path / "kept") == ["The ferry leaves at ten."]


def test_a_folder_replaced_by_another_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was replaced by a copy of another index answers from that one."""
    monkeypatch.chdir(tmp_path)
    keep("The ferry leaves at nine.", tmp_path / "kept")
    keep("The ferry leaves at ten.", tmp_path / "other")
    shutil.rmtree(tmp_path / "kept")
    shutil.copytree(tmp_path / "other", tmp_path / "kept")
    report = index_files("note.txt", embeddings=EMBEDDINGS, persist_directory=tmp_path / "kept", all_files=True)
    texts = [document.page_content for document in report.vector_store.similarity_search("ferry", k=10)]
    assert texts == ["The ferry leaves at ten."]
