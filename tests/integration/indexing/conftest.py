"""A file to index, and places to index it into again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank.indexing import IndexReport
from tests.integration.indexing.small_indexes import EMBEDDINGS, Index, index

pytest.importorskip("langchain_chroma", reason="needs the rag extra")


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
