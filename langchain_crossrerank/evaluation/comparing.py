"""Compares one query's documents before and after reranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.documents import Document

from langchain_crossrerank.checks import check_query
from langchain_crossrerank.evaluation.query_runs import find_reranker
from langchain_crossrerank.evaluation.results import Comparison, RankedDocument
from langchain_crossrerank.evaluation.timing import Stopwatch
from langchain_crossrerank.metadata import INITIAL_RANK, RELEVANCE_SCORE
from langchain_crossrerank.retrievers import fetch_candidates

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever


def compare(retriever: ContextualCompressionRetriever, query: str) -> Comparison:
    """Run a reranking retriever on one query and show what the reranker changed.

    The model is loaded before the clock starts.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`, for example from
            `create_rerank_retriever`.
        query: The search text.

    Returns:
        Both lists with scores, moves and milliseconds; `print` shows them.

    Raises:
        InvalidInputError: If the retriever has no reranker, or the query is blank.
    """
    check_query(query)
    reranker = find_reranker(retriever)
    model = reranker.cross_encoder
    stopwatch = Stopwatch()
    candidates = fetch_candidates(retriever, query)
    retrieve_ms = stopwatch.lap_ms()
    reranked = reranker.compress_documents(candidates, query)
    rerank_ms = stopwatch.lap_ms()
    places = {document.metadata[INITIAL_RANK]: (rank, document) for rank, document in enumerate(reranked, start=1)}
    return Comparison(
        query=query,
        documents=[_place(document, i, places) for i, document in enumerate(candidates, start=1)],
        model=model.name,
        retrieve_ms=retrieve_ms,
        rerank_ms=rerank_ms,
    )


def _place(document: Document, initial_rank: int, places: dict[int, tuple[int, Document]]) -> RankedDocument:
    rank, kept = places.get(initial_rank, (None, None))
    score = kept.metadata.get(RELEVANCE_SCORE) if kept is not None else None
    return RankedDocument(document.page_content, dict(document.metadata), initial_rank, rank, score)
