"""Compares one query's documents before and after reranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from langchain_crossrerank.candidates import make_candidates
from langchain_crossrerank.checks import check_query
from langchain_crossrerank.evaluation.query_runs import find_reranker
from langchain_crossrerank.evaluation.results import Comparison, RankedDocument
from langchain_crossrerank.evaluation.timing import Stopwatch
from langchain_crossrerank.extractive import best_statements
from langchain_crossrerank.extras import missing_modules
from langchain_crossrerank.metadata import INITIAL_RANK
from langchain_crossrerank.retrievers import fetch_candidates

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.reranker import CrossEncoderReranker


def compare(retriever: ContextualCompressionRetriever, query: str, *, find_answers: bool = True) -> Comparison:
    """Run a reranking retriever on one query and show what the reranker changed.

    The model is loaded before the clock starts.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`, for example from
            `create_rerank_retriever`.
        query: The search text.
        find_answers: Whether to find the sentence of each kept document that answers best, after the clock has
            stopped. The model scores these sentences, too. It needs sentencex, from the `rag` extra; without it none
            are found.

    Returns:
        Both lists with scores, moves and milliseconds; `print` shows them.

    Raises:
        InvalidInputError: If the retriever has no reranker, or the query is blank.
    """
    check_query(query)
    reranker = find_reranker(retriever)
    model = reranker.cross_encoder
    noted = _NotedReport()
    stopwatch = Stopwatch()
    candidates = fetch_candidates(retriever, query)
    retrieve_ms = stopwatch.lap_ms()
    reranked = reranker.compress_documents(candidates, query, callbacks=[noted])
    rerank_ms = stopwatch.lap_ms()
    ranks = {document.metadata[INITIAL_RANK]: rank for rank, document in enumerate(reranked, start=1)}
    scores = _distinct_scores(reranker, query, candidates, noted.data.get("scores", ()))
    uncut_ranks = {place: rank for rank, place in enumerate(noted.data.get("order", ()), start=1)}
    answers: Mapping[int, tuple[int, int]] = {}
    if find_answers and uncut_ranks and not missing_modules("rag", ("sentencex",)):
        statements = best_statements(model, query, [candidates[place - 1] for place in ranks])
        answers = {
            place: (found.start, found.end) for place, found in zip(ranks, statements, strict=True) if found is not None
        }
    return Comparison(
        query=query,
        documents=[
            RankedDocument(
                document.page_content,
                dict(document.metadata),
                place,
                ranks.get(place),
                score,
                answers.get(place),
                uncut_ranks.get(place),
            )
            for place, (document, score) in enumerate(zip(candidates, scores, strict=True), start=1)
        ],
        model=model.name,
        retrieve_ms=retrieve_ms,
        rerank_ms=rerank_ms,
        top_n=reranker.top_n,
        score_threshold=reranker.score_threshold,
        min_documents=reranker.min_documents,
        rerank_error=noted.data.get("reason"),
    )


class _NotedReport(BaseCallbackHandler):
    """Notes what the reranker reports: scores and order of all candidates, or the reason why it failed."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:  # noqa: ARG002 - LangChain's signature
        if name in ("rerank_scores", "rerank_degraded"):
            self.data = data


def _distinct_scores(
    reranker: CrossEncoderReranker, query: str, documents: Sequence[Document], scores: Sequence[float]
) -> list[float | None]:
    """Each candidate's score; `None` for those that repeat an earlier one, and for all if the model failed."""
    if not scores:
        return [None] * len(documents)
    distinct = make_candidates(
        query, documents, template=reranker.passage_template, drop_duplicates=reranker.drop_duplicates
    ).distinct
    return [score if position in {*distinct} else None for position, score in enumerate(scores)]
