"""Where the milliseconds of a query go, stage by stage, and how the rerank grows with the candidates."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.runnables import Runnable

from langchain_crossrerank.checks import check_query
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.comparison import reranker_of
from langchain_crossrerank.evaluation.display import plot_profile, profile_html, profile_text
from langchain_crossrerank.evaluation.evaluating import percentile

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageTimes:
    """One stage's times.

    Attributes:
        name: `"search"` (embedding and search), `"tokenise"`, `"forward"`, `"select"` (sorting, copying, callbacks, a
            cache's look-ups) or `"answer"`.
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

    The model is loaded, and one query is run, before the clock starts. A cached cross-encoder is timed as it is: what
    its cache knows takes no time in the model.

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
        InvalidInputError: If there are no queries, one is blank, a number is not positive, or the retriever has no
            reranker.
        CrossRerankError: What the model raises, whatever the reranker's `on_error`.
    """
    if not queries or not isinstance(queries, Sequence) or isinstance(queries, str):
        raise InvalidInputError(f"queries is {queries!r}; pass a list of at least one query.")
    for number, query in enumerate(queries):
        check_query(query, what=f"queries[{number}]")
    if repeats < 1:
        raise InvalidInputError(f"repeats is {repeats}; pass at least 1.")
    if any(k < 1 for k in ks):
        raise InvalidInputError(f"ks is {ks!r}; pass positive numbers.")
    reranker = reranker_of(retriever)
    model, clock = _with_clock(reranker.cross_encoder)
    reranker = reranker.model_copy(update={"model": model, "on_error": "raise"})
    reranker.compress_documents(list(retriever.base_retriever.invoke(queries[0])), queries[0])
    samples: dict[str, list[float]] = {name: [] for name in ("search", "tokenise", "forward", "select")}
    growth: dict[int, list[float]] = {}
    for query in [query for _ in range(repeats) for query in queries]:
        started = time.perf_counter()
        candidates = list(retriever.base_retriever.invoke(query))
        found = time.perf_counter()
        clock.reset()
        reranker.compress_documents(candidates, query)
        whole = time.perf_counter() - found
        samples["search"].append(found - started)
        samples["tokenise"].append(clock.tokenise)
        samples["forward"].append(clock.forward)
        samples["select"].append(max(0.0, whole - clock.tokenise - clock.forward))
        pairs = reranker.text_pairs(query, candidates)
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


class ClockedCrossEncoder(WrapperCrossEncoder):
    """Adds up the seconds of the wrapped backend's two parts.

    Attributes:
        tokenise: Seconds spent making pairs ready since the last `reset`.
        forward: Seconds spent in forward passes since then.
    """

    def __init__(self, inner: CrossEncoder) -> None:
        super().__init__(inner)
        self.reset()

    def reset(self) -> None:
        """Start to count anew."""
        self.tokenise = self.forward = 0.0

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        encoded, seconds = _timed(lambda: self.inner._encode(text_pairs))
        self.tokenise += seconds
        return encoded

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        encoded, seconds = _timed(lambda: self.inner._encode_windows(text_pairs, overlap))
        self.tokenise += seconds
        return encoded

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        scores, seconds = _timed(lambda: self.inner._score_batch(batch))
        self.forward += seconds
        return scores


def _with_clock(model: CrossEncoder) -> tuple[CrossEncoder, ClockedCrossEncoder]:
    """Give a copy of a model's wrappers around the same backend, with a clock between."""
    if not isinstance(model, WrapperCrossEncoder):
        clock = ClockedCrossEncoder(model)
        return clock, clock
    wrapper = copy.copy(model)
    wrapper.inner, clock = _with_clock(model.inner)
    return wrapper, clock


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _answer_time(chain: Runnable[Any, Any], query: str) -> float:
    """Seconds from the moment the chain has its context to the answer's end."""
    found = time.perf_counter()
    for part in chain.stream(query):
        if "context" in part:
            found = time.perf_counter()
    return time.perf_counter() - found
