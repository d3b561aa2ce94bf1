"""A vector store over a collection whose vectors are kept on disk, so that a second evaluation embeds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from langchain_crossrerank._machine import cached_file
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.digests import digest_of
from langchain_crossrerank.evaluation.kept_vectors import KeptVectors, folder_name, pieces, text_key, unit_rows
from langchain_crossrerank.evaluation.progress import progress_bar

_PROBE = "a fixed text that tells embeddings apart"
_BATCH = 256
"""Texts that are embedded and kept at a time; a run that is stopped loses no more."""

_BLOCK = 8192
"""Vectors that are compared with a query at a time, so that memory does not grow with the collection."""


def kept_vector_store(
    documents: Sequence[Document],
    embeddings: Embeddings,
    *,
    name: str,
    folder: Path | None = None,
    show_progress: bool = True,
) -> KeptVectorStore:
    """Make a vector store of documents, embedding only texts that were never embedded under this name.

    Args:
        documents: The collection's documents.
        embeddings: What embeds documents and queries.
        name: Name of the embeddings, under which their vectors are kept.
        folder: Where vectors are kept; `None` is this package's cache folder (`CROSSRERANK_CACHE`).
        show_progress: Whether to show a progress bar on standard error while texts are embedded.

    Returns:
        A store that searches exactly, by cosine similarity.
    """
    root = cached_file("vectors") if folder is None else folder
    kept = KeptVectors(root / folder_name(name), name, embeddings.embed_query(_PROBE))
    texts = [document.page_content for document in documents]
    keys = [text_key(text) for text in texts]
    # Texts of similar length are padded little when they are embedded together.
    missing = sorted(kept.missing(keys), key=lambda place: -len(texts[place]))
    with progress_bar(len(missing), show_progress and bool(missing), "Embedding", unit="passage") as advance:
        for piece in pieces(len(missing), _BATCH):
            places = missing[piece]
            kept.append([keys[place] for place in places], embeddings.embed_documents([texts[p] for p in places]))
            advance(len(places))
    return KeptVectorStore(documents, embeddings, kept, [kept.rows[key] for key in keys], name)


class KeptVectorStore(VectorStore):
    """Exact search by cosine similarity over vectors on disk; made by `kept_vector_store`.

    Attributes:
        digest: A digest of the documents and the embeddings' name: all that decides what is found.
    """

    def __init__(
        self, documents: Sequence[Document], embeddings: Embeddings, kept: KeptVectors, rows: Sequence[int], name: str
    ) -> None:
        self._documents = list(documents)
        self._embeddings = embeddings
        self._vectors = kept.open()
        self._rows = np.asarray(rows, dtype=np.int64)
        contents = ([document.id, document.page_content, document.metadata] for document in documents)
        self.digest = digest_of([name, *contents])

    @property
    def embeddings(self) -> Embeddings:
        """What embeds queries."""
        return self._embeddings

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` nearest documents, nearest first."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """Return the `k` nearest documents with their cosine similarity, nearest first; ties in the documents' order.

        Raises:
            InvalidInputError: If there are other arguments, such as `filter`, which this store does not have.
        """
        if kwargs:
            raise InvalidInputError(f"a kept index has no {', '.join(sorted(kwargs))}; pass k alone.")
        vector = unit_rows([self._embeddings.embed_query(query)])[0]
        best = np.zeros(0, dtype=np.int64)
        scores = np.zeros(0, dtype=np.float32)
        for piece in pieces(len(self._rows), _BLOCK):
            found = self._vectors[self._rows[piece]] @ vector
            scores = np.concatenate([scores, found])
            best = np.concatenate([best, np.arange(piece.start, piece.stop)])
            order = np.argsort(-scores, kind="stable")[:k]
            best, scores = best[order], scores[order]
        return [
            (self._documents[place].model_copy(deep=True), float(score))
            for place, score in zip(best, scores, strict=True)
        ]

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings, metadatas: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> KeptVectorStore:
        """Make a store of texts; `name` and the other arguments of `kept_vector_store` are keyword arguments."""
        ids = kwargs.pop("ids", None) or [None] * len(texts)
        documents = [
            Document(text, id=key, metadata=metadata)
            for text, key, metadata in zip(texts, ids, metadatas or [{} for _ in texts], strict=True)
        ]
        return kept_vector_store(documents, embedding, **kwargs)
