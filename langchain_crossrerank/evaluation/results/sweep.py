"""The result of `sweep`: quality against latency over the number of candidates."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_crossrerank.evaluation.display.reportable import Reportable
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Point, Report, Tradeoff
from langchain_crossrerank.evaluation.results.lists import degraded_note
from langchain_crossrerank.evaluation.significance import MIN_QUERIES, verdict_of

KNEE_SHARE = 0.95
"""The knee is the smallest `k` that reaches this share of the best gain over no reranking."""


@dataclass(frozen=True)
class SweepRow:
    """One number of candidates.

    Attributes:
        k: Candidates that are reranked.
        quality: Mean of the measure after reranking.
        ceiling: Mean that the best order of these candidates would reach.
        p50_ms: Median milliseconds of the rerank; 0 where nothing was timed.
        p95_ms: 95th percentile; 0 where nothing was timed.
        difference: Mean difference from no reranking.
        low: Lower end of the difference's 95 % interval; see `paired_difference`.
        high: Upper end of it.
        p_value: Two-sided, corrected for the number of rows.
    """

    k: int
    quality: float
    ceiling: float
    p50_ms: float
    p95_ms: float
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p_value: float = 1.0


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
        queries: Queries that were measured.
        doubts: What to know before trusting the figures, with its cause and remedy.
    """

    rows: list[SweepRow]
    measure: str
    baseline: float
    top_n_recall: dict[int, float] = field(default_factory=dict)
    model: str = ""
    degraded: int = 0
    queries: int = 0
    doubts: list[str] = field(default_factory=list)

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
        the relevant documents that the largest one keeps, and less than `k`, so that reranking chooses.

        Args:
            budget_ms: Milliseconds that the rerank may take at the 95th percentile.

        Returns:
            The two numbers, or `None` if nothing was timed, no k keeps within the budget, or none is better than no
            reranking.
        """
        affordable = [
            row for row in self.rows if row.k > 1 and 0 < row.p95_ms <= budget_ms and row.quality > self.baseline
        ]
        if not affordable:
            return None
        k = max(affordable, key=lambda row: (row.quality, -row.k)).k
        most = max(self.top_n_recall.values(), default=0.0)
        top_n = next((n for n, recall in sorted(self.top_n_recall.items()) if recall >= 0.9 * most), k)
        return k, min(k - 1, top_n)

    def _warnings(self) -> list[str]:
        """The doubts, and whether no row is better than no reranking beyond chance."""
        if not self.queries or any(
            verdict_of(row.low, row.high, row.p_value, self.queries) == "helped" for row in self.rows
        ):
            return self.doubts
        if self.queries < MIN_QUERIES:
            return [*self.doubts, f"{self.queries} queries are too few to choose by; judge at least {MIN_QUERIES}."]
        return [
            *self.doubts,
            f"No number of candidates is better than no reranking beyond chance, as {len(self.rows)} of them were "
            "tried; judge more queries before choosing one.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, ready for JSON."""
        return {**asdict(self), "knee": None if self.knee is None else self.knee.k}

    def report(self) -> Report:
        """Describe quality and time for each number of candidates."""
        titles = ("k", self.measure, "ceiling", "difference", "p", "rerank p50 ms", "p95 ms")
        recalls = [
            f"top_n={n}: {recall:.0%} of the relevant documents among the kept"
            for n, recall in self.top_n_recall.items()
        ]
        points = [
            Point(f"k={row.k}" + (" (knee)" if row is self.knee else ""), row.p50_ms, row.quality, row is self.knee)
            for row in self.rows
        ]
        return Report(
            chart=Tradeoff(points, self.measure, self.baseline),
            kind="sweep",
            caption="Quality against latency",
            columns=[*(Column(title) for title in titles), Column("", "<")],
            rows=[
                [
                    *(Cell(text) for text in (str(row.k), f"{row.quality:.3f}", f"{row.ceiling:.3f}")),
                    *(Cell(text) for text in (f"{row.difference:+.3f}", f"{row.p_value:.2g}")),
                    *(Cell(text) for text in (f"{row.p50_ms:.0f}", f"{row.p95_ms:.0f}")),
                    Cell("<- knee" if row is self.knee else ""),
                ]
                for row in self.rows
            ],
            warnings=self._warnings(),
            notes=[
                f"Without reranking: {self.measure} {self.baseline:.3f}.",
                *recalls,
                *degraded_note(self.degraded),
            ],
        )
