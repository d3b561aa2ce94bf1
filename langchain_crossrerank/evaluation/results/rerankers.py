"""Two rerankers over the same queries: paired differences, wins, ties and losses."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from langchain_crossrerank.evaluation.display.reportable import Reportable
from langchain_crossrerank.evaluation.display.reports import (
    Cell,
    Column,
    Differences,
    Kind,
    Report,
    Section,
    kind_of,
)
from langchain_crossrerank.evaluation.results.differences import extremes
from langchain_crossrerank.evaluation.results.lists import QueryLists, difference_of
from langchain_crossrerank.evaluation.significance import MIN_QUERIES, paired_difference, verdict_of


@dataclass(frozen=True)
class RerankerMeasure:
    """One measure of two rerankers.

    Attributes:
        name: As `ir-measures` spells it.
        model: Mean of the first reranker.
        against: Mean of the other.
        difference: Mean of the first minus the other.
        low: Lower end of the difference's 95 % interval; see `paired_difference`.
        high: Upper end of it.
        p_value: Two-sided.
        wins: Queries on which the first is better.
        ties: Queries on which both are equal.
        losses: Queries on which the other is better.
        per_query: Both values by query id, the first reranker's first.
    """

    name: str
    model: float
    against: float
    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int
    per_query: dict[str, tuple[float, float]] = field(repr=False)

    @classmethod
    def of(cls, name: str, values: Mapping[str, float], against: Mapping[str, float]) -> RerankerMeasure:
        """Compare two rerankers' values of the same queries.

        Args:
            name: The measure.
            values: The first reranker's value by query id.
            against: The other's.
        """
        pairs = {key: (values[key], against[key]) for key in values}
        found = paired_difference([other for _, other in pairs.values()], [value for value, _ in pairs.values()])
        kinds = [kind_of(value - other) for value, other in pairs.values()]
        wins, losses = kinds.count("up"), kinds.count("down")
        return cls(
            name=name,
            model=statistics.fmean(value for value, _ in pairs.values()),
            against=statistics.fmean(other for _, other in pairs.values()),
            difference=found.mean,
            low=found.low,
            high=found.high,
            p_value=found.p_value,
            wins=wins,
            ties=len(pairs) - wins - losses,
            losses=losses,
            per_query=pairs,
        )

    @property
    def verdict(self) -> str:
        """`"better"`, `"worse"`, `"not distinguishable"` or `"too few queries"`; see `verdict_of`."""
        found = verdict_of(self.low, self.high, self.p_value, len(self.per_query))
        return {"helped": "better", "hurt": "worse"}.get(found, found)


@dataclass(frozen=True)
class RerankerComparison(Reportable):
    """Two rerankers over the same queries, as `EvaluationResult.against` compares them.

    Attributes:
        model: Name of the first cross-encoder.
        against: Name of the other.
        measures: One entry for each measure; the verdict is that of the first.
        queries: Queries that both were measured on.
        texts: Query text by query id.
        warnings: What to know before trusting the figures.
        lists: The other reranker's list and the first one's, by query id.
        passages: Texts of documents at the top of these lists, by document id.
    """

    model: str
    against: str
    measures: list[RerankerMeasure]
    queries: int
    texts: dict[str, str] = field(repr=False)
    warnings: list[str] = field(default_factory=list)
    lists: dict[str, QueryLists] = field(default_factory=dict, repr=False)
    passages: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """In words: which reranker is better by the first measure, by how much, and how sure that is."""
        first = self.measures[0]
        words = {
            "better": f"{self.model} is better than {self.against}",
            "worse": f"{self.model} is worse than {self.against}",
            "not distinguishable": f"{self.model} and {self.against} cannot be distinguished by these queries",
            "too few queries": f"No verdict, because fewer than {MIN_QUERIES} queries are judged",
        }[first.verdict]
        return (
            f"{words}: {first.name} {first.model:.3f} against {first.against:.3f} ({first.difference:+.3f}, 95 % "
            f"interval {first.low:+.3f} to {first.high:+.3f}, p = {first.p_value:.2g}; {first.wins} wins, "
            f"{first.ties} ties, {first.losses} losses)."
        )

    def extremes(self, most: int = 5) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Return the queries on which the first reranker wins most and those on which it loses most.

        Args:
            most: The largest number of queries in each list.
        """
        per_query = self.measures[0].per_query
        return extremes({key: value - other for key, (value, other) in per_query.items()}, most)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the documents' texts as plain data, ready for JSON."""
        plain = asdict(replace(self, passages={}))
        del plain["passages"]
        return {**plain, "verdict": self.verdict}

    def report(self) -> Report:
        """Describe the verdict, every measure, and the queries that differ most."""
        first = self.measures[0]
        titles = ("model", "against", "difference", "95 % interval", "p", "wins", "ties", "losses")
        won, lost = self.extremes()
        lists: tuple[tuple[str, Kind, list[tuple[str, float]]], ...] = (
            (f"{self.model} wins most", "up", won),
            (f"{self.against} wins most", "down", lost),
        )
        return Report(
            heading=self.verdict,
            columns=[Column("measure", "<"), *(Column(title) for title in titles)],
            rows=[_row(row) for row in self.measures],
            chart=Differences(
                sorted(
                    (
                        difference_of(self.texts[key], value - other, self.lists.get(key), self.passages)
                        for key, (value, other) in first.per_query.items()
                    ),
                    key=lambda query: -query.difference,
                ),
                measure=f"{first.name}: {self.model} - {self.against}",
                names=(self.against, self.model),
                title=f"{first.wins} wins, {first.ties} ties, {first.losses} losses, mean {first.difference:+.3f}",
            ),
            kind="evaluate --against",
            sections=[
                Section(title, [(f"{difference:+.3f}", self.texts[key]) for key, difference in entries], kind)
                for title, kind, entries in lists
                if entries
            ],
            warnings=self.warnings,
            notes=[f"{self.queries} queries; model: {self.model}; against: {self.against}"],
        )


def _row(row: RerankerMeasure) -> Sequence[Cell]:
    kind: Kind = "up" if row.verdict == "better" else "down" if row.verdict == "worse" else "flat"
    return [
        *(Cell(text) for text in (row.name, f"{row.model:.3f}", f"{row.against:.3f}")),
        Cell(f"{row.difference:+.3f}", kind),
        Cell(f"{row.low:+.3f} to {row.high:+.3f}"),
        Cell(f"{row.p_value:.2g}"),
        *(Cell(str(count)) for count in (row.wins, row.ties, row.losses)),
    ]
