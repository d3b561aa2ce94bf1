"""Batches of rows are scored whatever an engine makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring import BatchScorer
from langchain_crossrerank.testing import FakeCrossEncoder

QUERIES = ["the cat", "the dog", "the cat"]
PASSAGES = ["a dog", "a dog", "the cat"]
LISTS = [["a dog", "the cat"], [], ["the cow"]]
SCORES = FakeCrossEncoder().score(list(zip(QUERIES, PASSAGES, strict=True)))
LISTS_OF_SCORES = [
    FakeCrossEncoder().score([(query, passage) for passage in passages])
    for query, passages in zip(QUERIES, LISTS, strict=True)
]


def make_batch(kind: str, columns: dict[str, list[Any]]) -> Any:
    """Put columns into the batch of an engine."""
    if kind == "numpy":
        arrays = {name: np.empty(len(values), object) for name, values in columns.items()}
        for name, values in columns.items():
            arrays[name][:] = [np.array(value, object) if isinstance(value, list) else value for value in values]
        return arrays
    library = pytest.importorskip("pandas" if kind == "pandas" else "pyarrow", reason="needs the parquet extra")
    return library.DataFrame(columns) if kind == "pandas" else library.table(columns)


def column_of(batch: Any, name: str) -> list[Any]:
    """Return a column as plain values."""
    values = batch[name]
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_a_batch_gets_a_column_of_scores(kind: str) -> None:
    """The batch that comes back is of the kind that was given, with a score for each row, and is a new one."""
    batch = make_batch(kind, {"query": QUERIES, "text": PASSAGES})
    scored = BatchScorer(FakeCrossEncoder())(batch)
    assert type(scored) is type(batch)
    assert column_of(scored, "score") == SCORES
    assert column_of(scored, "text") == PASSAGES
    assert "score" not in (batch.column_names if kind == "pyarrow" else batch)


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_a_batch_with_candidates_gets_lists_of_scores(kind: str) -> None:
    """Rows with lists get lists of the same length, in the same order."""
    scored = BatchScorer(FakeCrossEncoder())(make_batch(kind, {"query": QUERIES, "candidates": LISTS}))
    assert [list(scores) for scores in column_of(scored, "scores")] == LISTS_OF_SCORES


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_an_empty_batch_stays_empty(kind: str) -> None:
    """Engines call with batches without rows to learn the columns."""
    scored = BatchScorer(FakeCrossEncoder())(make_batch(kind, {"query": [], "text": []}))
    assert column_of(scored, "score") == []


def test_columns_can_be_named() -> None:
    """A scorer takes the same names as `score_file`."""
    scorer = BatchScorer(FakeCrossEncoder(), query_column="a", passage_column="b", score_column="c")
    assert list(scorer({"a": QUERIES, "b": PASSAGES})["c"]) == SCORES


def test_the_bundled_model_is_loaded_by_its_name() -> None:
    """A name and its settings are passed on to `load_cross_encoder`."""
    assert BatchScorer("bundled", max_length=64).model.max_length == 64


def test_a_model_is_loaded_from_a_path() -> None:
    """A folder may be a `Path`, here as in `load_cross_encoder`."""
    assert BatchScorer(BUNDLED_FOLDER).model is load_cross_encoder(BUNDLED_FOLDER)


def test_a_batch_of_another_kind_is_refused() -> None:
    """What is no table is named with its type."""
    with pytest.raises(InvalidInputError, match="of type list; pass a dictionary of columns"):
        BatchScorer(FakeCrossEncoder())([1, 2])
