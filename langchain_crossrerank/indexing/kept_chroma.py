"""A kept Chroma collection that answers from the files that were named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_chroma import Chroma
from langchain_core.documents import Document


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
