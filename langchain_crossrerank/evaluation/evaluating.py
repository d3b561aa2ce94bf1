"""Many queries with judgements: quality before and after reranking, with an interval, a verdict and latency."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.collection import Qrels
from langchain_crossrerank.evaluation.comparison import reranker_of
from langchain_crossrerank.evaluation.display import evaluation_html, evaluation_text, plot_evaluation
from langchain_crossrerank.evaluation.significance import (
    check_measures,
    measure_per_query,
    paired_bootstrap,
    with_depth,
)
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.metadata import INITIAL_RANK, RERANKED
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@k")


@dataclass(frozen=True)
class MeasureResult:
    """One measure before and after reranking.

    Attributes:
        name: As `ir-measures` spells it.
        before: Mean of the first stage.
        after: Mean after reranking.
        ceiling: Mean that the best possible order of the same candidates would reach; no reranker can pass it.
        difference: Mean of after minus before.
        low: Lower end of the difference's 95 % interval (paired bootstrap).
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
        """`"helped"`, `"hurt"` or `"not distinguishable"`, by whether the interval leaves out zero."""
        if self.low > 0:
            return "helped"
        return "hurt" if self.high < 0 else "not distinguishable"


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found.

    Attributes:
        measures: One entry a measure; the verdict is that of the first.
        queries: Judged queries.
        empty: Judged queries for which the first stage found nothing; they count as 0.
        degraded: Queries whose rerank failed and kept the first stage's order.
        k: Candidates of the first stage, at most.
        model: The cross-encoder's name.
        retrieve_ms: Milliseconds of the first stage, by query.
        rerank_ms: Milliseconds of the rerank, by query.
        texts: Query text by query id.
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

    @property
    def verdict(self) -> str:
        """In words: whether reranking helped by the first measure, by how much, and how sure that is."""
        first = self.measures[0]
        words = {
            "helped": "Reranking helped",
            "hurt": "Reranking hurt",
            "not distinguishable": "Reranking made no difference that these queries can tell from chance",
        }[first.verdict]
        return (
            f"{words}: {first.name} {first.before:.3f} -> {first.after:.3f} "
            f"({first.difference:+.3f}, 95 % interval {first.low:+.3f} to {first.high:+.3f}, "
            f"p = {first.p_value:.2g}, {self.queries} queries)."
        )

    def extremes(self, most: int = 5) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Give the queries that gained and those that lost most by the first measure, with their differences."""
        moved = [(key, after - before) for key, (before, after) in self.measures[0].per_query.items()]
        moved.sort(key=lambda entry: entry[1])
        return [e for e in moved[::-1] if e[1] > 0][:most], [e for e in moved if e[1] < 0][:most]

    def latency_ms(self) -> dict[str, float]:
        """Give the median and 95th percentile of both stages, in milliseconds."""
        stages = {"retrieve": list(self.retrieve_ms.values()), "rerank": list(self.rerank_ms.values())}
        return {
            f"{stage}_{name}": percentile(values, share)
            for stage, values in stages.items()
            for name, share in (("p50", 50), ("p95", 95))
        }

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict, "latency_ms": self.latency_ms()}

    def to_text(self) -> str:
        """Lay the result out for a terminal."""
        return evaluation_text(self)

    def plot(self) -> Any:
        """Draw each query's difference, largest gain first, as a matplotlib figure; needs the `eval` extra."""
        return plot_evaluation(self)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return evaluation_html(self)


@dataclass
class QueryRun:
    """What both stages gave for one query: document ids in order, and the milliseconds."""

    before: list[str]
    after: list[str]
    retrieve_ms: float
    rerank_ms: float
    degraded: bool = False


def evaluate(
    retriever: ContextualCompressionRetriever,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    id_key: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
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
        checkpoint: A file to keep finished queries in, so that a long run that was stopped goes on from there.
        show_progress: Whether to show a progress bar on standard error.

    Returns:
        Means, differences with intervals, a verdict, latency, and every query's values.

    Raises:
        InvalidInputError: If nothing is judged, a judged query has no text, a measure is unknown, a document has no id,
            or the checkpoint belongs to another run.
        MissingExtraError: If the `eval` extra is not installed.
    """
    from langchain_crossrerank.extras import check_extra

    check_extra("eval", needed_for="evaluate")
    check_judged(queries, qrels)
    check_measures(measures)
    reranker = reranker_of(retriever)
    everything = reranker.model_copy(update={"top_n": None})
    model = everything.cross_encoder
    settings = everything.model_dump(exclude={"model"})
    first_stage = (type(retriever.base_retriever).__name__, getattr(retriever.base_retriever, "search_kwargs", None))
    kept = _Checkpoint(checkpoint, f"{model.fingerprint}|{settings}|{first_stage}|{id_key}")
    runs = {key: run for key in qrels if (run := kept.run_of(key, queries[key])) is not None}
    for query_id in with_progress([key for key in qrels if key not in runs], show_progress, "Evaluating"):
        runs[query_id] = run_query(retriever, everything, queries[query_id], id_key)
        kept.add(query_id, queries[query_id], runs[query_id])
    runs = {query_id: runs[query_id] for query_id in qrels}
    return summarise(runs, queries, qrels, measures, model.name)


def run_query(
    retriever: ContextualCompressionRetriever, reranker: CrossEncoderReranker, query: str, id_key: str | None
) -> QueryRun:
    """Run both stages for one query and time them."""
    started = time.perf_counter()
    candidates = list(retriever.base_retriever.invoke(query))
    found = time.perf_counter()
    reranked = reranker.compress_documents(candidates, query) if candidates else []
    finished = time.perf_counter()
    ids = [document_id(document, id_key) for document in candidates]
    return QueryRun(
        before=unique(ids),
        after=unique([ids[document.metadata[INITIAL_RANK] - 1] for document in reranked]),
        retrieve_ms=(found - started) * 1000,
        rerank_ms=(finished - found) * 1000,
        degraded=any(document.metadata.get(RERANKED) is False for document in reranked),
    )


def summarise(
    runs: Mapping[str, QueryRun], queries: Mapping[str, str], qrels: Qrels, measures: Sequence[str], model: str
) -> EvaluationResult:
    """Measure finished runs; see `evaluate`."""
    k = max((len(run.before) for run in runs.values()), default=0)
    names = with_depth(measures, max(1, k))
    before = measure_per_query(names, qrels, as_run({key: run.before for key, run in runs.items()}))
    after = measure_per_query(names, qrels, as_run({key: run.after for key, run in runs.items()}))
    best = {
        key: sorted(run.before, key=lambda document, grades=qrels[key]: -grades.get(document, 0))  # type: ignore[misc]
        for key, run in runs.items()
    }
    ceiling = measure_per_query(names, qrels, as_run(best))
    results = []
    for name in names:
        pairs = {key: (before[name][key], after[name][key]) for key in qrels}
        firsts, seconds = [pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()]
        difference = paired_bootstrap(firsts, seconds)
        results.append(
            MeasureResult(
                name=name,
                before=statistics.fmean(firsts),
                after=statistics.fmean(seconds),
                ceiling=statistics.fmean(ceiling[name].values()),
                difference=difference.mean,
                low=difference.low,
                high=difference.high,
                p_value=difference.p_value,
                per_query=pairs,
            )
        )
    return EvaluationResult(
        measures=results,
        queries=len(qrels),
        empty=sum(not run.before for run in runs.values()),
        degraded=sum(run.degraded for run in runs.values()),
        k=k,
        model=model,
        retrieve_ms={key: run.retrieve_ms for key, run in runs.items()},
        rerank_ms={key: run.rerank_ms for key, run in runs.items()},
        texts={key: queries[key] for key in qrels},
    )


def check_judged(queries: Mapping[str, str], qrels: Qrels) -> None:
    """Raise unless something is judged, in the form that measures need, and every judged query has a text.

    Raises:
        InvalidInputError: Naming what is missing.
    """
    if not qrels:
        raise InvalidInputError("qrels is empty; without judgements there is nothing to measure against.")
    for key, grades in qrels.items():
        whole = isinstance(grades, Mapping) and all(
            isinstance(name, str) and isinstance(grade, int) for name, grade in grades.items()
        )
        if not isinstance(key, str) or not whole:
            raise InvalidInputError(
                f"qrels[{key!r}] is {shorten(grades)}; pass query ids to document ids to whole grades, ids as text."
            )
    unknown = [key for key in qrels if key not in queries]
    if unknown:
        raise InvalidInputError(f"qrels judges queries that have no text: {unknown[:5]}; add them to queries.")


def document_id(document: Document, id_key: str | None) -> str:
    """Give the id by which judgements name a document.

    Raises:
        InvalidInputError: If it has none.
    """
    value = document.metadata.get(id_key) if id_key is not None else document.id or document.metadata.get("_id")
    if value is None:
        raise InvalidInputError(
            f"a candidate has no id to match judgements with ({document.page_content[:60]!r}); set Document.id when "
            "indexing, or name the metadata key with id_key=."
        )
    return str(value)


def unique(ids: Iterable[str]) -> list[str]:
    """Keep the first of equal ids: chunks of one judged document count once."""
    return list(dict.fromkeys(ids))


def as_run(ranked: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Turn ranked lists into scores that fall by one, so that evaluation tools keep exactly this order."""
    return {key: {document: float(-place) for place, document in enumerate(ids)} for key, ids in ranked.items()}


def percentile(values: Sequence[float], share: int) -> float:
    """Give a percentile of values by linear interpolation; 0.0 of none."""
    import numpy as np

    return float(np.percentile(values, share)) if values else 0.0


def with_progress(items: Sequence[str], show: bool, title: str) -> Iterable[str]:
    """Show a progress bar on standard error while items are taken."""
    if not show:
        return items
    from tqdm.auto import tqdm

    bar: Iterable[str] = tqdm(items, desc=title, unit="query", leave=False)
    return bar


class _Checkpoint:
    """Finished queries in a file, one JSON line each after a line that says which run they belong to."""

    def __init__(self, path: str | os.PathLike[str] | None, settings: str) -> None:
        self.path = Path(path) if path is not None else None
        self._finished: dict[tuple[str, str], QueryRun] = {}
        if self.path is None:
            return
        head = json.dumps({"run": hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}) + "\n"
        try:
            content = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except UnicodeDecodeError as err:
            raise InvalidInputError(f"{str(self.path)!r} is no checkpoint of evaluate; name another file.") from err
        if '{"run": "'.startswith(content) or (not content.endswith("\n") and head.startswith(content)):
            # Not begun, or stopped before the first line was whole.
            write_whole(self.path, head)
            return
        first, _, rest = content.partition("\n")
        self._check_head(first, head)
        *lines, unfinished = rest.split("\n")
        for number, line in enumerate(lines, start=2):
            self._read(line, number)
        if unfinished:
            # It was being written when the run was stopped.
            write_whole(self.path, content[: -len(unfinished)])

    def run_of(self, query_id: str, query: str) -> QueryRun | None:
        """Give what a finished query found, if its text is still the same."""
        return self._finished.get((query_id, query))

    def add(self, query_id: str, query: str, run: QueryRun) -> None:
        """Note a finished query."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"query_id": query_id, "query": query, **asdict(run)}) + "\n")

    def _check_head(self, first: str, head: str) -> None:
        try:
            is_checkpoint = set(json.loads(first)) == {"run"}
        except (ValueError, TypeError):
            is_checkpoint = False
        if not is_checkpoint:
            raise InvalidInputError(f"{str(self.path)!r} is no checkpoint of evaluate; name another file.")
        if first + "\n" != head:
            raise InvalidInputError(
                f"the checkpoint {str(self.path)!r} belongs to another model, retriever or setting; "
                "delete it or name another file."
            )

    def _read(self, line: str, number: int) -> None:
        try:
            row = json.loads(line)
            key = (row.pop("query_id"), row.pop("query"))
            self._finished[key] = QueryRun(**row)
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise InvalidInputError(
                f"the checkpoint {str(self.path)!r} is damaged in line {number} ({line[:60]!r}); "
                "delete that line, or the file to begin anew."
            ) from err
