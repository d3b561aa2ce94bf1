"""Reranks that wait for a model to load: for how long, what they get, and when a failed load is tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.loading import await_model, load_cross_encoder, model_future, wait_for_model
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.settings import ModelSettings, check_settings
from langchain_crossrerank.errors import ModelNotFoundError, RerankTimeoutError
from tests.unit.cross_encoders.loading.stubs import THREADS, MakeFolder, Stub


class Hub:
    """A hub that does not answer until the test lets it, and then fails or leads to a folder."""

    def __init__(self, folder: Path) -> None:
        self.source = ModelSource("some/model", folder)
        self.asked = 0
        self.reached, self.opened = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def find_source(self, *args: Any, **kwargs: Any) -> ModelSource:
        self.asked += 1
        self.reached.set()
        assert self.opened.wait(30), "nobody let the hub answer"
        if self.error is not None:
            raise self.error
        return self.source


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, onnx_stub: type[Stub]) -> Iterator[Hub]:
    """A hub instead of the real one, open at the end so that no thread outlives its test."""
    hub = Hub(BUNDLED_FOLDER)
    monkeypatch.setattr(loading, "find_source", hub.find_source)
    yield hub
    hub.opened.set()


Wait = Callable[..., Any]


def _wait(settings: ModelSettings, **arguments: Any) -> Any:
    return wait_for_model(settings, **arguments)


def _await(settings: ModelSettings, **arguments: Any) -> Any:
    return asyncio.run(await_model(settings, **arguments))


@pytest.fixture(params=[_wait, _await], ids=["sync", "async"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """Both ways to wait for a model, behind one signature."""
    way: Wait = request.param
    return way


def test_waiting_gives_the_shared_model(hub: Hub, wait: Wait) -> None:
    """Whoever waits gets the copy that `load_cross_encoder` gives."""
    hub.opened.set()
    assert wait(check_settings("some/model"), timeout=30) is load_cross_encoder("some/model")
    assert hub.asked == 1


def test_a_load_that_hangs_holds_up_nobody_beyond_the_timeout(hub: Hub, wait: Wait) -> None:
    """The caller is told that the model is still loading; the load goes on, and later callers get the model."""
    with pytest.raises(RerankTimeoutError, match=r"'some/model' has been loading for .*timeout=0\.05"):
        wait(check_settings("some/model"), timeout=0.05)
    hub.opened.set()
    assert wait(check_settings("some/model"), timeout=None).backend == "onnx"
    assert hub.asked == 1


def test_a_load_that_ends_at_the_timeout_returns_its_model(
    hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops waiting at the moment when the model is there gets the model."""
    settings = check_settings("some/model")
    hub.opened.set()
    model = model_future(settings).result(30)
    outcome, seen_too_early = loading._Load.outcome, [Future[Any]()]
    monkeypatch.setattr(
        loading._Load, "outcome", lambda load: seen_too_early.pop() if seen_too_early else outcome(load)
    )
    assert wait(settings, timeout=0.001) is model


def test_while_a_load_hangs_only_its_first_callers_wait(hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit counts from the beginning of the load: an hour later nobody waits an hour again."""
    settings = check_settings("some/model")
    model_future(settings)
    assert hub.reached.wait(30)
    now = time.monotonic()
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: now + 3600.0))
    with pytest.raises(RerankTimeoutError):
        wait(settings, timeout=3599.0)
    assert hub.asked == 1


def test_a_load_that_fails_fails_once_for_all_who_wait(hub: Hub) -> None:
    """Many callers of one failing load share it, and each gets an error of its own."""
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(wait_for_model, settings) for _ in range(THREADS)]
        assert hub.reached.wait(30)
        hub.opened.set()
        errors = [each.exception(30) for each in waiting]
    assert [str(err) for err in errors] == ["gone"] * THREADS
    assert hub.asked == 1


def test_a_load_that_failed_is_not_tried_again_at_once(hub: Hub, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerank soon after gets the same error with the seconds that are left; when they are over it tries again."""
    hub.opened.set()
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    for _ in range(3):
        with pytest.raises(ModelNotFoundError, match="gone") as raised:
            wait(settings)
        assert raised.value.retry_after == loading.RETRY_SECONDS
    clock.now += 20.0
    with pytest.raises(ModelNotFoundError) as raised:
        wait(settings)
    assert raised.value.retry_after == loading.RETRY_SECONDS - 20.0
    assert hub.asked == 1
    clock.now += 20.0
    hub.error = None
    assert wait(settings).backend == "onnx"
    assert hub.asked == 2


def test_an_explicit_call_tries_again_at_once(hub: Hub, wait: Wait) -> None:
    """Who calls `load_cross_encoder` wants an answer now; a rerank afterwards has the model."""
    hub.opened.set()
    hub.error = ModelNotFoundError("gone")
    settings = check_settings("some/model")
    with pytest.raises(ModelNotFoundError):
        wait(settings)
    hub.error = None
    assert load_cross_encoder("some/model") is wait(settings)
    assert hub.asked == 2


def test_a_missing_folder_is_tried_again_at_once(
    wait: Wait, make_folder: MakeFolder, onnx_stub: type[Stub], tmp_path: Path
) -> None:
    """What fails quickly on this machine costs nothing to try, so that a folder put there counts at once."""
    settings = check_settings(tmp_path / "model")
    with pytest.raises(ModelNotFoundError):
        wait(settings)
    assert make_folder() == tmp_path / "model"
    assert wait(settings).backend == "onnx"


def test_a_load_of_the_parent_does_not_bind_a_forked_child(hub: Hub) -> None:
    """A child that was forked during a load does not wait for a thread that it does not have."""
    settings = check_settings("some/model")
    future = model_future(settings)
    assert hub.reached.wait(30)
    with loading._LOADS as loads:
        (load,) = loads.values()
    load._mark._fork -= 1
    assert model_future(settings) is not future


async def test_cancelling_one_caller_leaves_the_load_to_the_others(hub: Hub) -> None:
    """A task that gives up does not take the model from those who wait with it."""
    settings = check_settings("some/model")
    first, second = (asyncio.ensure_future(await_model(settings)) for _ in range(2))
    assert await asyncio.to_thread(hub.reached.wait, 30)
    first.cancel()
    hub.opened.set()
    assert (await second).backend == "onnx"
    assert first.cancelled()
