"""Where the milliseconds of a query go, stage by stage, and how the rerank grows with the candidates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from langchain_crossrerank.cross_encoders.base import CrossEncoder, TextPair, plan_batches
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.compare import reranker_of
from langchain_crossrerank.evaluation.evaluate import percentile
from langchain_crossrerank.evaluation.show import plot_profile, profile_html, profile_text

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever


@dataclass(frozen=True)
class StageTimes:
    """One stage's times.

    Attributes:
        name: `"search"` (embedding and search), `"tokenise"`, `"forward"`, `"select"` (sorting, copying, callbacks) or
            `"answer"`.
        p50_ms: Median milliseconds a query.
        p95_ms: 95th percentile.
        share: Of the sum of all medians, 0 to 1.
    """

    name: str
    p50_ms: float
    p95_ms: float
    share: float


@dataclass(frozen=True)
class ProfileResult:
    """What `profile` found.

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
        """Give everything as plain data, ready for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Lay the profile out for a terminal."""
        return profile_text(self)

    def plot(self) -> Any:
        """Draw the stages as a stacked bar, a matplotlib figure; needs the `eval` extra."""
        return plot_profile(self)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return profile_html(self)


def profile(
    retriever: ContextualCompressionRetriever,
    queries: Sequence[str],
    *,
    repeats: int = 3,
    chain: Runnable[Any, Any] | None = None,
    ks: Sequence[int] = (5, 10, 20, 50),
) -> ProfileResult:
    """Time each stage of a reranking retriever, and of a RAG chain around it.

    The model is loaded, and one query is run, before the clock starts.

    Args:
        retriever: A `ContextualCompressionRetriever` with a `CrossEncoderReranker`.
        queries: What to search for.
        repeats: How often to run each query.
        chain: A chain made by `create_rag_chain` over the same retriever; its time after the context is the stage
            `"answer"`.
        ks: Numbers of candidates for which the rerank is timed as well, as far as there are so many.

    Returns:
        Milliseconds a stage, and the rerank's growth.

    Raises:
        InvalidInputError: If there are no queries, `repeats` is not positive, or the retriever has no reranker.
    """
    if not queries or isinstance(queries, str):
        raise InvalidInputError(f"queries is {queries!r}; pass a list of at least one query.")
    if repeats < 1:
        raise InvalidInputError(f"repeats is {repeats}; pass at least 1.")
    reranker = reranker_of(retriever)
    model = reranker.cross_encoder
    retriever.invoke(queries[0])
    samples: dict[str, list[float]] = {name: [] for name in ("search", "tokenise", "forward", "select")}
    growth: dict[int, list[float]] = {}
    for query in [query for _ in range(repeats) for query in queries]:
        started = time.perf_counter()
        candidates = list(retriever.base_retriever.invoke(query))
        samples["search"].append(time.perf_counter() - started)
        pairs = reranker.text_pairs(query, candidates)
        tokenise, forward = _model_times(model, pairs)
        started = time.perf_counter()
        reranker.compress_documents(candidates, query)
        whole = time.perf_counter() - started
        samples["tokenise"].append(tokenise)
        samples["forward"].append(forward)
        samples["select"].append(max(0.0, whole - tokenise - forward))
        for k in sorted({k for k in ks if k <= len(pairs)}):
            started = time.perf_counter()
            model.score(pairs[:k])
            growth.setdefault(k, []).append(time.perf_counter() - started)
        if chain is not None:
            samples.setdefault("answer", []).append(_answer_time(chain, query))
    medians = {name: statistics.median(values) * 1000 for name, values in samples.items()}
    total = sum(medians.values()) or 1.0
    return ProfileResult(
        stages=[
            StageTimes(name, medians[name], percentile(values, 95) * 1000, medians[name] / total)
            for name, values in samples.items()
        ],
        by_k={k: statistics.median(values) * 1000 for k, values in growth.items()},
        queries=len(queries),
        repeats=repeats,
        model=model.name,
    )


def _model_times(model: CrossEncoder, pairs: list[TextPair]) -> tuple[float, float]:
    """Seconds of the model's two parts, as its own `score_steps` does them."""
    unique = list(dict.fromkeys(pairs))
    started = time.perf_counter()
    encoded = model._encode(unique)
    between = time.perf_counter()
    for batch in plan_batches(encoded, model.max_batch_tokens, model.max_batch_pairs):
        model._score_batch(batch)
    return between - started, time.perf_counter() - between


def _answer_time(chain: Runnable[Any, Any], query: str) -> float:
    """Seconds from the moment the chain has its context to the answer's end."""
    found = time.perf_counter()
    for part in chain.stream(query):
        if "context" in part:
            found = time.perf_counter()
    return time.perf_counter() - found
