"""A kept Chroma collection that answers from the files that were named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chromadb.api.shared_system_client import SharedSystemClient
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langchain_crossrerank.errors import IndexingError

_opened: dict[str, tuple[int, int] | None] = {}
"""The database file, as device and inode, that this process opened in each folder."""


def open_kept_chroma(folder: Path, embeddings: Embeddings) -> KeptChroma:
    """Open the collection in a folder, which is made if needed.

    Chroma shares one open database between all collections of a process with the same folder *name*. A relative name
    means another folder after a change of directory, and a folder that was deleted and made again holds another
    database: in both cases chunks would go to the old one, without an error.

    Raises:
        IndexingError: If the database cannot be made or opened.
    """
    name = str(folder.absolute())
    database = Path(name) / "chroma.sqlite3"
    found = _identify(database)
    if found is None or found != _opened.get(name, found):
        for shared in ("_identifier_to_system", "_identifier_to_refcount"):
            getattr(SharedSystemClient, shared, {}).pop(name, None)
    try:
        store = KeptChroma(
            collection_name="crossrerank",
            embedding_function=embeddings,
            persist_directory=name,
            collection_metadata={"hnsw:space": "cosine"},
        )
    except Exception as err:
        # Chroma's errors for a full disk, a damaged database and missing permissions have no common class.
        raise IndexingError(
            f"the index in {name!r} cannot be opened ({type(err).__name__}: {err}); free some space, or delete the "
            "folder to index again.",
            path=name,
        ) from err
    _opened[name] = _identify(database)
    return store


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class KeptChroma(Chroma):
    """A Chroma collection of which only some files are searched.

    Attributes:
        sources: The files that are searched, as their chunks' `source` names them; `None` for all.
    """

    sources: Sequence[str] | None = None

    def get(self, ids: Any = None, where: Any = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return chunks of the files that are searched, as Chroma does; chunks named by id from any file."""
        return super().get(ids, self._narrow(where) if ids is None else where, *args, **kwargs)

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Any = None, *args: Any, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search as Chroma does, in the files that are searched."""
        return super().similarity_search_with_score(query, k, self._narrow(filter), *args, **kwargs)

    def similarity_search_with_vectors(
        self, query: str, k: int = 4, filter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Search as Chroma does, in the files that are searched."""
        return super().similarity_search_with_vectors(query, k, self._narrow(filter), *args, **kwargs)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Any = None, *args: Any, **kwargs: Any
    ) -> list[Document]:
        """Search as Chroma does, in the files that are searched."""
        return super().similarity_search_by_vector(embedding, k, self._narrow(filter), *args, **kwargs)

    def similarity_search_by_vector_with_relevance_scores(
        self, embedding: list[float], k: int = 4, filter: Any = None, *args: Any, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search as Chroma does, in the files that are searched."""
        return super().similarity_search_by_vector_with_relevance_scores(
            embedding, k, self._narrow(filter), *args, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> list[Document]:
        """Search as Chroma does, in the files that are searched."""
        return super().max_marginal_relevance_search_by_vector(
            embedding, k, fetch_k, lambda_mult, self._narrow(filter), *args, **kwargs
        )

    def _narrow(self, where: Any) -> Any:
        if self.sources is None:
            return where
        named = {"source": {"$in": list(self.sources)}}
        return {"$and": [where, named]} if where else named
