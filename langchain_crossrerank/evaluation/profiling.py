"""Times each stage of a query, and how the rerank grows with the candidates."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from langchain_crossrerank.checks import check_query
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.clocked import ModelClock, around_backends, with_clock
from langchain_crossrerank.evaluation.query_runs import find_reranker
from langchain_crossrerank.evaluation.results import ProfileResult, StageTimes
from langchain_crossrerank.evaluation.timing import Stopwatch, percentile
from langchain_crossrerank.evaluation.unseen import UnseenCrossEncoder
from langchain_crossrerank.retrievers import fetch_candidates

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.reranker import CrossEncoderReranker


def profile(
    retriever: ContextualCompressionRetriever,
    queries: Sequence[str],
    *,
    repeats: int = 3,
    chain: Runnable[Any, Any] | None = None,
    ks: Sequence[int] = (5, 10, 20, 50),
) -> ProfileResult:
    """Time each stage of a reranking retriever, and of a RAG chain around it.

    The model is loaded, and one query is run, before the clock starts. Each passage has a number in front, another one
    each time, so that tokens and `passage_cache` entries of earlier calls save nothing: the times are those of passages
    that were never seen. A cached cross-encoder is timed with its cache:
    cached scores take no time in the model. A cascade's two models are timed together. A model that plans its calls
    itself, such as that of a server, is timed as a whole, under `"forward"`.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`.
        queries: What to search for.
        repeats: How often to run each query.
        chain: A chain made by `create_rag_chain` over the same retriever; its time after the context is the stage
            `"answer"`.
        ks: Numbers of candidates for which the rerank is timed as well, where the first stage returns that many.

    Returns:
        Milliseconds of each stage, and the rerank's growth.

    Raises:
        InvalidInputError: If there are no queries, one is blank, a number is not positive, or the retriever has no
            reranker.
        CrossRerankError: What the model raises, whatever the reranker's `on_error`.
    """
    _check(queries, repeats, ks)
    reranker = find_reranker(retriever)
    model, clock = with_clock(around_backends(reranker.cross_encoder, UnseenCrossEncoder))
    reranker = reranker.model_copy(update={"model": model, "on_error": "raise"})
    reranker.compress_documents(fetch_candidates(retriever, queries[0]), queries[0])
    stages: dict[str, list[float]] = {name: [] for name in ("search", "tokenise", "forward", "select")}
    growth: dict[int, list[float]] = {}
    for query in [query for _ in range(repeats) for query in queries]:
        stopwatch = Stopwatch()
        candidates = fetch_candidates(retriever, query)
        stages["search"].append(stopwatch.lap_ms())
        _time_rerank(reranker, clock, query, candidates, stages)
        pairs = reranker.text_pairs(query, candidates)
        for k in sorted({k for k in ks if k <= len(pairs)}):
            stopwatch = Stopwatch()
            model.score(pairs[:k])
            growth.setdefault(k, []).append(stopwatch.lap_ms())
        if chain is not None:
            stages.setdefault("answer", []).append(_answer_ms(chain, query))
    return ProfileResult(
        stages=_stage_times(stages),
        by_k={k: statistics.median(values) for k, values in growth.items()},
        queries=len(queries),
        repeats=repeats,
        model=model.name,
    )


def _check(queries: Sequence[str], repeats: int, ks: Sequence[int]) -> None:
    if not queries or not isinstance(queries, Sequence) or isinstance(queries, str):
        raise InvalidInputError(f"queries is {queries!r}; pass a list of at least one query.")
    for number, query in enumerate(queries):
        check_query(query, what=f"queries[{number}]")
    if repeats < 1:
        raise InvalidInputError(f"repeats is {repeats}; pass at least 1.")
    if any(k < 1 for k in ks):
        raise InvalidInputError(f"ks is {ks!r}; pass positive numbers.")


def _time_rerank(
    reranker: CrossEncoderReranker,
    clock: ModelClock,
    query: str,
    candidates: Sequence[Any],
    stages: dict[str, list[float]],
) -> None:
    """Rerank once, and note how the time divides into the model's two parts and the rest."""
    clock.reset()
    stopwatch = Stopwatch()
    reranker.compress_documents(candidates, query)
    whole = stopwatch.lap_ms()
    stages["tokenise"].append(clock.tokenise_ms)
    stages["forward"].append(clock.forward_ms)
    stages["select"].append(max(0.0, whole - clock.tokenise_ms - clock.forward_ms))


def _answer_ms(chain: Runnable[Any, Any], query: str) -> float:
    """Milliseconds from the moment the chain has its context to the answer's end."""
    stopwatch = Stopwatch()
    for part in chain.stream(query):
        if "context" in part:
            stopwatch.lap_ms()
    return stopwatch.lap_ms()


def _stage_times(stages: dict[str, list[float]]) -> list[StageTimes]:
    medians = {name: statistics.median(values) for name, values in stages.items()}
    total = sum(medians.values()) or 1.0
    return [
        StageTimes(name, medians[name], percentile(values, 95), medians[name] / total)
        for name, values in stages.items()
    ]
