"""Measures many queries with judgements: quality before and after, with an interval, a verdict and latency."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from langchain_crossrerank.evaluation.checkpoints import Checkpoint
from langchain_crossrerank.evaluation.judgements import Qrels, check_judged
from langchain_crossrerank.evaluation.measures import (
    as_run,
    best_orders,
    check_measures,
    measure_per_query,
    with_depth,
)
from langchain_crossrerank.evaluation.progress import with_progress
from langchain_crossrerank.evaluation.query_runs import QueryRun, find_reranker, run_query
from langchain_crossrerank.evaluation.results import EvaluationResult, MeasureResult
from langchain_crossrerank.evaluation.significance import paired_bootstrap
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@k")


def evaluate(
    retriever: ContextualCompressionRetriever,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    id_key: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    run_key: str = "",
    show_progress: bool = True,
) -> EvaluationResult:
    """Measure a reranking retriever against judgements, before and after the rerank.

    All candidates are reranked, whatever the reranker's `top_n`, so that measures beyond it mean something. A judged
    query without results scores 0 and is not dropped.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`.
        queries: Query text by query id.
        qrels: Grades by query id and document id; only judged queries are run.
        measures: Names of `ir-measures`; `"R@k"` stands for recall at the number of candidates, the ceiling that the
            first stage sets. The first measure decides the verdict.
        id_key: Metadata key of a document's id in the judgements; `None` is `Document.id`, or metadata `_id`.
        checkpoint: A file to keep finished queries in, so that a long run that was stopped can continue.
        run_key: What else decides what the first stage finds, for example a digest of the index; a checkpoint of
            another key is refused.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        Means, differences with intervals, a verdict, latency, and every query's values.

    Raises:
        InvalidInputError: If nothing is judged, a judged query has no text, a measure is unknown, a document has no id,
            or the checkpoint belongs to another run.
        MissingExtraError: If the `eval` extra is not installed.
    """
    check_extra("eval", needed_for="evaluate")
    qrels = check_judged(queries, qrels)
    check_measures(measures)
    reranker = find_reranker(retriever).model_copy(update={"top_n": None})
    model = reranker.cross_encoder
    kept = Checkpoint(checkpoint, _identity(retriever, reranker, id_key, run_key))
    runs = {key: run for key in qrels if (run := kept.run_of(key, queries[key])) is not None}
    for query_id in with_progress([key for key in qrels if key not in runs], show_progress, "Evaluating"):
        runs[query_id] = run_query(retriever, reranker, queries[query_id], id_key)
        kept.add(query_id, queries[query_id], runs[query_id])
    runs = {query_id: runs[query_id] for query_id in qrels}
    return summarise(runs, queries, qrels, measures, model.name)


def summarise(
    runs: Mapping[str, QueryRun], queries: Mapping[str, str], qrels: Qrels, measures: Sequence[str], model: str
) -> EvaluationResult:
    """Measure finished runs; see `evaluate`."""
    k = max((len(run.before) for run in runs.values()), default=0)
    names = with_depth(measures, max(1, k))
    first_stage = {key: run.before for key, run in runs.items()}
    before = measure_per_query(names, qrels, as_run(first_stage))
    after = measure_per_query(names, qrels, as_run({key: run.after for key, run in runs.items()}))
    ceiling = measure_per_query(names, qrels, as_run(best_orders(first_stage, qrels)))
    return EvaluationResult(
        measures=[
            _measure_result(name, {key: (before[name][key], after[name][key]) for key in qrels}, ceiling[name])
            for name in names
        ],
        queries=len(qrels),
        empty=sum(not run.before for run in runs.values()),
        degraded=sum(run.degraded for run in runs.values()),
        k=k,
        model=model,
        retrieve_ms={key: run.retrieve_ms for key, run in runs.items()},
        rerank_ms={key: run.rerank_ms for key, run in runs.items()},
        texts={key: queries[key] for key in qrels},
    )


def _measure_result(
    name: str, per_query: dict[str, tuple[float, float]], ceiling: Mapping[str, float]
) -> MeasureResult:
    before, after = [pair[0] for pair in per_query.values()], [pair[1] for pair in per_query.values()]
    difference = paired_bootstrap(before, after)
    return MeasureResult(
        name=name,
        before=statistics.fmean(before),
        after=statistics.fmean(after),
        ceiling=statistics.fmean(ceiling.values()),
        difference=difference.mean,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        per_query=per_query,
    )


def _identity(
    retriever: ContextualCompressionRetriever, reranker: CrossEncoderReranker, id_key: str | None, run_key: str
) -> str:
    """Everything that decides what a query finds, as far as it can be seen from outside."""
    settings = reranker.model_dump(exclude={"model"})
    base = retriever.base_retriever
    first_stage = [type(base).__name__, *(getattr(stage, "search_kwargs", None) for stage in (base, retriever))]
    first_stage += [getattr(retriever, "search_type", None), getattr(retriever, "k", None)]
    return f"{reranker.cross_encoder.fingerprint}|{settings}|{first_stage}|{id_key}|{run_key}"
