"""The way to a server: its proxy, its client, and the one loop that all models send their requests on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote import transport
from langchain_crossrerank.errors import ScoringError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, Connect, Serve


@pytest.mark.parametrize("proxy", ["ftp://proxy.example", "http://[broken"])
def test_a_proxy_that_cannot_be_used_is_an_error_of_this_package(
    proxy: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the environment comes out as a `ScoringError`, sync and async."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    model = connect("https://rerank.example/rerank")
    with pytest.raises(ScoringError):
        model.score(PAIRS)
    with pytest.raises(ScoringError):
        asyncio.run(model.ascore(PAIRS))


async def test_opening_a_client_does_not_block_the_event_loop(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the certificates are read before the first request, the loop goes on."""
    loop_went_on = threading.Event()

    def open_client(open_client: Callable[[], Any] = transport._open_client) -> Any:
        assert loop_went_on.wait(30)
        return open_client()

    monkeypatch.setattr(transport, "_open_client", open_client)
    calls = [asyncio.ensure_future(connect(serve().url).ascore(PAIRS)) for _ in range(2)]
    await asyncio.sleep(0)
    loop_went_on.set()
    assert await asyncio.gather(*calls) == [[0.75, 0.5, 0.25]] * 2


async def test_a_synchronous_call_inside_an_event_loop_works(serve: Serve, connect: Connect) -> None:
    """Whoever blocks a loop of his own does not block the one that the requests run on."""
    model = connect(serve().url)
    assert model.score(PAIRS) == await model.ascore(PAIRS) == [0.75, 0.5, 0.25]


def test_bodies_are_made_beside_the_loop(serve: Serve, connect: Connect) -> None:
    """All models share the loop that sends requests, so a large body may not hold it up."""
    server = serve()
    threads: list[str] = []

    def make(query: str, passages: list[str]) -> Any:
        threads.append(threading.current_thread().name)
        return {"query": query, "documents": passages}

    connect(f"{server.url}/rerank", make_request=make).score(PAIRS)
    assert threads
    assert "crossrerank-http" not in threads
