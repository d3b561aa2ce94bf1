"""Holding queries out, and measuring a model on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.data import TrainingExample

validation = pytest.importorskip("langchain_crossrerank.training.validation", reason="needs the training extra")


def test_examples_of_one_unit_are_held_out_together() -> None:
    """The title of an example decides alone, so that no text is trained on and validated on."""
    first, second = (TrainingExample(query, ("p",), source="s", unit="Heron") for query in ("a", "b"))
    sides = {validation.is_held_out(first, share / 10) for share in range(11)}
    assert sides == {True, False}
    for share in range(11):
        assert validation.is_held_out(first, share / 10) == validation.is_held_out(second, share / 10)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_both_parts_need_queries(share: float, mine_herons: Callable[..., Any]) -> None:
    """If no query is left to train or to validate on, the error names the fraction."""
    with pytest.raises(InvalidInputError, match=f"held_out={share}"):
        validation.hold_out({"": mine_herons()}, share=share, max_examples=10)


def test_ndcg_is_the_mean_of_the_sources(mine_herons: Callable[..., Any]) -> None:
    """A positive in second place has nDCG 1 / log2(3); positives that BM25 missed count as missed."""
    (found,) = mine_herons().examples
    missed = replace(found, positives=(0, 99))
    held_out = validation.HeldOut({"a": [found], "b": [missed]}, {})
    second = {place: -float(rank) for rank, place in enumerate((1, 0, 2))}
    first = {place: -float(rank) for rank, place in enumerate((0, 1, 2))}
    mean, by_source = held_out.ndcg({"a": [second], "b": [first]})
    assert by_source["a"] == pytest.approx(1 / math.log2(3), abs=1e-5)
    assert by_source["b"] == pytest.approx(1 / (1 + 1 / math.log2(3)), abs=1e-5)
    assert mean == pytest.approx(sum(by_source.values()) / 2)
