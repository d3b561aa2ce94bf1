"""One query's documents before and after reranking, with scores, rank moves and milliseconds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.display import comparison_html, comparison_text, plot_comparison
from langchain_crossrerank.metadata import INITIAL_RANK, RELEVANCE_SCORE
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever


@dataclass(frozen=True)
class RankedDocument:
    """One document's place before and after reranking.

    Attributes:
        text: The document's text.
        metadata: The document's metadata as the first stage gave it.
        initial_rank: Place in the first stage's list, from 1.
        rank: Place after reranking, from 1; `None` if it was not kept.
        score: The cross-encoder's score; `None` if it was not kept, or the model failed.
    """

    text: str
    metadata: dict[str, Any]
    initial_rank: int
    rank: int | None
    score: float | None

    @property
    def move(self) -> str:
        """How the place changed: `"+3"` up, `"-2"` down, `"="` the same, `"dropped"` if not kept."""
        if self.rank is None:
            return "dropped"
        gain = self.initial_rank - self.rank
        return "=" if gain == 0 else f"{gain:+d}"


@dataclass(frozen=True)
class Comparison:
    """One query's documents before and after reranking.

    Attributes:
        query: The search text.
        documents: All candidates, in the first stage's order.
        model: The cross-encoder's name.
        retrieve_ms: Milliseconds of the first stage.
        rerank_ms: Milliseconds of the rerank.
    """

    query: str
    documents: list[RankedDocument]
    model: str
    retrieve_ms: float
    rerank_ms: float

    @property
    def reranked(self) -> list[RankedDocument]:
        """The documents kept, best first."""
        kept = [document for document in self.documents if document.rank is not None]
        return sorted(kept, key=lambda document: document.rank or 0)

    def to_dict(self) -> dict[str, Any]:
        """Give the comparison as plain data, ready for JSON wherever the metadata is."""
        return asdict(self)

    def to_text(self, width: int = 110) -> str:
        """Lay both lists side by side for a terminal.

        Args:
            width: Columns to fill at most.
        """
        return comparison_text(self, width)

    def plot(self) -> Any:
        """Draw the rank moves as a bump chart, a matplotlib figure; needs the `eval` extra."""
        return plot_comparison(self)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return comparison_html(self)


def reranker_of(retriever: object) -> CrossEncoderReranker:
    """Find the reranker inside a retriever.

    Raises:
        InvalidInputError: If there is none.
    """
    reranker = getattr(retriever, "base_compressor", None)
    if not isinstance(reranker, CrossEncoderReranker):
        raise InvalidInputError(
            f"retriever is {shorten(retriever)}, which has no CrossEncoderReranker to compare with; "
            "pass what create_rerank_retriever gives."
        )
    return reranker


def compare(retriever: ContextualCompressionRetriever, query: str) -> Comparison:
    """Run a reranking retriever on one query and show what the reranker changed.

    The model is loaded before the clock starts.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`, as `create_rerank_retriever` makes.
        query: The search text.

    Returns:
        Both lists with scores, moves and milliseconds; `print` shows them.

    Raises:
        InvalidInputError: If the retriever has no reranker, or the query is blank.
    """
    check_query(query)
    reranker = reranker_of(retriever)
    model = reranker.cross_encoder
    started = time.perf_counter()
    candidates = list(retriever.base_retriever.invoke(query))
    found = time.perf_counter()
    reranked = reranker.compress_documents(candidates, query)
    finished = time.perf_counter()
    places = {document.metadata[INITIAL_RANK]: (rank, document) for rank, document in enumerate(reranked, start=1)}
    return Comparison(
        query=query,
        documents=[_place(document, i, places) for i, document in enumerate(candidates, start=1)],
        model=model.name,
        retrieve_ms=(found - started) * 1000,
        rerank_ms=(finished - found) * 1000,
    )


def _place(document: Document, initial_rank: int, places: dict[int, tuple[int, Document]]) -> RankedDocument:
    rank, kept = places.get(initial_rank, (None, None))
    score = kept.metadata.get(RELEVANCE_SCORE) if kept is not None else None
    return RankedDocument(document.page_content, dict(document.metadata), initial_rank, rank, score)
