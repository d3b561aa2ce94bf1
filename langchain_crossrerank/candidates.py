"""The candidates of one rerank: checked, without duplicates, and with new metadata at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import (
    BEST_WINDOW,
    INITIAL_RANK,
    PRUNED,
    QUERY_TRUNCATED,
    RELEVANCE_SCORE,
    RERANK_ERROR,
    RERANKED,
    TRUNCATED,
)
from langchain_crossrerank.passages import flat_text, render_passage

_ALWAYS_STALE = frozenset({RELEVANCE_SCORE, BEST_WINDOW, QUERY_TRUNCATED, RERANKED, RERANK_ERROR})
# Common words that a caller's own metadata may contain, too: an earlier rerank's are next to its score.
_STALE_IF_SCORED = _ALWAYS_STALE | {TRUNCATED, PRUNED}


@dataclass(frozen=True)
class Candidates:
    """The documents of one rerank, with what the model reads for each.

    Attributes:
        query: The search text.
        documents: All documents in the first stage's order.
        passages: The passage of each document.
        distinct: Positions, from 0, of the documents to rerank: all of them, or the first of those with equal passages.
        same_as: For each document, the index in `distinct` of the one that stands for it.
    """

    query: str
    documents: Sequence[Document]
    passages: Sequence[str]
    distinct: Sequence[int]
    same_as: Sequence[int]

    @property
    def duplicates(self) -> int:
        """The number of documents left out because an earlier one has the same passage."""
        return len(self.documents) - len(self.distinct)

    @property
    def text_pairs(self) -> list[TextPair]:
        """The pairs to score, one for each distinct candidate."""
        return [(self.query, self.passages[position]) for position in self.distinct]

    def scored(self, index: int, scored: PairScore) -> Document:
        """Return a copy of a distinct candidate with its score and its place in the first stage."""
        added: dict[str, Any] = {RELEVANCE_SCORE: scored.score}
        if scored.truncated:
            added[TRUNCATED] = True
        if scored.query_truncated:
            added[QUERY_TRUNCATED] = True
        if scored.pruned:
            added[PRUNED] = True
        if scored.window is not None:
            added[BEST_WINDOW] = list(scored.window)
        return self._copy(index, added)

    def failed(self, index: int, reason: str) -> Document:
        """Return a copy of a distinct candidate that says why it has no score."""
        return self._copy(index, {RELEVANCE_SCORE: None, RERANKED: False, RERANK_ERROR: reason})

    def _copy(self, index: int, added: dict[str, Any]) -> Document:
        position = self.distinct[index]
        document = self.documents[position]
        if callable(getattr(document, "to_document", None)):
            # LangChain's embedding filters return documents that carry their vector and cannot be serialised.
            document = Document(id=document.id, page_content=document.page_content, metadata=document.metadata)
        stale = _STALE_IF_SCORED if RELEVANCE_SCORE in document.metadata else _ALWAYS_STALE
        kept = {key: value for key, value in document.metadata.items() if key not in stale}
        return document.model_copy(update={"metadata": {**kept, **added, INITIAL_RANK: position + 1}})


def make_candidates(
    query: str, documents: Sequence[Document], *, template: str | None, drop_duplicates: bool
) -> Candidates:
    """Render the passages of documents and find those that are equal.

    Args:
        query: The search text.
        documents: Documents in the first stage's order.
        template: A passage template, or `None` for the page content alone.
        drop_duplicates: Whether to rerank only the first of the documents whose passages are equal except for
            whitespace.
    """
    passages = [render_passage(document, template) for document in documents]
    keys: Sequence[object] = range(len(passages))
    if drop_duplicates:
        keys = list(map(flat_text, passages))
    index_of: dict[object, int] = {}
    distinct: list[int] = []
    for position, key in enumerate(keys):
        if key not in index_of:
            index_of[key] = len(distinct)
            distinct.append(position)
    return Candidates(query, documents, passages, distinct, [index_of[key] for key in keys])


def check_rerank_input(input: Any) -> tuple[str, list[Document]]:
    """Return the query and the documents of a reranker's input.

    Raises:
        InvalidInputError: If the input is not a dict of both, the query is blank, or an element is not a document.
    """
    if not isinstance(input, dict) or not {"query", "documents"} <= input.keys():
        raise InvalidInputError(f'the reranker got {shorten(input)}; pass {{"query": ..., "documents": [...]}}.')
    query = check_query(input["query"])
    documents = input["documents"]
    if isinstance(documents, str | bytes | Document) or not isinstance(documents, Iterable):
        raise InvalidInputError(f"documents is {shorten(documents)}; pass a list of LangChain Document objects.")
    documents = list(documents)
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InvalidInputError(
                f"documents[{position}] is {shorten(document)} of type {type(document).__name__}; "
                "pass langchain_core.documents.Document objects."
            )
    return query, documents
