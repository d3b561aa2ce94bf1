"""The result of `profile`: the time of each stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from langchain_crossrerank.evaluation.display.reportable import Reportable
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Report, Section, Stages


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

    def report(self) -> Report:
        """Describe each stage's times, and the rerank's for fewer candidates."""
        chart = Stages([(stage.name, stage.p50_ms) for stage in self.stages], list(self.by_k.items()))
        growth = [(f"k={k}", f"{milliseconds:.1f} ms") for k, milliseconds in self.by_k.items()]
        return Report(
            caption="Milliseconds per query",
            columns=[Column("stage", "<"), Column("p50 ms"), Column("p95 ms"), Column("share")],
            rows=[
                [Cell(row.name), Cell(f"{row.p50_ms:.1f}"), Cell(f"{row.p95_ms:.1f}"), Cell(f"{row.share:.0%}")]
                for row in self.stages
            ],
            chart=chart,
            kind="profile",
            sections=[Section("rerank by number of candidates", growth)] if growth else [],
            notes=[f"{self.queries} queries x {self.repeats}, {self.model}; shares are of the medians' sum"],
        )
