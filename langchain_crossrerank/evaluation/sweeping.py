"""Quality against latency over the number of candidates: how many are worth their time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike

from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.collection import Qrels
from langchain_crossrerank.evaluation.comparison import reranker_of
from langchain_crossrerank.evaluation.display import plot_sweep, sweep_html, sweep_text
from langchain_crossrerank.evaluation.evaluating import (
    as_run,
    check_judged,
    document_id,
    percentile,
    unique,
    with_progress,
)
from langchain_crossrerank.evaluation.significance import check_measures, measure_per_query, with_depth
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.metadata import INITIAL_RANK, RERANKED

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.reranker import CrossEncoderReranker

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
    """

    k: int
    quality: float
    ceiling: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class SweepResult:
    """What `sweep` found.

    Attributes:
        rows: One a number of candidates, ascending.
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
        """Give `k` and `top_n` for a latency budget.

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
        """Give everything as plain data, ready for JSON."""
        return {**asdict(self), "knee": None if self.knee is None else self.knee.k}

    def to_text(self) -> str:
        """Lay the sweep out for a terminal."""
        return sweep_text(self)

    def plot(self) -> Any:
        """Draw quality against milliseconds as a matplotlib figure; needs the `eval` extra."""
        return plot_sweep(self)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return sweep_html(self)


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
    each row is what `evaluate` gives at that k. Times are measured for each k on a few queries, past any score cache.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`; its first stage must take `k` when
            invoked, or give as many candidates by itself.
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
    check_judged(queries, qrels)
    _check_numbers("ks", ks)
    _check_numbers("top_ns", top_ns)
    check_measures([measure])
    widest = max(ks)
    (measure,) = with_depth([measure], widest)
    reranker = reranker_of(retriever).model_copy(update={"top_n": None})
    model = reranker.cross_encoder
    # What scores pairs by the others they come with has to score them anew for each k.
    remembering = reranker
    if model.scores_pairs_alone:
        remembering = reranker.model_copy(update={"model": CachedCrossEncoder(model)})
    timed = reranker.model_copy(update={"model": model.inner if isinstance(model, CachedCrossEncoder) else model})
    before: dict[str, list[str]] = {}
    after: dict[int, dict[str, list[str]]] = {k: {} for k in sorted(set(ks))}
    seconds: dict[int, list[float]] = {k: [] for k in after}
    degraded = 0
    for number, query_id in enumerate(with_progress(list(qrels), show_progress, "Sweeping")):
        query = queries[query_id]
        candidates = _fetch(retriever.base_retriever, query, widest)
        before[query_id] = ids = [document_id(document, id_key) for document in candidates]
        whole = remembering.compress_documents(candidates, query)
        failed = any(document.metadata.get(RERANKED) is False for document in whole)
        degraded += failed
        for k, orders in after.items():
            if failed:
                orders[query_id] = unique(ids[:k])
                continue
            reranked = remembering.compress_documents(candidates[:k], query) if k < len(candidates) else whole
            orders[query_id] = unique([ids[document.metadata[INITIAL_RANK] - 1] for document in reranked])
        if number < timed_queries:
            _time_each(timed, candidates, query, seconds)
    rows = []
    for k, orders in after.items():
        best = {
            key: sorted(unique(ids[:k]), key=lambda name, grades=qrels[key]: -grades.get(name, 0))  # type: ignore[misc]
            for key, ids in before.items()
        }
        milliseconds = [value * 1000 for value in seconds[k]]
        p50 = statistics.median(milliseconds) if milliseconds else 0.0
        rows.append(
            SweepRow(k, _mean(measure, qrels, orders), _mean(measure, qrels, best), p50, percentile(milliseconds, 95))
        )
    return SweepResult(
        rows=rows,
        measure=measure,
        baseline=_mean(measure, qrels, {key: unique(ids) for key, ids in before.items()}),
        top_n_recall={n: _mean(f"R@{n}", qrels, after[widest]) for n in sorted(set(top_ns))},
        model=model.name,
        degraded=degraded,
    )


def _check_numbers(name: str, numbers: Sequence[int]) -> None:
    whole = isinstance(numbers, Sequence) and all(type(number) is int and number >= 1 for number in numbers)
    if not whole or not numbers:
        raise InvalidInputError(f"{name} is {numbers!r}; pass at least one positive number, all of them whole.")


def _fetch(first_stage: RetrieverLike, query: str, k: int) -> list[Document]:
    # Retrievers take k, or ignore it; an arbitrary Runnable may do neither.
    found = first_stage.invoke(query, k=k) if isinstance(first_stage, BaseRetriever) else first_stage.invoke(query)
    return list(found)[:k]


def _time_each(
    reranker: CrossEncoderReranker, candidates: Sequence[Any], query: str, seconds: Mapping[int, list[float]]
) -> None:
    for k, spent in seconds.items():
        started = time.perf_counter()
        reranker.compress_documents(candidates[:k], query)
        spent.append(time.perf_counter() - started)


def _mean(measure: str, qrels: Qrels, ranked: Mapping[str, Sequence[str]]) -> float:
    return statistics.fmean(measure_per_query([measure], qrels, as_run(ranked))[measure].values())
