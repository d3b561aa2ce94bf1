"""What a result has to say, in plain data: a heading, a table, a chart, lists, warnings and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["", "up", "down", "flat"]

COLOURS: dict[Kind, str] = {"up": "#2a9d5c", "down": "#d0603f", "flat": "#808080"}
"""Legible on white and on dark notebooks; the same as in `pages/templates/style.css`."""


TIE = 1e-9
"""Differences up to this are rounding, not a difference."""


def kind_of(value: float) -> Kind:
    """Return the direction of a difference."""
    return "up" if value > TIE else "down" if value < -TIE else "flat"


@dataclass(frozen=True)
class Column:
    """A column of a report's table.

    Attributes:
        title: What its head says.
        align: `"<"` for text, `">"` for figures.
        fills: Whether it holds long texts and shares the width that the other columns leave.
        narrow: Whether it is as narrow as a figure in HTML.
    """

    title: str
    align: Literal["<", ">"] = ">"
    fills: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a report's table: its text, and the direction that colours it."""

    text: str
    kind: Kind = ""


@dataclass(frozen=True)
class Section:
    """A titled list below the table: a figure and a text for each entry."""

    title: str
    entries: Sequence[tuple[str, str]]
    kind: Kind = ""


@dataclass(frozen=True)
class Passage:
    """A candidate in both lists.

    Attributes:
        text: Its whole text.
        source: Where it comes from, in words; `""` if unknown.
        before: Its place in the first stage's list, from 1.
        after: Its place in the reranked list, from 1, where the ones not kept follow the kept ones.
        kept: Whether the reranker kept it.
        score: The cross-encoder's score, if it has one.
        answer: First character of the sentence that answers best, and the first after it, if one does.
        start: First character of its own text, after the headings that a chunk carries in front.
        uncut: Its place in the reranker's order before `top_n` and the threshold, from 1, if it has one.
    """

    text: str
    source: str
    before: int
    after: int
    kept: bool
    score: float | None
    answer: tuple[int, int] | None = None
    start: int = 0
    uncut: int | None = None

    @property
    def own_text(self) -> str:
        """Its text without the headings that it carries in front."""
        return self.text[self.start :]

    @property
    def kind(self) -> Kind:
        """The direction that reranking moved it in; `""` if it was not kept."""
        return kind_of(self.before - self.after) if self.kept else ""


@dataclass(frozen=True)
class Ribbons:
    """A chart of how each candidate moved from the first stage's list to the reranked one.

    Attributes:
        passages: The candidates in the reranked order, where the ones not kept follow the kept ones.
        query: What was searched for.
        top_n: How many the reranker keeps; `None` for all.
        score_threshold: The lowest score that it keeps; `None` for all.
        min_documents: How many it keeps whatever the threshold.
    """

    passages: Sequence[Passage]
    query: str
    top_n: int | None = None
    score_threshold: float | None = None
    min_documents: int = 0


@dataclass(frozen=True)
class Listed:
    """A document in one of a query's two lists: its text or, where that is not known, its id; and its judgement."""

    text: str
    relevant: bool


@dataclass(frozen=True)
class QueryDifference:
    """How much one query gained.

    Attributes:
        text: The query.
        difference: After minus before.
        before: The start of the first list.
        after: The start of the second list.
    """

    text: str
    difference: float
    before: Sequence[Listed] = ()
    after: Sequence[Listed] = ()

    @property
    def kind(self) -> Kind:
        """The direction of the difference."""
        return kind_of(self.difference)


@dataclass(frozen=True)
class Differences:
    """A chart of one bar for each query, the largest gain first.

    Attributes:
        queries: The queries, the largest gain first.
        measure: What the bars measure.
        names: What the first and the second list of a query are.
        title: The chart's title.
    """

    queries: Sequence[QueryDifference]
    measure: str
    names: tuple[str, str]
    title: str


@dataclass(frozen=True)
class Point:
    """Quality at one setting: its label, milliseconds and quality, and whether it is the knee."""

    label: str
    milliseconds: float
    quality: float
    is_knee: bool = False


@dataclass(frozen=True)
class Tradeoff:
    """A chart of quality against the rerank's median milliseconds.

    Attributes:
        points: One for each setting.
        measure: What quality is measured by.
        baseline: Quality without reranking.
    """

    points: Sequence[Point]
    measure: str
    baseline: float


@dataclass(frozen=True)
class Stages:
    """A chart of the time of each stage.

    Attributes:
        stages: Name and median milliseconds of each.
        growth: Median milliseconds of the rerank, by the number of candidates.
    """

    stages: Sequence[tuple[str, float]]
    growth: Sequence[tuple[int, float]] = ()


Chart = Ribbons | Differences | Tradeoff | Stages


@dataclass(frozen=True)
class Report:
    """What a result has to say, in the order in which it is read.

    Attributes:
        columns: The table's columns.
        rows: The table's rows, one cell for each column.
        chart: What a picture of the result shows.
        kind: What was called, such as `"compare"`.
        heading: The first sentence.
        label: What precedes the heading in a terminal.
        caption: A heading for HTML alone, where the cell does not show what was called.
        sections: Lists below the table.
        warnings: What to know before trusting the figures.
        notes: What the figures are of, one line each.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    chart: Chart
    kind: str
    heading: str = ""
    label: str = ""
    caption: str = ""
    sections: Sequence[Section] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = field(default=())
