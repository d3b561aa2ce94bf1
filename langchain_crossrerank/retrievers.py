"""Puts a first stage and a reranker together as one LangChain retriever."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import INITIAL_SCORE, RELEVANCE_SCORE
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

DEFAULT_TOP_N = 5
"""Documents that are kept where nobody says how many."""

DEFAULT_K = 20
"""Candidates that the first stage fetches where nobody says how many."""


def create_rerank_retriever(
    base: VectorStore | RetrieverLike,
    *,
    model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL,
    k: int | None = None,
    top_n: int | None = DEFAULT_TOP_N,
    reranker: CrossEncoderReranker | None = None,
    **reranker_kwargs: Any,
) -> ContextualCompressionRetriever:
    """Make a retriever that fetches `k` candidates from `base` and keeps the `top_n` best by a cross-encoder.

    The result is LangChain's own `ContextualCompressionRetriever`. Arguments given when it is invoked reach the
    first stage: `retriever.invoke(query, k=50)` fetches 50 candidates for that call where `base` takes `k`.

    Args:
        base: A vector store, a retriever, or any Runnable from a query string to documents.
        model: A LangChain cross-encoder, `"bundled"`, a folder, or a hub name (loaded at the first query).
        k: Candidates to fetch. `None` keeps what `base` was told, and is 20 where it was told nothing. A retriever
            whose number of candidates cannot be set from outside, such as an ensemble, takes only `None`.
        top_n: Documents to keep; `None` keeps all.
        reranker: A reranker to use as it is, instead of `model`, `top_n` and the further arguments.
        **reranker_kwargs: Further fields of `CrossEncoderReranker`, for example `score_threshold`.

    Returns:
        A retriever whose documents carry `relevance_score` and `initial_rank` in their metadata.

    Raises:
        InvalidInputError: If `base` is none of these, or `k` is not a positive number or cannot be set on it.
    """
    from langchain_classic.retrievers import ContextualCompressionRetriever

    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise InvalidInputError(f"k is {k!r}; pass the number of candidates to fetch, at least 1.")
    if reranker is None:
        reranker = CrossEncoderReranker(model=model, top_n=top_n, **reranker_kwargs)
    else:
        usual = (model is DEFAULT_MODEL or model == DEFAULT_MODEL, top_n == DEFAULT_TOP_N)
        others = [name for name, is_usual in zip(("model", "top_n"), usual, strict=True) if not is_usual]
        if others or reranker_kwargs:
            raise InvalidInputError(
                f"both reranker= and {', '.join([*others, *sorted(reranker_kwargs)])} were given; "
                "set them on the reranker itself."
            )
    first_stage, fetched = _first_stage(base, k)
    if reranker.blend == "weighted" and isinstance(first_stage, VectorStoreRetriever):
        first_stage = _with_scores(first_stage, reranker.initial_score_key)
    if fetched is not None and reranker.top_n is not None and fetched <= reranker.top_n:
        warnings.warn(
            f"k={fetched} candidates for top_n={reranker.top_n}: reranking can change their order but not which "
            "documents are returned; fetch more candidates (k of 20 to 50 is usual).",
            UserWarning,
            stacklevel=2,
        )
    return ContextualCompressionRetriever(base_compressor=reranker, base_retriever=first_stage)


def retrieve_and_rerank(
    retriever: VectorStore | RetrieverLike, query: str, *, config: RunnableConfig | None = None, **kwargs: Any
) -> list[tuple[Document, float]]:
    """Fetch candidates and rerank them in one call.

    Args:
        retriever: A retriever made by `create_rerank_retriever`, or anything that function takes.
        query: The search text.
        config: LangChain run configuration.
        **kwargs: Arguments of `create_rerank_retriever`, where `retriever` does not rerank already.

    Returns:
        Documents with their scores, best first; NaN where the model failed and `on_error` is `"keep_order"`.

    Raises:
        InvalidInputError: If the query is blank, or arguments are given for a retriever that reranks already.
    """
    from langchain_classic.retrievers import ContextualCompressionRetriever

    check_query(query)
    if not isinstance(retriever, ContextualCompressionRetriever):
        retriever = create_rerank_retriever(retriever, **kwargs)
    elif kwargs:
        raise InvalidInputError(
            f"this retriever reranks already, so {', '.join(sorted(kwargs))} would have no effect; "
            "set them where it is created."
        )
    if not isinstance(retriever.base_compressor, CrossEncoderReranker):
        raise InvalidInputError(
            f"this retriever's compressor is {type(retriever.base_compressor).__name__}, which gives no scores; "
            "use CrossEncoderReranker."
        )
    documents = retriever.invoke(query, config)
    return [(document, _score_of(document)) for document in documents]


def _score_of(document: Document) -> float:
    score = document.metadata.get(RELEVANCE_SCORE)
    return math.nan if score is None else score


class ScoringVectorStoreRetriever(VectorStoreRetriever):
    """A vector store retriever that writes the store's similarity scores into metadata, for a weighted blend."""

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
        try:
            found = await self.vectorstore.asimilarity_search_with_score(query, **{**self.search_kwargs, **kwargs})
        except NotImplementedError:
            return await super()._aget_relevant_documents(query, run_manager=run_manager, **kwargs)
        return self._scored(found)

    def _scored(self, found: list[tuple[Document, float]]) -> list[Document]:
        return [
            document.model_copy(update={"metadata": {**document.metadata, self.initial_score_key: float(score)}})
            for document, score in found
        ]


def _with_scores(retriever: VectorStoreRetriever, initial_score_key: str) -> VectorStoreRetriever:
    if type(retriever) is not VectorStoreRetriever or retriever.search_type != "similarity":
        # Another search, or a store's own retriever, is left to do what it does; ranks stand in for scores.
        return retriever
    return ScoringVectorStoreRetriever(
        vectorstore=retriever.vectorstore,
        search_kwargs=retriever.search_kwargs,
        tags=retriever.tags,
        metadata=retriever.metadata,
        initial_score_key=initial_score_key,
    )


def _first_stage(base: object, k: int | None) -> tuple[RetrieverLike, int | None]:
    """Give the base as a retriever, and the number of candidates it will fetch where that is known."""
    if isinstance(base, VectorStore):
        k = DEFAULT_K if k is None else k
        return base.as_retriever(search_kwargs={"k": k}), k
    if isinstance(base, VectorStoreRetriever):
        told = base.search_kwargs.get("k")
        fetched = k if k is not None else (told if told is not None else DEFAULT_K)
        return base.model_copy(update={"search_kwargs": {**base.search_kwargs, "k": fetched}}), fetched
    if isinstance(base, BaseRetriever) and "k" in type(base).model_fields:
        told = getattr(base, "k") if "k" in base.model_fields_set else None  # noqa: B009 - a field of some subclasses
        fetched = k if k is not None else (told if told is not None else DEFAULT_K)
        return base.model_copy(update={"k": fetched}), fetched
    if k is not None:
        raise InvalidInputError(
            f"k={k} cannot be set on {type(base).__name__}; set the number of candidates on the retriever itself "
            "(on its parts, if it is an ensemble) and leave k out."
        )
    if isinstance(base, Runnable):
        return cast("RetrieverLike", base), None
    if callable(base):
        return RunnableLambda(base), None
    raise InvalidInputError(
        f"base is {shorten(base)} of type {type(base).__name__}; pass a vector store, a retriever, or a Runnable "
        "from a query to documents."
    )
