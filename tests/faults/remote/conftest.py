"""Fixtures of the tests against a rerank server: the server, models of it, and both ways to use them."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote import answers as remote_answers
from langchain_crossrerank.cross_encoders.backends.remote import exchange as remote_exchange
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from tests.faults.remote.rerank_server import (
    NO_CERTIFICATES,
    NOW,
    WATCHDOG,
    Connect,
    Rerank,
    Score,
    Server,
    rerank_async,
    rerank_now,
    score_async,
    score_now,
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy or key from the environment, and no certificates, because reading them takes longer than a test."""
    monkeypatch.setattr(ssl, "create_default_context", lambda **settings: NO_CERTIFICATES)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "CROSSRERANK_API_KEY":
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for the test."""
    server = Server()
    yield server
    server.close()
    assert server.errors == []


@pytest.fixture
def other_server() -> Iterator[Server]:
    """A second server, at another address."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the remote backend in seconds, recorded and skipped."""
    seen: list[float] = []

    async def asleep(seconds: float) -> None:
        seen.append(seconds)

    monkeypatch.setattr(remote_exchange, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": asleep}))
    monkeypatch.setattr(remote_answers, "time", SimpleNamespace(time=lambda: NOW))
    return seen


@pytest.fixture
def connect(server: Server, pauses: list[float]) -> Iterator[Connect]:
    """Make models of the server that are closed at the end."""
    made: list[RemoteCrossEncoder] = []

    def connect(url: str | None = None, **settings: Any) -> RemoteCrossEncoder:
        made.append(RemoteCrossEncoder(url or server.url, **{"timeout": WATCHDOG, "max_retries": 2, **settings}))
        return made[-1]

    yield connect
    for model in made:
        model.close()


@pytest.fixture(params=[score_now, score_async], ids=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, behind one signature."""
    way: Score = request.param
    return way


@pytest.fixture(params=["documents", "texts"])
def shape(request: pytest.FixtureRequest) -> Any:
    """Both shapes of a request."""
    return request.param


@pytest.fixture(params=[rerank_now, rerank_async], ids=["sync", "async"])
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Both ways to rerank, behind one signature."""
    way: Rerank = request.param
    return way
