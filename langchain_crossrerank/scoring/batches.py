"""Scores batches of rows for engines that call a function on each batch: Ray Data, Spark, pandas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL, load_cross_encoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring.columns import Columns

Batch = TypeVar("Batch")


class BatchScorer:
    """A callable that adds a column of scores to a batch of rows.

    The model is loaded once, when the object is made: make one in each worker process. Within a batch, pairs are
    grouped by length for the model, so batches of a thousand rows are faster than batches of ten.

    Args:
        model: A model, or what `load_cross_encoder` takes.
        query_column: Column of the queries; `None` finds it by its name: query, question.
        passage_column: Column of the passages; `None` finds it by its name: passage, text, document, content.
        candidates_column: Column of lists of passages; `None` finds it by its name: candidates, passages, documents.
        score_column: The new column; `None` for `"score"`, or `"scores"` with candidates.
        worker_threads: Cores that a worker has: `num_threads` for the models that support it.
        **loading: Arguments of `load_cross_encoder`; `num_threads` wins over `worker_threads`.
    """

    def __init__(
        self,
        model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        query_column: str | None = None,
        passage_column: str | None = None,
        candidates_column: str | None = None,
        score_column: str | None = None,
        worker_threads: int | None = None,
        **loading: Any,
    ) -> None:
        self.model = (
            _load(model, worker_threads, loading) if isinstance(model, str | os.PathLike) else as_cross_encoder(model)
        )
        self._chosen = {
            "query": query_column,
            "passage": passage_column,
            "candidates": candidates_column,
            "score": score_column,
        }

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with one more column.

        Args:
            batch: A dictionary of columns, a pandas `DataFrame`, or a pyarrow `Table`.

        Raises:
            InvalidInputError: If the batch is something else, or its columns cannot be used; see `Columns.choose`.
            ScoringError: If the model fails.
        """
        names, values = _columns(batch)
        columns = Columns.choose(names, "the batch", **self._chosen)
        rows = zip(values(columns.query), values(columns.texts), strict=True)
        pairs = [
            columns.text_pairs({columns.query: query, columns.texts: texts}, f"row {number} of the batch")
            for number, (query, texts) in enumerate(rows)
        ]
        scores = iter(self.model.score([pair for row in pairs for pair in row]))
        if columns.is_list:
            scored: Batch = _with_column(batch, columns.score, [[next(scores) for _ in row] for row in pairs])
        else:
            scored = _with_column(batch, columns.score, np.fromiter(scores, np.float64))
        return scored


def _load(model: str | os.PathLike[str], threads: int | None, loading: Mapping[str, Any]) -> CrossEncoder:
    if threads is not None and "num_threads" not in loading:
        # Torch models and servers do not support it, and which model is one of torch shows when it is loaded.
        with suppress(InvalidInputError):
            return load_cross_encoder(model, **loading, num_threads=threads)
    return load_cross_encoder(model, **loading)


def _columns(batch: Any) -> tuple[list[str], Any]:
    """Return the names of a batch's columns, and a function that returns the values of one."""
    if isinstance(batch, Mapping):
        return list(batch), lambda name: list(batch[name])
    if hasattr(batch, "assign"):
        return [str(name) for name in batch.columns], lambda name: list(batch[name])
    if hasattr(batch, "append_column"):
        return list(batch.column_names), lambda name: batch.column(name).to_pylist()
    raise InvalidInputError(
        f"the batch is {shorten(batch)} of type {type(batch).__name__}; pass a dictionary of columns, a pandas "
        "DataFrame or a pyarrow Table."
    )


def _with_column(batch: Any, name: str, column: list[list[float]] | np.ndarray[Any, Any]) -> Any:
    if isinstance(batch, Mapping):
        return {**batch, name: column}
    if hasattr(batch, "assign"):
        return batch.assign(**{name: column})
    import pyarrow

    kind = pyarrow.list_(pyarrow.float64()) if isinstance(column, list) else pyarrow.float64()
    return batch.append_column(name, pyarrow.array(column, kind))
