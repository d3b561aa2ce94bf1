"""The model of a reranker: loaded by name, exchanged, copied, and never in the way of the event loop."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.cross_encoders.settings import ModelSettings
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.unit.reranker.calls import Rerank, StockCrossEncoder, make, of, texts

GIVE_UP = 10.0
"""Seconds after which a thread that should have been released fails the test instead of hanging the run."""


class HeldCrossEncoder(FakeCrossEncoder):
    """A model whose forward pass lasts until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.release = threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.started.set()
        if not self.release.wait(GIVE_UP):
            raise TimeoutError("nobody let the model go: the event loop was blocked")
        return super()._score_batch(batch)


def test_a_model_by_name_is_loaded_once_and_at_the_first_use(
    rerank: Rerank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Construction loads nothing; the first rerank loads with the given settings, later ones use that copy."""
    loads: list[tuple[Any, ...]] = []

    def load(settings: ModelSettings) -> CrossEncoder:
        loads.append((settings.model, settings.backend, settings.max_length))
        return FakeCrossEncoder()

    monkeypatch.setattr(loading, "_load", load)
    reranker = CrossEncoderReranker(model=tmp_path, backend="onnx", model_kwargs={"max_length": 64})
    assert loads == []
    for _ in range(2):
        assert len(rerank(reranker, of("a", "b"))) == 2
    assert loads == [(str(tmp_path), "onnx", 64)]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model_kwargs": {"max_lenght": 256}}, "'max_lenght'.*'max_length'"),
        ({"model_kwargs": {"automodel_args": {}}}, "automodel_args"),
        ({"model_kwargs": {"max_length": 0}}, "max_length is 0"),
        ({"model_kwargs": {"device": "gpu"}}, "device is 'gpu'"),
        ({"backend": "torch"}, "bundled model"),
    ],
)
def test_wrong_model_settings_raise_at_construction(settings: dict[str, Any], named: str) -> None:
    """A mistake is reported when it is made, whatever `on_error` says, and not served as degraded results."""
    for on_error in ("raise", "keep_order"):
        with pytest.raises(InvalidInputError, match=named):
            CrossEncoderReranker(model="bundled", on_error=on_error, **settings)
    reranker = CrossEncoderReranker(model="bundled")
    ((name, value),) = settings.items()
    with pytest.raises(InvalidInputError, match=named):
        setattr(reranker, name, value)
    assert reranker == CrossEncoderReranker(model="bundled")


@pytest.mark.parametrize("error", [InvalidInputError("no such precision"), MissingExtraError("no torch")])
def test_a_mistake_that_loading_finds_raises(
    rerank: Rerank, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that only the model's files show to be wrong, and a missing extra, are not degraded to."""

    def load(settings: ModelSettings) -> CrossEncoder:
        raise error

    monkeypatch.setattr(loading, "_load", load)
    with pytest.raises(type(error)):
        rerank(CrossEncoderReranker(model=tmp_path, on_error="keep_order"), of("a"))


def test_settings_may_be_read_before_the_model_exists(tmp_path: Path) -> None:
    """A reranker for a missing model can be made and shown; only using it raises, as no such folder."""
    reranker = CrossEncoderReranker(model=str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in repr(reranker)
    with pytest.raises(OSError, match="nowhere"):
        reranker.invoke({"query": "q", "documents": of("a")})


@pytest.mark.parametrize("change", ["copy", "assignment"])
def test_another_model_takes_effect(change: str) -> None:
    """A reranker whose model was exchanged after use scores with the new one."""
    reranker = make({"a": 1.0})
    assert texts(reranker.invoke({"query": "q", "documents": of("a", "b")})) == ["a", "b"]
    other = ScriptedCrossEncoder({"b": 1.0})
    if change == "copy":
        reranker = reranker.model_copy(update={"model": other})
    else:
        reranker.model = other
    assert texts(reranker.invoke({"query": "q", "documents": of("a", "b")})) == ["b", "a"]


async def test_a_slow_model_does_not_block_the_event_loop() -> None:
    """While the model works, the loop goes on; here it is the loop that lets the model finish."""
    model = HeldCrossEncoder()
    task = asyncio.create_task(CrossEncoderReranker(model=model).ainvoke({"query": "q", "documents": of("a")}))
    assert await asyncio.to_thread(model.started.wait, GIVE_UP)
    assert not task.done()
    model.release.set()
    assert texts(await task) == ["a"]


async def test_loading_a_model_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the model loads for the first rerank, the loop goes on and lets it finish."""
    started, release = threading.Event(), threading.Event()

    def load(settings: ModelSettings) -> CrossEncoder:
        started.set()
        if not release.wait(GIVE_UP):
            raise TimeoutError("nobody let the load go: the event loop was blocked")
        return FakeCrossEncoder()

    monkeypatch.setattr(loading, "_load", load)
    reranker = CrossEncoderReranker(model="slow-to-load")
    task = asyncio.create_task(reranker.ainvoke({"query": "q", "documents": of("a")}))
    assert await asyncio.to_thread(started.wait, GIVE_UP)
    assert not task.done()
    release.set()
    assert texts(await task) == ["a"]


async def test_blending_does_not_wait_for_the_model_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asynchronous rerank uses the model that it has, and never asks for it in a way that may block the loop."""
    monkeypatch.setattr(loading, "_load", lambda settings: FakeCrossEncoder())
    monkeypatch.setattr("langchain_crossrerank.reranker.wait_for_model", lambda *_, **__: pytest.fail("waited"))
    reranker = CrossEncoderReranker(model=tmp_path, blend="weighted")
    assert len(await reranker.ainvoke({"query": "q", "documents": of("a", "b")})) == 2


@pytest.mark.parametrize("how", ["deepcopy", "model_copy", "pickle"])
def test_a_copy_works_and_shares_the_model(how: str) -> None:
    """A deep copy shares the model object; a pickled reranker with a model by name loads it again."""
    model = StockCrossEncoder()
    model.lock = threading.Lock()  # type: ignore[attr-defined]  # what a real model holds
    reranker = CrossEncoderReranker(model="bundled" if how == "pickle" else model, top_n=1)
    value: Any = {"query": "ferry", "documents": of("a ferry", "a bee")}
    before = reranker.invoke(value)
    if how == "pickle":
        copied = pickle.loads(pickle.dumps(reranker))
    else:
        copied = copy.deepcopy(reranker) if how == "deepcopy" else reranker.model_copy(deep=True)
        assert copied.model is model
    assert copied.invoke(value) == before


def test_warm_up_loads_and_scores_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `warm_up` the model is loaded and has done a forward pass, before any query."""
    model = FakeCrossEncoder()
    monkeypatch.setattr(loading, "_load", lambda settings: model)
    reranker = CrossEncoderReranker(model=tmp_path)
    reranker.warm_up()
    assert len(model.batches) == 1
    assert reranker.cross_encoder is model
