"""A vector store retriever that keeps the store's scores, for a weighted blend."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.runnables import Runnable
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_crossrerank.metadata import INITIAL_SCORE


class ScoringVectorStoreRetriever(VectorStoreRetriever):
    """A vector store retriever that writes the store's similarity scores into metadata.

    A store that cannot return scores is searched without them.
    """

    initial_score_key: str = INITIAL_SCORE
    """Metadata key for the score."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        try:
            found = self.vectorstore.similarity_search_with_score(query, **{**self.search_kwargs, **kwargs})
        except NotImplementedError:
            return super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)
        return self._scored(found)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # LangChain's default calls the synchronous method, which a store made for asyncio refuses with an error of
        # its own choice; a store that overrides the method means it.
        refused: type[Exception] = Exception if _only_searches_asynchronously(self.vectorstore) else NotImplementedError
        try:
            found = await self.vectorstore.asimilarity_search_with_score(query, **{**self.search_kwargs, **kwargs})
        except refused:
            return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
        return self._scored(found)

    def _scored(self, found: list[tuple[Document, float]]) -> list[Document]:
        return [
            document.model_copy(update={"metadata": {**document.metadata, self.initial_score_key: float(score)}})
            for document, score in found
        ]


def with_scores(stage: Runnable[Any, Any], initial_score_key: str) -> Runnable[Any, Any]:
    """Return a first stage that writes scores into metadata if it can, and otherwise the stage unchanged."""
    if type(stage) is not VectorStoreRetriever or stage.search_type != "similarity":
        # Another search, or a store's own retriever, does what it does; ranks stand in for scores.
        return stage
    return ScoringVectorStoreRetriever(**dict(stage), initial_score_key=initial_score_key)


def _only_searches_asynchronously(store: VectorStore) -> bool:
    kind = type(store)
    has_own_search = kind.asimilarity_search is not VectorStore.asimilarity_search
    return has_own_search and kind.asimilarity_search_with_score is VectorStore.asimilarity_search_with_score
