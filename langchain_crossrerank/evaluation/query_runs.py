"""Runs both stages for one query, and names the documents as judgements name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.documents import BaseDocumentCompressor, Document

from langchain_crossrerank import retrievers
from langchain_crossrerank.blending import first_stage_scores
from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.digests import digest_of
from langchain_crossrerank.evaluation.timing import Stopwatch
from langchain_crossrerank.metadata import INITIAL_RANK, RERANKED, TRUNCATED
from langchain_crossrerank.passages import flat_text
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
        passages: Passages that were reranked.
        truncated: Passages that were longer than the model reads.
        blank: Candidates without text.
        itself: Whether the query is a document of the corpus that found itself, and was left out of both lists.
        candidates: Digest of the candidates; see `Fetched.digest`.
    """

    before: list[str]
    after: list[str]
    retrieve_ms: float
    rerank_ms: float
    degraded: bool = False
    passages: int = 0
    truncated: int = 0
    blank: int = 0
    itself: bool = False
    candidates: str = ""


KEEP_ALL = {"top_n": None, "drop_duplicates": False}
"""Settings of a reranker that is measured: both lists have the same documents."""


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


@dataclass(frozen=True)
class Fetched:
    """A query's candidates.

    Attributes:
        documents: The candidates in the first stage's order.
        ids: Their ids in the judgements.
        milliseconds: How long the first stage took.
    """

    documents: list[Document]
    ids: list[str]
    milliseconds: float

    def digest(self, reranker: CrossEncoderReranker, query: str) -> str:
        """Hash what decides the result: ids, passages as the reranker reads them, and the scores that it blends."""
        passages = [passage for _, passage in reranker.text_pairs(query, self.documents)]
        # Elsewhere the first stage's scores may differ from call to call and change nothing.
        is_weighted = reranker.blend == "weighted"
        scores = first_stage_scores(self.documents, reranker.initial_score_key) if is_weighted else None
        return digest_of([self.ids, passages, scores])

    def find_itself(self, query: str, query_id: str, grades: Mapping[str, int]) -> str | None:
        """Return the id of the candidate that is the query itself, as in ArguAna and Quora, or `None`.

        It has the query's id, holds its text or is a part of it, and is not judged relevant.

        Args:
            query: The search text.
            query_id: Its id.
            grades: The query's judgements.
        """
        is_there = grades.get(query_id, 0) <= 0 and any(
            name == query_id and _are_one(query, document.page_content)
            for name, document in zip(self.ids, self.documents, strict=True)
        )
        return query_id if is_there else None


def fetch(retriever: ContextualCompressionRetriever, query: str, id_key: str | None) -> Fetched:
    """Run the first stage for one query.

    Args:
        retriever: Where the first stage is taken from.
        query: The search text.
        id_key: Metadata key of a document's id in the judgements; see `document_id`.
    """
    stopwatch = Stopwatch()
    documents = retrievers.fetch_candidates(retriever, query)
    milliseconds = stopwatch.lap_ms()
    return Fetched(documents, [document_id(document, id_key) for document in documents], milliseconds)


def run_query(
    fetched: Fetched, reranker: CrossEncoderReranker, query: str, query_id: str, grades: Mapping[str, int]
) -> QueryRun:
    """Rerank one query's candidates, and time it.

    Args:
        fetched: The candidates.
        reranker: The second stage.
        query: The search text.
        query_id: Its id; a candidate that is the query itself is left out of both lists.
        grades: The query's judgements.
    """
    stopwatch = Stopwatch()
    reranked = reranker.compress_documents(fetched.documents, query) if fetched.documents else []
    rerank_ms = stopwatch.lap_ms()
    itself = fetched.find_itself(query, query_id, grades)
    after = [fetched.ids[document.metadata[INITIAL_RANK] - 1] for document in reranked]
    return QueryRun(
        before=unique(name for name in fetched.ids if name != itself),
        after=unique(name for name in after if name != itself),
        retrieve_ms=fetched.milliseconds,
        rerank_ms=rerank_ms,
        degraded=any(document.metadata.get(RERANKED) is False for document in reranked),
        passages=len(reranked),
        truncated=sum(document.metadata.get(TRUNCATED) is True for document in reranked),
        blank=sum(not document.page_content.strip() for document in fetched.documents),
        itself=itself is not None,
        candidates=fetched.digest(reranker, query),
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


def _are_one(query: str, passage: str) -> bool:
    """Whether a passage is the query, with a title or without, or a chunk of it."""
    query, passage = flat_text(query.casefold()), flat_text(passage.casefold())
    return query in passage or (bool(passage) and passage in query)
