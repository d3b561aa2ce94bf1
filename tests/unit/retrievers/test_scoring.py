"""The first stage's scores for a weighted blend, from stores of every kind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.metadata import INITIAL_SCORE
from langchain_crossrerank.testing import FakeCrossEncoder


class AsynchronousStore(VectorStore):
    """A store made for asyncio, which refuses to be called otherwise."""

    refusal: Exception = NotImplementedError("use async")

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Refuse."""
        raise self.refusal

    def similarity_search_with_score(self, *args: Any, **kwargs: Any) -> list[tuple[Document, float]]:
        """Refuse."""
        raise self.refusal

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search."""
        return [Document(f"passage {number}") for number in range(k)]

    @classmethod
    def from_texts(cls, *args: Any, **kwargs: Any) -> AsynchronousStore:
        """Make a store."""
        return cls()


class ScoringStore(AsynchronousStore):
    """A store made for asyncio that returns scores."""

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Search."""
        return [(document, 1.0) for document in await self.asimilarity_search(query, k)]


class BrokenStore(ScoringStore):
    """A store whose search with scores fails."""

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Fail."""
        raise ConnectionError("no route")


@pytest.mark.parametrize(
    "refusal",
    [NotImplementedError("use async"), AssertionError("not with async_mode"), Exception("sync is not allowed")],
    ids=lambda err: type(err).__name__,
)
@pytest.mark.parametrize("blend", [None, "weighted", "rrf"])
def test_a_store_for_asyncio_alone_is_searched(blend: Any, refusal: Exception) -> None:
    """However its synchronous side refuses, `ainvoke` never needs it; without scores, ranks stand in."""
    store = AsynchronousStore()
    store.refusal = refusal
    retriever = create_rerank_retriever(store, model=FakeCrossEncoder(), top_n=3, blend=blend)
    found = asyncio.run(retriever.ainvoke("passage 3"))
    assert len(found) == 3
    assert all(INITIAL_SCORE not in document.metadata for document in found)


def test_scores_of_an_asynchronous_search_are_kept() -> None:
    """A store that can return scores does."""
    retriever = create_rerank_retriever(ScoringStore(), model=FakeCrossEncoder(), blend="weighted")
    assert all(document.metadata[INITIAL_SCORE] == 1.0 for document in asyncio.run(retriever.ainvoke("passage")))


def test_a_search_that_fails_is_not_hidden() -> None:
    """An error of a store that has a search with scores reaches the caller."""
    retriever = create_rerank_retriever(BrokenStore(), model=FakeCrossEncoder(), blend="weighted")
    with pytest.raises(ConnectionError, match="no route"):
        asyncio.run(retriever.ainvoke("passage"))


def test_a_blend_may_be_chosen_for_one_call() -> None:
    """`blend="weighted"` at call time asks the store for scores in that call."""
    retriever = create_rerank_retriever(ScoringStore(), model=FakeCrossEncoder())
    blended = asyncio.run(retriever.ainvoke("passage", blend="weighted"))
    assert all(INITIAL_SCORE in document.metadata for document in blended)
    assert all(INITIAL_SCORE not in document.metadata for document in asyncio.run(retriever.ainvoke("passage")))
