"""Drawing the groups of a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError

sampling = pytest.importorskip("langchain_crossrerank.training.sampling", reason="needs the training extra")


@pytest.fixture
def sampler(mine_herons: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes a sampler of groups of one query on herons."""

    def sampler(**options: Any) -> Any:
        return sampling.GroupSampler(
            {"": mine_herons()}, {"": 1.0}, **{"negatives": 3, "window_sizes": (0,), **options}
        )

    return sampler


def test_groups_depend_on_position_and_seed_alone(sampler: Callable[..., Any], passages: list[str]) -> None:
    """The same position has the same group, another seed another; the positive comes first, no passage twice."""
    groups = [sampler().group(position) for position in range(30)]
    assert groups == [sampler().group(position) for position in range(30)]
    assert groups != [sampler(seed=1).group(position) for position in range(30)]
    assert len({str(group) for group in groups}) > 1
    for group in groups:
        texts = [passage for _, passage in group]
        assert texts[0] == passages[0]
        assert len(set(texts)) == len(texts) == 4


def test_a_group_is_full_even_if_passages_are_few(sampler: Callable[..., Any]) -> None:
    """A source with fewer passages than a group needs repeats negatives, and never takes a positive for one."""
    for position in range(20):
        (_, positive), *negatives = sampler(negatives=12).group(position)
        assert len(negatives) == 12
        assert positive not in [passage for _, passage in negatives]


def test_what_mining_rejected_is_never_a_negative(mine_herons: Callable[..., Any]) -> None:
    """A near-copy of the positive and a passage with the answer are not drawn at random either."""
    mined = mine_herons(answers=("dawn",))
    rejected = {mined.passages[place] for place in mined.examples[0].rejected}
    assert len(rejected) == 2
    sampler = sampling.GroupSampler({"": mined}, {"": 1.0}, negatives=5, window_sizes=(0,))
    for position in range(20):
        assert rejected.isdisjoint(passage for _, passage in sampler.group(position))


def test_source_weights_are_checked(mine_herons: Callable[..., Any]) -> None:
    """Weights name known sources and are not all 0; by default they are the square root of the number of queries."""
    mined = {"a": mine_herons(), "b": mine_herons()}
    assert sampling.check_source_weights(None, mined) == {"a": 1.0, "b": 1.0}
    assert sampling.check_source_weights({"a": 2}, mined) == {"a": 2.0}
    with pytest.raises(InvalidInputError, match=r"source_weights names \['c'\]"):
        sampling.check_source_weights({"c": 1}, mined)
    with pytest.raises(InvalidInputError, match="one must be above 0"):
        sampling.check_source_weights({"a": 0}, mined)
