"""Runs both stages for one query, and names the documents as judgements name them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.documents import BaseDocumentCompressor, Document

from langchain_crossrerank import retrievers
from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.timing import Stopwatch
from langchain_crossrerank.metadata import INITIAL_RANK, RERANKED
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever


@dataclass
class QueryRun:
    """Both stages' results for one query.

    Attributes:
        before: Document ids in the first stage's order.
        after: Document ids after reranking.
        retrieve_ms: Milliseconds of the first stage.
        rerank_ms: Milliseconds of the rerank.
        degraded: Whether the rerank failed and the first stage's order was kept.
    """

    before: list[str]
    after: list[str]
    retrieve_ms: float
    rerank_ms: float
    degraded: bool = False


def find_reranker(retriever: object) -> CrossEncoderReranker:
    """Find the reranker inside a retriever.

    Raises:
        InvalidInputError: If there is none.
    """
    reranker = retrievers.find_reranker(retriever)
    if reranker is None or isinstance(retriever, BaseDocumentCompressor):
        raise InvalidInputError(
            f"retriever is {shorten(retriever)}, which has no CrossEncoderReranker to compare with; "
            "pass a retriever from create_rerank_retriever."
        )
    return reranker


def run_query(
    retriever: ContextualCompressionRetriever, reranker: CrossEncoderReranker, query: str, id_key: str | None
) -> QueryRun:
    """Run both stages for one query and time them.

    Args:
        retriever: Where the first stage is taken from.
        reranker: The second stage.
        query: The search text.
        id_key: Metadata key of a document's id in the judgements; see `document_id`.
    """
    stopwatch = Stopwatch()
    candidates = retrievers.fetch_candidates(retriever, query)
    retrieve_ms = stopwatch.lap_ms()
    reranked = reranker.compress_documents(candidates, query) if candidates else []
    rerank_ms = stopwatch.lap_ms()
    ids = [document_id(document, id_key) for document in candidates]
    return QueryRun(
        before=unique(ids),
        after=unique([ids[document.metadata[INITIAL_RANK] - 1] for document in reranked]),
        retrieve_ms=retrieve_ms,
        rerank_ms=rerank_ms,
        degraded=any(document.metadata.get(RERANKED) is False for document in reranked),
    )


def document_id(document: Document, id_key: str | None) -> str:
    """Return the id by which judgements name a document.

    Args:
        document: A candidate.
        id_key: Metadata key of the id; `None` is `Document.id`, or metadata `_id`.

    Raises:
        InvalidInputError: If it has none.
    """
    value = document.metadata.get(id_key) if id_key is not None else document.id or document.metadata.get("_id")
    if value is None:
        raise InvalidInputError(
            f"a candidate has no id to match judgements with ({document.page_content[:60]!r}); set Document.id when "
            "indexing, or name the metadata key with id_key=."
        )
    return str(value)


def unique(ids: Iterable[str]) -> list[str]:
    """Keep the first of equal ids: chunks of one judged document count once."""
    return list(dict.fromkeys(ids))
