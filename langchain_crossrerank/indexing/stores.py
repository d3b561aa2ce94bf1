"""Puts a file's chunks into any LangChain vector store, and takes out the ones that it no longer has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

_NAMESPACE = UUID("6f1b0d6e-6d55-5b6c-9c1e-2f8f5a0a7b11")
_PROBE = 100
"""How many ids are looked up at once beyond the chunks that a file is known to have in the store."""
_LOOK_UP = 500


@dataclass
class Changes:
    """What has to be done so that a store holds a file's chunks.

    Attributes:
        add: Chunks that are new or differ from what the store holds.
        remove: Ids of chunks that are to be taken out, replaced ones first.
        kept: How many chunks are in the store already.
    """

    add: list[Document]
    remove: list[str]
    kept: int


def chunk_id(source: str, place: int) -> str:
    """Return the id of a file's chunk: a UUID, as Qdrant and Weaviate demand, made from the file's path and its place.

    The store itself can so be asked for what it holds of a file, whoever filled it.
    """
    return str(uuid5(_NAMESPACE, f"{source}\n{place}"))


def chunk_ids(source: str, count: int) -> list[str]:
    """Return the ids of a file's first chunks."""
    return [chunk_id(source, place) for place in range(count)]


def holds_chunks(store: VectorStore, source: str, count: int) -> bool:
    """Return whether a store holds a file's first and last chunk and none after it, or cannot be asked."""
    ends = list(dict.fromkeys([chunk_id(source, 0), chunk_id(source, count - 1)])) if count else []
    found = stored_chunks(store, ends)
    return found is None or (len(found) == len(ends) and not stored_chunks(store, [chunk_id(source, count)]))


def stored_chunks(store: VectorStore, ids: Sequence[str]) -> dict[str, Document] | None:
    """Return the chunks with these ids that a store holds, or `None` if it cannot be asked by id."""
    found: dict[str, Document] = {}
    for start in range(0, len(ids), _LOOK_UP):
        asked = list(ids[start : start + _LOOK_UP])
        try:
            documents = store.get_by_ids(asked)
        except NotImplementedError:
            return None
        if len(documents) == len(asked) and any(document.id is None for document in documents):
            documents = [
                document.model_copy(update={"id": id_}) for id_, document in zip(asked, documents, strict=True)
            ]
        found.update({str(document.id): document for document in documents if document.id is not None})
    return found


def compare_chunks(store: VectorStore, source: str, chunks: Sequence[Document], known: int | None) -> Changes:
    """Compare a file's chunks with what a store holds of it.

    Args:
        store: The store.
        source: The file.
        chunks: Its chunks, with their ids.
        known: How many chunks of it are in the store at least, or `None` if that is not known.
    """
    ids = chunk_ids(source, max(len(chunks), known or 0))
    stored = stored_chunks(store, ids)
    if stored is None:
        # Without the store's word every chunk counts as changed.
        return Changes(list(chunks), chunk_ids(source, known or 0), 0)
    while True:
        further = [chunk_id(source, place) for place in range(len(ids), len(ids) + _PROBE)]
        found = stored_chunks(store, further)
        if not found:
            break
        ids += further
        stored.update(found)
    add = [chunk for chunk in chunks if not _is_same(chunk, stored.get(str(chunk.id)))]
    replaced = [str(chunk.id) for chunk in add if str(chunk.id) in stored]
    beyond = [id_ for id_ in ids[len(chunks) :] if id_ in stored]
    return Changes(add, replaced + beyond, len(chunks) - len(add))


def remove_chunks(store: VectorStore, ids: Sequence[str]) -> bool:
    """Take chunks out of a store; return whether it can do that."""
    if not ids:
        return True
    try:
        store.delete(list(ids))
    except (NotImplementedError, AttributeError):
        return False
    return True


def _is_same(chunk: Document, stored: Document | None) -> bool:
    if stored is None or stored.page_content != chunk.page_content:
        return False
    return all(stored.metadata.get(key) == value for key, value in chunk.metadata.items())
