"""The result of `evaluate`: every measure before and after reranking, and what to doubt about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.display.reportable import Reportable
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Differences, Kind, Report, Section
from langchain_crossrerank.evaluation.results.differences import extremes
from langchain_crossrerank.evaluation.results.lists import QueryLists, degraded_note, difference_of
from langchain_crossrerank.evaluation.results.rerankers import RerankerComparison, RerankerMeasure
from langchain_crossrerank.evaluation.significance import MIN_QUERIES, verdict_of
from langchain_crossrerank.evaluation.timing import percentile


@dataclass(frozen=True)
class MeasureResult:
    """One measure before and after reranking.

    Attributes:
        name: As `ir-measures` spells it.
        before: Mean of the first stage.
        after: Mean after reranking.
        ceiling: Mean of the best possible order of the same candidates; no reranker can exceed it.
        difference: Mean of after minus before.
        low: Lower end of the difference's 95 % interval; see `paired_difference`.
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
        """`"helped"`, `"hurt"`, `"not distinguishable"` or `"too few queries"`; see `verdict_of`."""
        return verdict_of(self.low, self.high, self.p_value, len(self.per_query))


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
        warnings: What to know before trusting the figures, with its cause and remedy.
        truncated: Passages that were longer than the model reads.
        left_out: Queries without a relevant document, which are not measured.
        lists: Both lists of each query, by query id.
        passages: Texts of documents at the top of these lists, by document id; a query taken from a checkpoint may
            have none.
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
    warnings: list[str] = field(default_factory=list)
    truncated: int = 0
    left_out: int = 0
    lists: dict[str, QueryLists] = field(default_factory=dict, repr=False)
    passages: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """In words: whether reranking helped by the first measure, by how much, and how sure that is."""
        first = self.measures[0]
        words = {
            "helped": "Reranking helped",
            "hurt": "Reranking hurt",
            "not distinguishable": "Reranking made no difference that these queries can tell from chance",
            "too few queries": f"No verdict, because fewer than {MIN_QUERIES} queries are judged",
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
        per_query = self.measures[0].per_query
        return extremes({key: after - before for key, (before, after) in per_query.items()}, most)

    def latency_ms(self) -> dict[str, float]:
        """Return the median and 95th percentile of both stages, in milliseconds."""
        stages = {"retrieve": list(self.retrieve_ms.values()), "rerank": list(self.rerank_ms.values())}
        return {
            f"{stage}_{name}": percentile(values, share)
            for stage, values in stages.items()
            for name, share in (("p50", 50), ("p95", 95))
        }

    def against(self, other: EvaluationResult) -> RerankerComparison:
        """Compare this result's reranker with another one's, on the queries and measures that both have.

        Evaluate both rerankers over the same first stage: `evaluate(one, ...).against(evaluate(two, ...))`. What is
        doubtful about either result is in the comparison's `warnings`.

        Args:
            other: The other reranker's result.

        Raises:
            InvalidInputError: If the two have no query or no measure in common.
        """
        mine = {row.name: row for row in self.measures}
        theirs = {row.name: row for row in other.measures}
        names = [name for name in mine if name in theirs]
        keys = [key for key in self.texts if key in other.texts]
        if not names or not keys:
            raise InvalidInputError(
                f"the results have no {'measure' if keys else 'query'} in common; evaluate both on the same queries "
                "with the same measures."
            )
        warnings = []
        if len(keys) < max(self.queries, other.queries):
            warnings.append(f"Only the {len(keys)} queries that both results have are compared.")
        if any(mine[name].per_query[key][0] != theirs[name].per_query[key][0] for name in names for key in keys):
            warnings.append("The first stages differ, so the difference is not the rerankers' alone.")
        reworded = [key for key in keys if self.texts[key] != other.texts[key]]
        if reworded:
            warnings.append(
                f"{len(reworded)} queries have the same id and other words in the two results, for example "
                f"{reworded[0]!r}; compare results of the same queries."
            )
        return RerankerComparison(
            model=self.model,
            against=other.model,
            measures=[
                RerankerMeasure.of(
                    name,
                    {key: mine[name].per_query[key][1] for key in keys},
                    {key: theirs[name].per_query[key][1] for key in keys},
                )
                for name in names
            ],
            queries=len(keys),
            texts={key: self.texts[key] for key in keys},
            warnings=[*warnings, *_doubts_of_both(self, other)],
            lists={
                key: QueryLists(other.lists[key].after, self.lists[key].after, self.lists[key].relevant)
                for key in keys
                if key in self.lists and key in other.lists
            },
            passages={**other.passages, **self.passages},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the documents' texts as plain data, ready for JSON."""
        plain = asdict(replace(self, passages={}))
        del plain["passages"]
        return {**plain, "verdict": self.verdict, "latency_ms": self.latency_ms()}

    def report(self) -> Report:
        """Describe the verdict, every measure, and the queries that moved most."""
        first = self.measures[0]
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
            chart=Differences(
                sorted(
                    (
                        difference_of(self.texts[key], after - before, self.lists.get(key), self.passages)
                        for key, (before, after) in first.per_query.items()
                    ),
                    key=lambda query: -query.difference,
                ),
                measure=f"{first.name}: after - before",
                names=("first stage", "reranked"),
                title=f"mean {first.difference:+.3f}, 95 % interval {first.low:+.3f} to {first.high:+.3f}",
            ),
            kind="evaluate",
            sections=[
                Section(title, [(f"{difference:+.3f}", self.texts[key]) for key, difference in entries], kind)
                for title, kind, entries in lists
                if entries
            ],
            warnings=self.warnings,
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
        if self.left_out:
            notes.append(f"{self.left_out} queries have no relevant document and are left out")
        return [*notes, *degraded_note(self.degraded)]


def _doubts_of_both(one: EvaluationResult, other: EvaluationResult) -> list[str]:
    """What is doubtful about either result, with the model's name unless it is true of both."""
    mine, theirs = ([*result.warnings, *degraded_note(result.degraded)] for result in (one, other))
    return [
        *(text for text in mine if text in theirs),
        *(f"{one.model}: {text}" for text in mine if text not in theirs),
        *(f"{other.model}: {text}" for text in theirs if text not in mine),
    ]


def _measure_row(row: MeasureResult) -> Sequence[Cell]:
    kind: Kind = "up" if row.verdict == "helped" else "down" if row.verdict == "hurt" else "flat"
    return [
        *(Cell(text) for text in (row.name, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.ceiling:.3f}")),
        Cell(f"{row.difference:+.3f}", kind),
        Cell(f"{row.low:+.3f} to {row.high:+.3f}"),
        Cell(f"{row.p_value:.2g}"),
    ]
