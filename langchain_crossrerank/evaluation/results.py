"""What `compare`, `evaluate`, `profile` and `sweep` return: figures, what follows from them, and a report of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_crossrerank.evaluation import charts
from langchain_crossrerank.evaluation.display import Cell, Column, Kind, Report, Reportable, Section
from langchain_crossrerank.evaluation.timing import percentile

KNEE_SHARE = 0.95
"""The knee is the smallest `k` that reaches this share of the best gain over no reranking."""

_CANDIDATES_SHOWN = 5


@dataclass(frozen=True)
class RankedDocument:
    """One document's place before and after reranking.

    Attributes:
        text: The document's text.
        metadata: The document's metadata from the first stage.
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
class Comparison(Reportable):
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
        """Return the comparison as plain data, ready for JSON if the metadata is."""
        return asdict(self)

    def plot(self) -> Any:
        """Draw the rank moves as a bump chart, a matplotlib figure; needs the `eval` extra."""
        moves = [(document.text, document.initial_rank, document.rank) for document in self.documents]
        return charts.rank_chart(moves, self.query)

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
            notes=[
                f"{len(self.documents)} candidates, {len(after)} kept by {self.model}; "
                f"first stage {self.retrieve_ms:.0f} ms, rerank {self.rerank_ms:.0f} ms"
            ],
        )


@dataclass(frozen=True)
class MeasureResult:
    """One measure before and after reranking.

    Attributes:
        name: As `ir-measures` spells it.
        before: Mean of the first stage.
        after: Mean after reranking.
        ceiling: Mean of the best possible order of the same candidates; no reranker can exceed it.
        difference: Mean of after minus before.
        low: Lower end of the difference's 95 % interval (paired bootstrap).
        high: Upper end of it.
        p_value: Two-sided.
        per_query: Before and after by query id.
    """

    name: str
    before: float
    after: float
    ceiling: float
    difference: float
    low: float
    high: float
    p_value: float
    per_query: dict[str, tuple[float, float]] = field(repr=False)

    @property
    def verdict(self) -> str:
        """`"helped"`, `"hurt"` or `"not distinguishable"`, by whether the interval excludes zero."""
        if self.low > 0:
            return "helped"
        return "hurt" if self.high < 0 else "not distinguishable"


@dataclass(frozen=True)
class EvaluationResult(Reportable):
    """The result of `evaluate`.

    Attributes:
        measures: One entry a measure; the verdict is that of the first.
        queries: Judged queries.
        empty: Judged queries for which the first stage found nothing; they count as 0.
        degraded: Queries whose rerank failed and kept the first stage's order.
        k: The largest number of candidates of a query.
        model: The cross-encoder's name.
        retrieve_ms: Milliseconds of the first stage, by query.
        rerank_ms: Milliseconds of the rerank, by query.
        texts: Query text by query id.
    """

    measures: list[MeasureResult]
    queries: int
    empty: int
    degraded: int
    k: int
    model: str
    retrieve_ms: dict[str, float] = field(repr=False)
    rerank_ms: dict[str, float] = field(repr=False)
    texts: dict[str, str] = field(repr=False)

    @property
    def verdict(self) -> str:
        """In words: whether reranking helped by the first measure, by how much, and how sure that is."""
        first = self.measures[0]
        words = {
            "helped": "Reranking helped",
            "hurt": "Reranking hurt",
            "not distinguishable": "Reranking made no difference that these queries can tell from chance",
        }[first.verdict]
        return (
            f"{words}: {first.name} {first.before:.3f} -> {first.after:.3f} "
            f"({first.difference:+.3f}, 95 % interval {first.low:+.3f} to {first.high:+.3f}, "
            f"p = {first.p_value:.2g}, {self.queries} queries)."
        )

    def extremes(self, most: int = 5) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Return the queries that gained most and those that lost most by the first measure, with differences.

        Args:
            most: The largest number of queries in each list.
        """
        moved = [(key, after - before) for key, (before, after) in self.measures[0].per_query.items()]
        moved.sort(key=lambda entry: entry[1])
        return [e for e in moved[::-1] if e[1] > 0][:most], [e for e in moved if e[1] < 0][:most]

    def latency_ms(self) -> dict[str, float]:
        """Return the median and 95th percentile of both stages, in milliseconds."""
        stages = {"retrieve": list(self.retrieve_ms.values()), "rerank": list(self.rerank_ms.values())}
        return {
            f"{stage}_{name}": percentile(values, share)
            for stage, values in stages.items()
            for name, share in (("p50", 50), ("p95", 95))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict, "latency_ms": self.latency_ms()}

    def plot(self) -> Any:
        """Draw each query's difference, largest gain first, as a matplotlib figure; needs the `eval` extra."""
        first = self.measures[0]
        return charts.difference_chart(
            [after - before for before, after in first.per_query.values()],
            label=f"{first.name}: after - before",
            title=f"mean {first.difference:+.3f}, 95 % interval {first.low:+.3f} to {first.high:+.3f}",
        )

    def report(self) -> Report:
        """Describe the verdict, every measure, and the queries that moved most."""
        titles = ("before", "after", "ceiling", "difference", "95 % interval", "p")
        gained, lost = self.extremes()
        lists: tuple[tuple[str, Kind, list[tuple[str, float]]], ...] = (
            ("Gained most", "up", gained),
            ("Lost most", "down", lost),
        )
        return Report(
            heading=self.verdict,
            columns=[Column("measure", "<"), *(Column(title) for title in titles)],
            rows=[_measure_row(row) for row in self.measures],
            sections=[
                Section(title, [(f"{difference:+.3f}", self.texts[key]) for key, difference in entries], kind)
                for title, kind, entries in lists
                if entries
            ],
            notes=["; ".join(self._notes())],
        )

    def _notes(self) -> list[str]:
        times = self.latency_ms()
        notes = [
            f"{self.queries} queries, {self.k} candidates at most, {self.model}",
            f"first stage {times['retrieve_p50']:.0f} ms, rerank {times['rerank_p50']:.0f} ms "
            f"(p95 {times['rerank_p95']:.0f} ms)",
        ]
        if self.empty:
            notes.append(f"{self.empty} queries found nothing and count as 0")
        return [*notes, *_degraded_note(self.degraded)]


@dataclass(frozen=True)
class StageTimes:
    """One stage's times.

    Attributes:
        name: `"search"` (embedding and search), `"tokenise"`, `"forward"`, `"select"` (sorting, copying, callbacks, a
            cache's look-ups) or `"answer"`.
        p50_ms: Median milliseconds of a query.
        p95_ms: 95th percentile.
        share: Of the sum of all medians, 0 to 1.
    """

    name: str
    p50_ms: float
    p95_ms: float
    share: float


@dataclass(frozen=True)
class ProfileResult(Reportable):
    """The result of `profile`.

    Attributes:
        stages: The stages in their order.
        by_k: Median milliseconds of the rerank for fewer candidates, by their number.
        queries: Queries that were run.
        repeats: How often each was run.
        model: The cross-encoder's name.
    """

    stages: list[StageTimes]
    by_k: dict[int, float] = field(default_factory=dict)
    queries: int = 0
    repeats: int = 0
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, ready for JSON."""
        return asdict(self)

    def plot(self) -> Any:
        """Draw the stages as a stacked bar, a matplotlib figure; needs the `eval` extra."""
        return charts.stage_chart({stage.name: stage.p50_ms for stage in self.stages})

    def report(self) -> Report:
        """Describe each stage's times, and the rerank's for fewer candidates."""
        growth = [(f"k={k}", f"{milliseconds:.1f} ms") for k, milliseconds in self.by_k.items()]
        return Report(
            caption="Milliseconds per query",
            columns=[Column("stage", "<"), Column("p50 ms"), Column("p95 ms"), Column("share")],
            rows=[
                [Cell(row.name), Cell(f"{row.p50_ms:.1f}"), Cell(f"{row.p95_ms:.1f}"), Cell(f"{row.share:.0%}")]
                for row in self.stages
            ],
            sections=[Section("rerank by number of candidates", growth)] if growth else [],
            notes=[f"{self.queries} queries x {self.repeats}, {self.model}; shares are of the medians' sum"],
        )


@dataclass(frozen=True)
class SweepRow:
    """One number of candidates.

    Attributes:
        k: Candidates that are reranked.
        quality: Mean of the measure after reranking.
        ceiling: Mean that the best order of these candidates would reach.
        p50_ms: Median milliseconds of the rerank; 0 where nothing was timed.
        p95_ms: 95th percentile; 0 where nothing was timed.
    """

    k: int
    quality: float
    ceiling: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class SweepResult(Reportable):
    """The result of `sweep`.

    Attributes:
        rows: One for each number of candidates, ascending.
        measure: The measure's name.
        baseline: Its mean without reranking.
        top_n_recall: Share of the judged-relevant documents among the first `top_n`, at the largest k.
        model: The cross-encoder's name.
        degraded: Queries whose rerank failed and kept the first stage's order.
    """

    rows: list[SweepRow]
    measure: str
    baseline: float
    top_n_recall: dict[int, float] = field(default_factory=dict)
    model: str = ""
    degraded: int = 0

    @property
    def knee(self) -> SweepRow | None:
        """The smallest k that reaches 95 % of the best gain; `None` if no k is better than no reranking."""
        best = max(row.quality for row in self.rows)
        if best <= self.baseline:
            return None
        needed = self.baseline + KNEE_SHARE * (best - self.baseline)
        return next(row for row in self.rows if row.quality >= needed)

    def recommend(self, budget_ms: float) -> tuple[int, int] | None:
        """Recommend `k` and `top_n` for a latency budget.

        `k` is the best within the budget by quality, the smaller of equals; `top_n` is the smallest that keeps 90 % of
        the relevant documents that the largest one keeps.

        Args:
            budget_ms: Milliseconds that the rerank may take at the 95th percentile.

        Returns:
            The two numbers, or `None` if nothing was timed, no k keeps within the budget, or none is better than no
            reranking.
        """
        affordable = [row for row in self.rows if 0 < row.p95_ms <= budget_ms and row.quality > self.baseline]
        if not affordable:
            return None
        k = max(affordable, key=lambda row: (row.quality, -row.k)).k
        most = max(self.top_n_recall.values(), default=0.0)
        top_n = next((n for n, recall in sorted(self.top_n_recall.items()) if recall >= 0.9 * most), k)
        return k, min(k, top_n)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, ready for JSON."""
        return {**asdict(self), "knee": None if self.knee is None else self.knee.k}

    def plot(self) -> Any:
        """Draw quality against milliseconds, the knee marked, as a matplotlib figure; needs the `eval` extra."""
        points = [
            (f"k={row.k}" + (" (knee)" if row is self.knee else ""), row.p50_ms, row.quality) for row in self.rows
        ]
        return charts.tradeoff_chart(points, self.measure, self.baseline)

    def report(self) -> Report:
        """Describe quality and time for each number of candidates."""
        titles = ("k", self.measure, "ceiling", "rerank p50 ms", "p95 ms")
        recalls = [
            f"top_n={n}: {recall:.0%} of the relevant documents among the kept"
            for n, recall in self.top_n_recall.items()
        ]
        return Report(
            caption="Quality against latency",
            columns=[*(Column(title) for title in titles), Column("", "<")],
            rows=[
                [
                    *(Cell(text) for text in (str(row.k), f"{row.quality:.3f}", f"{row.ceiling:.3f}")),
                    *(Cell(text) for text in (f"{row.p50_ms:.0f}", f"{row.p95_ms:.0f}")),
                    Cell("<- knee" if row is self.knee else ""),
                ]
                for row in self.rows
            ],
            notes=[
                f"Without reranking: {self.measure} {self.baseline:.3f}.",
                *recalls,
                *_degraded_note(self.degraded),
            ],
        )


def _measure_row(row: MeasureResult) -> Sequence[Cell]:
    kind: Kind = "up" if row.verdict == "helped" else "down" if row.verdict == "hurt" else "flat"
    return [
        *(Cell(text) for text in (row.name, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.ceiling:.3f}")),
        Cell(f"{row.difference:+.3f}", kind),
        Cell(f"{row.low:+.3f} to {row.high:+.3f}"),
        Cell(f"{row.p_value:.2g}"),
    ]


def _degraded_note(count: int) -> list[str]:
    return [f"{count} queries kept the first stage's order because the model failed"] if count else []
