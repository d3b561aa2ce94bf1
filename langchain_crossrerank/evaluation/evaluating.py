"""Measures many queries with judgements: quality before and after, with an interval, a verdict and latency."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from langchain_crossrerank.evaluation.checkpoints import Checkpoint
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
from langchain_crossrerank.evaluation.query_runs import KEEP_ALL, Fetched, QueryRun, fetch, find_reranker, run_query
from langchain_crossrerank.evaluation.results import EvaluationResult, MeasureResult
from langchain_crossrerank.evaluation.results.lists import LISTED, QueryLists
from langchain_crossrerank.evaluation.significance import paired_difference
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

    All candidates are reranked, whatever the reranker's `top_n` and `drop_duplicates`, so that measures beyond `top_n`
    mean something, and a judged document is not lost because an unjudged one has the same text. A judged query without
    results scores 0 and is not dropped; one without a relevant document is left out, as `trec_eval` does.

    What makes the figures doubtful is in the result's `warnings`.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`.
        queries: Query text by query id.
        qrels: Grades by query id and document id; only judged queries are run.
        measures: Names of `ir-measures`; `"R@k"` stands for recall at the number of candidates, the ceiling that the
            first stage sets. The first measure decides the verdict.
        id_key: Metadata key of a document's id in the judgements; `None` is `Document.id`, or metadata `_id`.
        checkpoint: A file to keep finished queries in, so that a long run that was stopped can continue. It knows
            the model, the settings and each query's candidates, and is refused if one of them has changed.
        run_key: Everything that decides what the first stage finds, for example a digest of the index. With it, a
            continued run trusts the checkpoint of the same key; without it, finished queries are searched again, but
            not reranked, to see that their candidates are the same.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        Means, differences with intervals, a verdict, latency, and every query's values.

    Raises:
        InvalidInputError: If nothing is judged relevant, a judged query has no text, a measure is unknown, a document
            has no id, or the checkpoint belongs to another run.
        MissingExtraError: If the `eval` extra is not installed.
    """
    check_extra("eval", needed_for="evaluate")
    judged = check_judged(queries, qrels)
    qrels = with_relevant(judged)
    check_measures(measures)
    reranker = find_reranker(retriever).model_copy(update=KEEP_ALL)
    model = reranker.cross_encoder
    run_key = run_key or getattr(getattr(retriever, "base_retriever", None), "run_key", "")
    kept = Checkpoint(checkpoint, _identity(retriever, reranker, id_key, run_key))
    doubts = Doubts(qrels)
    runs: dict[str, QueryRun] = {}
    passages: dict[str, str] = {}
    for query_id in with_progress(list(qrels), show_progress, "Evaluating"):
        query, finished = queries[query_id], kept.run_of(query_id, queries[query_id])
        if finished is not None and run_key:
            # The key says that the first stage is the same.
            runs[query_id] = finished
            continue
        fetched = fetch(retriever, query, id_key)
        doubts.see(query_id, fetched)
        if finished is not None:
            kept.check_candidates(query_id, finished, fetched.digest(reranker, query))
            runs[query_id] = finished
        else:
            runs[query_id] = run_query(fetched, reranker, query, query_id, qrels[query_id])
            kept.add(query_id, query, runs[query_id])
        passages.update(_top_passages(fetched, runs[query_id]))
    result = summarise(runs, queries, qrels, measures, model.name)
    return replace(result, warnings=doubts.warnings(runs), left_out=len(judged) - len(qrels), passages=passages)


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
        truncated=sum(run.truncated for run in runs.values()),
        retrieve_ms={key: run.retrieve_ms for key, run in runs.items()},
        rerank_ms={key: run.rerank_ms for key, run in runs.items()},
        texts={key: queries[key] for key in qrels},
        lists={
            key: QueryLists(run.before, run.after, [name for name, grade in qrels[key].items() if grade > 0])
            for key, run in runs.items()
        },
    )


def _top_passages(fetched: Fetched, run: QueryRun) -> dict[str, str]:
    """The texts of the documents at the top of both lists, by id; of several chunks of one document, the first."""
    shown = {*run.before[:LISTED], *run.after[:LISTED]}
    pairs = zip(reversed(fetched.ids), reversed(fetched.documents), strict=True)
    return {name: document.page_content for name, document in pairs if name in shown}


def _measure_result(
    name: str, per_query: dict[str, tuple[float, float]], ceiling: Mapping[str, float]
) -> MeasureResult:
    before, after = [pair[0] for pair in per_query.values()], [pair[1] for pair in per_query.values()]
    difference = paired_difference(before, after)
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
    base = getattr(retriever, "base_retriever", None)
    first_stage = [type(base).__name__, *(getattr(stage, "search_kwargs", None) for stage in (base, retriever))]
    first_stage += [getattr(retriever, "search_type", None), getattr(retriever, "k", None)]
    return f"{reranker.cross_encoder.fingerprint}|{settings}|{first_stage}|{id_key}|{run_key}"
