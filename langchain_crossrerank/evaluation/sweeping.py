"""Measures quality against latency over the number of candidates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.clocked import around_backends
from langchain_crossrerank.evaluation.doubts import Doubts, with_relevant
from langchain_crossrerank.evaluation.judgements import Qrels, check_judged
from langchain_crossrerank.evaluation.measures import (
    as_run,
    best_orders,
    check_measures,
    measure_per_query,
    with_depth,
)
from langchain_crossrerank.evaluation.progress import with_progress
from langchain_crossrerank.evaluation.query_runs import (
    KEEP_ALL,
    Fetched,
    QueryRun,
    document_id,
    find_reranker,
    run_query,
    unique,
)
from langchain_crossrerank.evaluation.results import SweepResult, SweepRow
from langchain_crossrerank.evaluation.significance import holm, paired_difference
from langchain_crossrerank.evaluation.timing import Stopwatch, percentile
from langchain_crossrerank.evaluation.unseen import UnseenCrossEncoder
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.retrievers import fetch_candidates

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.reranker import CrossEncoderReranker


def sweep(
    retriever: ContextualCompressionRetriever,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    ks: Sequence[int] = (5, 10, 20, 50, 100),
    top_ns: Sequence[int] = (1, 3, 5, 10),
    measure: str = "nDCG@10",
    id_key: str | None = None,
    timed_queries: int = 10,
    show_progress: bool = True,
) -> SweepResult:
    """Measure quality and time for several numbers of candidates.

    Candidates are fetched and scored once, for the largest k; the smaller ones are ordered by the same scores, so that
    each row is what `evaluate` returns at that k; the last one is that of the longest list, if no query has as many
    candidates as the largest k. Times are measured for each k on a few queries, past any score cache, as if no passage
    had been seen before (see `profile`).
    Looking at many numbers of candidates finds a good one by chance, so p-values are corrected for their number (Holm).

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`; its first stage must take `k` when
            invoked, or return that many candidates by itself.
        queries: Query text by query id.
        qrels: Grades by query id and document id.
        ks: Numbers of candidates.
        top_ns: Numbers of kept documents to look at.
        measure: As `ir-measures` spells it.
        id_key: Metadata key of a document's id in the judgements; see `evaluate`.
        timed_queries: Queries on which each k is timed.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        A row for each k, the knee, and advice for a budget.

    Raises:
        InvalidInputError: If nothing is judged, `ks` is empty, the measure is unknown, or a number is out of range.
        MissingExtraError: If the `eval` extra is not installed.
    """
    check_extra("eval", needed_for="sweep")
    qrels = with_relevant(check_judged(queries, qrels))
    _check_numbers("ks", ks)
    _check_numbers("top_ns", top_ns)
    check_measures([measure])
    ks = sorted(set(ks))
    orders, doubts = _Orders(ks), Doubts(qrels)
    reranker = find_reranker(retriever).model_copy(update=KEEP_ALL)
    remembering, timed = _remembering(reranker), _forgetting(reranker)
    for number, query_id in enumerate(with_progress(list(qrels), show_progress, "Sweeping")):
        fetched = _fetch(retriever, queries[query_id], max(ks), id_key)
        doubts.see(query_id, fetched)
        orders.add(query_id, queries[query_id], fetched, remembering, qrels[query_id])
        if number < timed_queries:
            _time_each(timed, fetched.documents, queries[query_id], orders.milliseconds)
    most = max(1, orders.longest)
    # Beyond the longest list, all numbers of candidates have the same results.
    reached = sorted({min(k, most): k for k in reversed(ks)}.items())
    (measure,) = with_depth([measure], reached[-1][0])
    baseline = _values(measure, qrels, {key: orders.before(key) for key in orders.found})
    rows = [replace(orders.row(k, measure, qrels, baseline), k=shown) for shown, k in reached]
    corrected = holm([row.p_value for row in rows])
    return SweepResult(
        rows=[replace(row, p_value=p_value) for row, p_value in zip(rows, corrected, strict=True)],
        measure=measure,
        baseline=statistics.fmean(baseline),
        queries=len(qrels),
        top_n_recall={n: _mean(f"R@{n}", qrels, orders.after[ks[-1]]) for n in sorted(set(top_ns))},
        model=reranker.cross_encoder.name,
        degraded=orders.degraded,
        doubts=[*doubts.warnings(orders.widest), *_unreached(ks, orders.longest)],
    )


@dataclass
class _Orders:
    """The lists of every query before reranking, and after it for each number of candidates.

    Attributes:
        ks: Numbers of candidates, ascending.
        found: Document ids in the first stage's order, by query id; several chunks may have the same.
        after: Document ids after reranking, by number of candidates and query id.
        widest: Both lists of every query for the largest number of candidates, and what is doubtful about them.
        milliseconds: Times of the rerank by number of candidates.
        degraded: Queries whose rerank failed.
    """

    ks: list[int]
    found: dict[str, list[str]] = field(default_factory=dict)
    after: dict[int, dict[str, list[str]]] = field(init=False)
    widest: dict[str, QueryRun] = field(default_factory=dict)
    milliseconds: dict[int, list[float]] = field(init=False)
    degraded: int = 0

    def __post_init__(self) -> None:
        self.after = {k: {} for k in self.ks}
        self.milliseconds = {k: [] for k in self.ks}

    def add(
        self,
        query_id: str,
        query: str,
        fetched: Fetched,
        reranker: CrossEncoderReranker,
        grades: Mapping[str, int],
    ) -> None:
        """Rerank one query's candidates for each number of them."""
        self.widest[query_id] = widest = run_query(fetched, reranker, query, query_id, grades)
        self.found[query_id] = fetched.ids
        self.degraded += widest.degraded
        for k, after in self.after.items():
            if widest.degraded:
                after[query_id] = self.before(query_id, k)
            elif k < len(fetched.documents):
                fewer = Fetched(fetched.documents[:k], fetched.ids[:k], 0.0)
                after[query_id] = run_query(fewer, reranker, query, query_id, grades).after
            else:
                after[query_id] = widest.after

    @property
    def longest(self) -> int:
        """The most candidates of a query."""
        return max(map(len, self.found.values()))

    def before(self, query_id: str, k: int | None = None) -> list[str]:
        """Return the ids of the first stage's best `k`, `None` for all, without the query that found itself."""
        itself = query_id if self.widest[query_id].itself else None
        return unique(name for name in self.found[query_id][:k] if name != itself)

    def row(self, k: int, measure: str, qrels: Qrels, baseline: Sequence[float]) -> SweepRow:
        """Measure one number of candidates, and compare it with no reranking, query by query."""
        first_stage = {key: self.before(key, k) for key in self.found}
        quality = _values(measure, qrels, self.after[k])
        difference = paired_difference(baseline, quality)
        return SweepRow(
            k=k,
            quality=statistics.fmean(quality),
            ceiling=_mean(measure, qrels, best_orders(first_stage, qrels)),
            p50_ms=percentile(self.milliseconds[k], 50),
            p95_ms=percentile(self.milliseconds[k], 95),
            difference=difference.mean,
            low=difference.low,
            high=difference.high,
            p_value=difference.p_value,
        )


def _unreached(ks: Sequence[int], longest: int) -> list[str]:
    beyond = [str(k) for k in ks if k > longest]
    if not beyond:
        return []
    return [
        f"The first stage returned {longest} candidates at most, so k={' and k='.join(beyond)} could not be measured; "
        "let it return more, or leave them out of ks."
    ]


def _remembering(reranker: CrossEncoderReranker) -> CrossEncoderReranker:
    """Score each pair once for all numbers of candidates, unless scores change with the other candidates."""
    model = reranker.cross_encoder
    if not model.scores_pairs_alone:
        return reranker
    return reranker.model_copy(update={"model": CachedCrossEncoder(model)})


def _forgetting(reranker: CrossEncoderReranker) -> CrossEncoderReranker:
    model = reranker.cross_encoder
    uncached = model.inner if isinstance(model, CachedCrossEncoder) else model
    return reranker.model_copy(update={"model": around_backends(uncached, UnseenCrossEncoder)})


def _check_numbers(name: str, numbers: Sequence[int]) -> None:
    whole = isinstance(numbers, Sequence) and all(type(number) is int and number >= 1 for number in numbers)
    if not whole or not numbers:
        raise InvalidInputError(f"{name} is {numbers!r}; pass at least one positive number, all of them whole.")


def _fetch(retriever: ContextualCompressionRetriever, query: str, k: int, id_key: str | None) -> Fetched:
    try:
        found = fetch_candidates(retriever, query, k=k)
    except InvalidInputError:
        # The number of candidates cannot be set on every first stage.
        found = fetch_candidates(retriever, query)
    return Fetched(found[:k], [document_id(document, id_key) for document in found[:k]], 0.0)


def _time_each(
    reranker: CrossEncoderReranker, candidates: Sequence[Any], query: str, milliseconds: Mapping[int, list[float]]
) -> None:
    for k, spent in milliseconds.items():
        stopwatch = Stopwatch()
        reranker.compress_documents(candidates[:k], query)
        spent.append(stopwatch.lap_ms())


def _mean(measure: str, qrels: Qrels, ranked: Mapping[str, Sequence[str]]) -> float:
    return statistics.fmean(_values(measure, qrels, ranked))


def _values(measure: str, qrels: Qrels, ranked: Mapping[str, Sequence[str]]) -> list[float]:
    """A measure's value of every query, in the order of the judgements."""
    values = measure_per_query([measure], qrels, as_run(ranked))[measure]
    return [values[key] for key in qrels]
