"""The result of `compare`: one query's documents before and after reranking."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank.evaluation.display.reportable import Reportable
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Kind, Passage, Report, Ribbons
from langchain_crossrerank.metadata import CARRIED
from langchain_crossrerank.sources import describe_source

_CANDIDATES_SHOWN = 5


@dataclass(frozen=True)
class RankedDocument:
    """One document's place before and after reranking.

    Attributes:
        text: The document's text.
        metadata: The document's metadata from the first stage.
        initial_rank: Place in the first stage's list, from 1.
        rank: Place after reranking, from 1; `None` if it was not kept.
        score: The cross-encoder's score, also of a document that was not kept; `None` if the model failed, or the
            document repeats an earlier one.
        answer: First character of the sentence in the text that answers the query best, and the first after it;
            `None` if no sentence does, or none was looked for.
        uncut_rank: Place, from 1, in the reranker's order before `top_n` and the threshold; `None` as for `score`.
    """

    text: str
    metadata: dict[str, Any]
    initial_rank: int
    rank: int | None
    score: float | None
    answer: tuple[int, int] | None = None
    uncut_rank: int | None = None

    @property
    def move(self) -> str:
        """How the place changed: `"+3"` up, `"-2"` down, `"="` the same, `"dropped"` if not kept."""
        if self.rank is None:
            return "dropped"
        gain = self.initial_rank - self.rank
        return "=" if gain == 0 else f"{gain:+d}"


@dataclass(frozen=True)
class Comparison(Reportable):
    """One query's documents before and after reranking.

    Attributes:
        query: The search text.
        documents: All candidates, in the first stage's order.
        model: The cross-encoder's name.
        retrieve_ms: Milliseconds of the first stage.
        rerank_ms: Milliseconds of the rerank.
        top_n: How many documents the reranker keeps; `None` for all.
        score_threshold: The lowest score that it keeps; `None` for all.
        min_documents: How many it keeps whatever the threshold.
        rerank_error: Why the rerank failed, so that the first stage's order was kept; `None` if it did not.
    """

    query: str
    documents: list[RankedDocument]
    model: str
    retrieve_ms: float
    rerank_ms: float
    top_n: int | None = None
    score_threshold: float | None = None
    min_documents: int = 0
    rerank_error: str | None = None

    @property
    def reranked(self) -> list[RankedDocument]:
        """The documents kept, best first."""
        kept = [document for document in self.documents if document.rank is not None]
        return sorted(kept, key=lambda document: document.rank or 0)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data, ready for JSON if the metadata is."""
        plain = asdict(self)
        for document in plain["documents"]:
            document["answer"] = document["answer"] and list(document["answer"])
        return plain

    @property
    def order(self) -> list[RankedDocument]:
        """All documents: those kept, best first, and then the others in the reranker's order."""
        dropped = [document for document in self.documents if document.rank is None]
        dropped.sort(key=lambda document: document.uncut_rank or len(self.documents) + 1)
        return [*self.reranked, *dropped]

    def report(self) -> Report:
        """Describe both lists side by side."""
        after = self.reranked
        rows = []
        for place in range(max(len(after), min(len(self.documents), _CANDIDATES_SHOWN))):
            row = [Cell(str(place + 1)), Cell(self.documents[place].text), Cell(""), Cell(""), Cell("")]
            if place < len(after):
                kept = after[place]
                kind: Kind = "up" if kept.move[0] == "+" else "down" if kept.move[0] == "-" else "flat"
                score = "-" if kept.score is None else f"{kept.score:.3f}"
                row[2:] = [Cell(kept.move, kind), Cell(score), Cell(kept.text)]
            rows.append(row)
        return Report(
            heading=self.query,
            label="Query: ",
            columns=(
                Column("#", narrow=True),
                Column("first stage", "<", fills=True),
                Column("move", narrow=True),
                Column("score", narrow=True),
                Column("reranked", "<", fills=True),
            ),
            rows=rows,
            chart=Ribbons(
                [_passage(document, after) for after, document in enumerate(self.order, start=1)],
                self.query,
                self.top_n,
                self.score_threshold,
                self.min_documents,
            ),
            kind="compare",
            warnings=[f"The first stage's order was kept, because the rerank failed: {self.rerank_error}"]
            if self.rerank_error is not None
            else [],
            notes=[
                f"{len(self.documents)} candidates, {len(after)} kept by {self.model}; "
                f"first stage {self.retrieve_ms:.0f} ms, rerank {self.rerank_ms:.0f} ms"
            ],
        )


def _passage(document: RankedDocument, after: int) -> Passage:
    carried = document.metadata.get(CARRIED, 0)
    return Passage(
        document.text,
        describe_source(Document(document.text, metadata=document.metadata)) if "source" in document.metadata else "",
        document.initial_rank,
        after,
        document.rank is not None,
        document.score,
        document.answer,
        carried if isinstance(carried, int) and 0 <= carried < len(document.text) else 0,
        document.uncut_rank,
    )
