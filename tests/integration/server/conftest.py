"""Fixtures of the server's tests: a server with the bundled model, and servers with fake models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from threading import Event

import httpx
import pytest

pytest.importorskip("starlette", reason="needs the server extra")
pytest.importorskip("uvicorn", reason="needs the server extra")
pytest.importorskip("prometheus_client", reason="needs the server extra")

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.server import models
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.running_server import RunningServer, local_config, running

QUERY = "What is LoRA?"
TEXTS = [
    "The ferry leaves the harbour at nine.",
    "LoRA adds small trainable matrices to a frozen model.",
    "",
    "A tokenizer splits text into pieces. 🙂 שלום",
    "LoRA is short for low-rank adaptation of large language models. " * 40,
]


class GatedCrossEncoder(FakeCrossEncoder):
    """A fake model that waits in each forward pass until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__(max_batch_tokens=64)
        self.gate = Event()
        self.began = Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if any(item.text_pair[0] != "a query" for item in batch):
            self.began.set()
            assert self.gate.wait(60)
        if any("broken" in item.text_pair[1] for item in batch):
            raise ValueError("the model broke")
        return super()._score_batch(batch)


@pytest.fixture(scope="session")
def server(own_cache: object) -> Iterator[RunningServer]:
    """A server with the bundled model under two names."""
    with running(local_config("bundled", "again=bundled")) as found:
        yield found


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of that server."""
    with server.client() as found:
        yield found


Serve = Callable[..., AbstractContextManager[RunningServer]]


@pytest.fixture(scope="session")
def fake_client(own_cache: object) -> Iterator[httpx.Client]:
    """A client of a server with a fake model that stays the same for all tests."""
    patch = pytest.MonkeyPatch()
    with _serving(patch, FakeCrossEncoder()) as server, server.client() as client:
        # The model is loaded, and other servers load their own.
        patch.undo()
        yield client


@pytest.fixture
def serve_fake(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Runs a server with a given cross-encoder, or with a future of one."""
    return partial(_serving, monkeypatch)


def _serving(
    patch: pytest.MonkeyPatch, encoder: CrossEncoder | Future[CrossEncoder], **settings: object
) -> AbstractContextManager[RunningServer]:
    future: Future[CrossEncoder]
    if isinstance(encoder, Future):
        future = encoder
    else:
        future = Future()
        future.set_result(encoder)
    patch.setattr(models, "model_future", lambda _: future)
    return running(local_config("fake=bundled", **settings), wait=not isinstance(encoder, Future))
