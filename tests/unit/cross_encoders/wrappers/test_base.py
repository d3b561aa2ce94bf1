"""A wrapper that overrides nothing: the wrapped model's attributes, scores and marks, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from langchain_crossrerank import CrossEncoder, WrapperCrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.cached import CacheCounts, CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.pooled import PooledCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import FakeCrossEncoder

PAIRS = [
    ("What is LoRA?", "The ferry leaves at nine. " * 60 + "LoRA trains two small matrices."),
    ("What is LoRA?", "LoRA trains two small matrices."),
    ("What is LoRA?", "The weather is nice."),
    ("why " * 100, "LoRA is short for low-rank adaptation."),
]


def bundled() -> CrossEncoder:
    """The bundled model, reading few tokens."""
    return load_cross_encoder("bundled", max_length=64)


MODELS: dict[str, Callable[[], CrossEncoder]] = {
    "plain": bundled,
    "windows": lambda: WindowedCrossEncoder(bundled()),
    "cache": lambda: CachedCrossEncoder(WindowedCrossEncoder(bundled())),
    "cascade": lambda: CascadeCrossEncoder(FakeCrossEncoder(), bundled(), keep=2),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layers", [1, 2])
def test_scores_and_marks_are_those_of_the_wrapped_model(kind: str, layers: int) -> None:
    """Windows, marks of what was ruled out or cut, and scores come through any number of plain wrappers."""
    wrapped = MODELS[kind]()
    for _ in range(layers):
        wrapped = WrapperCrossEncoder(wrapped)
    expected = drain(MODELS[kind]().score_steps(PAIRS))
    found = drain(wrapped.score_steps(PAIRS))
    assert found == expected


def test_a_cache_inside_is_used() -> None:
    """A second call finds what the first one left in the cache."""
    cached = CachedCrossEncoder(FakeCrossEncoder())
    wrapper = WrapperCrossEncoder(cached)
    assert wrapper.score(PAIRS) == wrapper.score(PAIRS)
    assert cached.counts == CacheCounts(hits=len(PAIRS), misses=len(PAIRS))


def test_every_attribute_is_that_of_the_wrapped_model() -> None:
    """Whatever the contract has as an attribute, a wrapper has the wrapped model's value of it."""
    logged_once = {"_warned_truncated", "_warned_query_truncated"}
    inner = FakeCrossEncoder()
    kinds = (bool, int, str, type(None))
    named = {
        name for name, value in vars(CrossEncoder).items() if isinstance(value, kinds) and not name.startswith("__")
    }
    for name in named.union(CrossEncoder.__annotations__) - logged_once:
        value = object()
        vars(inner)[name] = value
        assert getattr(WrapperCrossEncoder(inner), name) is value, name


class Counting(WrapperCrossEncoder):
    """A wrapper that notes what is scored."""

    def __init__(self, inner: CrossEncoder) -> None:
        super().__init__(inner)
        self.seen: list[TextPair] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.seen += [item.text_pair for item in batch]
        return super()._score_batch(batch)


@pytest.mark.parametrize("outer", [WindowedCrossEncoder, PooledCrossEncoder, CachedCrossEncoder, WrapperCrossEncoder])
def test_a_part_that_a_wrapper_overrides_is_called(outer: Callable[[CrossEncoder], CrossEncoder]) -> None:
    """The package's wrappers around one with a part of its own call that part."""
    counting = Counting(bundled())
    outer(counting).submit(PAIRS[1:3]).result(30)
    assert sorted(counting.seen) == sorted(PAIRS[1:3])


@pytest.mark.parametrize("outer", [WindowedCrossEncoder, PooledCrossEncoder])
def test_a_wrapper_around_a_cache_is_not_bypassed(outer: Callable[[CrossEncoder], CrossEncoder]) -> None:
    """What refuses a cache refuses a plain wrapper around one, too."""
    with pytest.raises(InvalidInputError):
        outer(WrapperCrossEncoder(CachedCrossEncoder(FakeCrossEncoder())))
