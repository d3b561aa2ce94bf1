"""Copies of every kind of model: by `deepcopy`, `pickle` and `cloudpickle`, before and after use."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

cloudpickle = pytest.importorskip("cloudpickle", reason="needs cloudpickle")

PAIRS = [("how does lora work", f"passage {number} about lora") for number in range(5)]


class Length(BaseCrossEncoder):
    """A cross-encoder of another package."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score by the passage's length."""
        return [float(len(passage)) for _, passage in text_pairs]


KINDS: dict[str, Callable[[Path], CrossEncoder]] = {
    "onnx": lambda folder: load_cross_encoder("bundled"),
    "fake": lambda folder: FakeCrossEncoder(),
    "scripted": lambda folder: ScriptedCrossEncoder({PAIRS[0][1]: 1.0}),
    "of another package": lambda folder: as_cross_encoder(Length()),
    "cached in memory": lambda folder: CachedCrossEncoder(FakeCrossEncoder()),
    "cached in a file": lambda folder: CachedCrossEncoder(FakeCrossEncoder(), folder / "scores.db"),
    "windowed": lambda folder: WindowedCrossEncoder(load_cross_encoder("bundled"), overlap=9),
    "cascade": lambda folder: CascadeCrossEncoder(FakeCrossEncoder(), FakeCrossEncoder(), keep=2),
    "cached windows": lambda folder: CachedCrossEncoder(WindowedCrossEncoder(load_cross_encoder("bundled"))),
    "cascade of a cache": lambda folder: CascadeCrossEncoder(
        FakeCrossEncoder(), CachedCrossEncoder(FakeCrossEncoder(), folder / "scores.db"), keep=2
    ),
}

WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_scores_like_the_original(kind: str, way: str, tmp_path: Path) -> None:
    """A copy made before or after use has the settings and the scores of the original, which goes on working."""
    model = KINDS[kind](tmp_path)
    copies = [WAYS[way](model)]
    expected = model.score(PAIRS)
    assert await model.ascore(PAIRS) == expected
    copies.append(WAYS[way](model))
    for twin in copies:
        assert type(twin) is type(model)
        assert twin.score(PAIRS) == pytest.approx(expected, abs=1e-6)
        assert await twin.ascore(PAIRS) == pytest.approx(expected, abs=1e-6)
        assert repr(twin) == repr(model)
    assert model.score(PAIRS) == pytest.approx(expected, abs=1e-6)
    for used in (model, *copies):
        for cache in (getattr(part, "cache", None) for part in (used, getattr(used, "inner", None))):
            if hasattr(cache, "close"):
                cache.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_copy_is_the_model_itself(kind: str, tmp_path: Path) -> None:
    """Models never change and may be huge, so copies share them."""
    model = KINDS[kind](tmp_path)
    assert copy.deepcopy(model) is model
    assert copy.deepcopy({"nested": [model]})["nested"][0] is model
