"""Chunks in a store: what has to be added and taken out, asked of the store itself."""

from __future__ import annotations

from uuid import UUID

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank.indexing.stores import chunk_id, compare_chunks, holds_chunks, remove_chunks


class MuteStore(InMemoryVectorStore):
    """A store that cannot be asked by id, and cannot delete."""

    def get_by_ids(self, ids: object, /) -> list[Document]:
        raise NotImplementedError

    def delete(self, ids: object = None, **kwargs: object) -> None:
        raise NotImplementedError


def chunks(*texts: str) -> list[Document]:
    return [
        Document(text, id=chunk_id("a.txt", place), metadata={"source": "a.txt"}) for place, text in enumerate(texts)
    ]


@pytest.fixture
def store() -> InMemoryVectorStore:
    """A store with three chunks of one file, put there by another process."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_documents(chunks("one", "two", "three"))
    return store


def test_an_id_is_a_uuid_made_from_file_and_place() -> None:
    """Qdrant and Weaviate take nothing else; the same chunk has the same id in every process."""
    assert str(UUID(chunk_id("a.txt", 0))) == chunk_id("a.txt", 0)
    assert len({chunk_id("a.txt", 0), chunk_id("a.txt", 1), chunk_id("b.txt", 0)}) == 3


@pytest.mark.parametrize("known", [None, 3])
def test_only_what_differs_is_added_and_taken_out(store: InMemoryVectorStore, known: int | None) -> None:
    """The store knows what it holds, also where no record says it."""
    changes = compare_chunks(store, "a.txt", chunks("one", "TWO"), known)
    assert [chunk.page_content for chunk in changes.add] == ["TWO"]
    assert changes.remove == [chunk_id("a.txt", 1), chunk_id("a.txt", 2)]
    assert changes.kept == 1


def test_other_metadata_is_a_change(store: InMemoryVectorStore) -> None:
    """The same text with another page is stored again."""
    changed = [chunks("one")[0].model_copy(update={"metadata": {"source": "a.txt", "page": 3}})]
    assert len(compare_chunks(store, "a.txt", changed, 3).add) == 1


def test_many_old_chunks_are_found(store: InMemoryVectorStore) -> None:
    """A file that was very long before leaves nothing behind."""
    store.add_documents(chunks(*(f"text {n}" for n in range(450))))
    assert len(compare_chunks(store, "a.txt", chunks("text 0"), None).remove) == 449


def test_a_store_that_cannot_be_asked_gets_everything() -> None:
    """What is not known is stored again, and what was recorded is to be taken out."""
    changes = compare_chunks(MuteStore(DeterministicFakeEmbedding(size=4)), "a.txt", chunks("one", "two"), 2)
    assert (len(changes.add), len(changes.remove), changes.kept) == (2, 2, 0)


def test_a_store_that_cannot_delete_says_so(store: InMemoryVectorStore) -> None:
    """The caller learns that old chunks stay."""
    assert remove_chunks(store, [chunk_id("a.txt", 0)]) is True
    assert remove_chunks(MuteStore(DeterministicFakeEmbedding(size=4)), ["x"]) is False
    assert remove_chunks(MuteStore(DeterministicFakeEmbedding(size=4)), []) is True


def test_an_emptied_store_is_noticed(store: InMemoryVectorStore) -> None:
    """A record of chunks that the store no longer holds is not believed."""
    assert holds_chunks(store, "a.txt", 3) is True
    store.delete([chunk_id("a.txt", 2)])
    assert holds_chunks(store, "a.txt", 3) is False


@pytest.mark.parametrize("count", [0, 1, 2])
def test_chunks_beyond_the_recorded_ones_are_noticed(store: InMemoryVectorStore, count: int) -> None:
    """A record of fewer chunks than the store holds is not believed, and the others are found."""
    assert holds_chunks(store, "a.txt", count) is False
    changes = compare_chunks(store, "a.txt", chunks("one"), count)
    assert (changes.add, changes.remove) == ([], [chunk_id("a.txt", 1), chunk_id("a.txt", 2)])
