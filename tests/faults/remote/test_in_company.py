"""The remote cross-encoder within caches, rerankers, timeouts and tasks."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.cross_encoders.backends.remote.exchange import Exchange
from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import RemoteError, RerankTimeoutError, ScoringError
from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    ECHOES,
    EXPECTED,
    KEY,
    PAIRS,
    SHORT,
    WATCHDOG,
    Connect,
    Rerank,
    Score,
    Server,
    answer,
    break_off,
    but,
    candidates,
    fails,
    plain,
    relevance,
    rerank_now,
    shows_key,
    stall,
)


def test_a_url_is_enough_to_load_a_model(server: Server, score: Score, tally: Tally) -> None:
    """`load_cross_encoder` gives a remote model for a URL, and it works."""
    tally("loading by URL")
    model = load_cross_encoder(server.url)
    assert isinstance(model, RemoteCrossEncoder)
    assert "backend='remote'" in repr(model)
    assert score(model) == EXPECTED
    model.close()


def test_a_cache_asks_the_server_only_for_what_is_missing(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Cached scores are not requested again, even if the server is gone."""
    tally("a cache")
    cached = CachedCrossEncoder(connect())
    new = [("lora", "epsilon"), ("lora", "delta")]
    assert score(cached) == EXPECTED
    assert score(cached, [*PAIRS, *new]) == [*EXPECTED, *(relevance(*pair) for pair in new)]
    server.always(plain(b""))
    assert score(cached, new) == [relevance(*pair) for pair in new]
    assert [sorted(request.passages) for request in server.requests] == [
        sorted(passage for _, passage in PAIRS),
        ["delta", "epsilon"],
    ]


def test_a_failed_call_leaves_nothing_in_a_cache(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """An unusable answer is not cached."""
    tally("a cache")
    cached = CachedCrossEncoder(connect())
    server.script(answer(but(1, score=None)))
    fails(score, cached)
    assert score(cached) == EXPECTED


FAILURES = {
    "an error": ECHOES["in an error"],
    "a busy server": ECHOES["in a busy error"],
    "a bad answer": ECHOES["as a result"],
    "a broken connection": break_off,
    "a garbled compression": answer(b"?", content_encoding="gzip"),
    "a deep answer": answer(b"[" * 200_000),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failing_server_keeps_the_first_stages_order_where_asked(
    what: str, server: Server, connect: Connect, rerank: Rerank, tally: Tally
) -> None:
    """The first candidates are returned in order, marked, with a reason that does not contain the key."""
    tally(f"order kept after {what}")
    server.always(FAILURES[what])
    reranker = CrossEncoderReranker(model=connect(api_key=KEY), top_n=3, on_error="keep_order")
    result = rerank(reranker, candidates())
    assert [document.id for document in result] == ["d0", "d1", "d2"]
    for document in result:
        assert document.metadata["reranked"] is False
        assert document.metadata["rerank_error"].startswith("RemoteError: ")
        assert not shows_key(repr(document))


def test_a_working_server_reranks(server: Server, connect: Connect, rerank: Rerank, tally: Tally) -> None:
    """The documents with the server's best scores are returned."""
    tally("a server that works")
    result = rerank(CrossEncoderReranker(model=connect(), top_n=2), candidates())
    best = sorted((relevance("lora", document.page_content) for document in candidates()), reverse=True)
    assert [document.metadata["relevance_score"] for document in result] == best[:2]


class Watched(RemoteCrossEncoder):
    """A model that signals the end of its work, however it ends."""

    ended: threading.Event

    def score_steps(self, text_pairs: Any) -> ScoreSteps:
        """Score, and signal the end of the work."""
        try:
            return (yield from super().score_steps(text_pairs))
        finally:
            self.ended.set()


def test_the_timeout_of_a_rerank_stops_a_stalling_server(server: Server, tally: Tally) -> None:
    """The caller is told in time, the work ends at once, and of twenty requests only those under way were sent."""
    tally("a rerank with a timeout")
    model = Watched(server.url, max_documents=1, timeout=WATCHDOG)
    model.ended = threading.Event()
    server.always(stall)
    with pytest.raises(RerankTimeoutError):
        rerank_now(CrossEncoderReranker(model=model, timeout=SHORT), candidates(20))
    # The server is still stalling.
    assert model.ended.wait(WATCHDOG)
    assert len(server.requests) <= 8
    server.released.set()
    model.close()


async def test_the_timeout_of_an_asynchronous_rerank_stops_its_requests(
    server: Server, connect: Connect, tally: Tally
) -> None:
    """Of twenty requests only those under way were sent, and the model goes on working."""
    tally("a rerank with a timeout")
    model = connect(max_documents=1)
    server.always(stall)
    with pytest.raises(RerankTimeoutError):
        await CrossEncoderReranker(model=model, timeout=SHORT).acompress_documents(candidates(20), "lora")
    under_way = len(server.requests)
    assert under_way <= 8
    server.released.set()
    assert await model.ascore(PAIRS[:1]) == EXPECTED[:1]
    assert len(server.requests) <= 8 + 1
    await model.aclose()


async def test_cancelling_the_task_stops_further_requests(server: Server, connect: Connect, tally: Tally) -> None:
    """Eight of twenty requests are under way; no other one is sent, and the model goes on working."""
    tally("a cancelled task")
    model = connect(max_documents=1)
    server.always(stall)
    task = asyncio.create_task(model.ascore([("lora", f"passage {place}") for place in range(20)]))
    assert await asyncio.to_thread(server.wait_for, 8)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.released.set()
    assert await model.ascore(PAIRS[:1]) == EXPECTED[:1]
    assert len(server.requests) == 8 + 1
    await model.aclose()


async def test_one_failing_request_stops_the_others(server: Server, connect: Connect, tally: Tally) -> None:
    """When the error is raised, nothing of the call is under way any more."""
    tally("a failure among many requests")
    model = connect(max_documents=1)
    server.replies = itertools.chain([stall] * 7, [answer({}, 400)], itertools.repeat(stall))
    with pytest.raises(RemoteError, match="answered 400"):
        await model.ascore([("lora", f"passage {place}") for place in range(20)])
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()
    assert len(server.requests) <= 8 + 1
    await model.aclose()


def test_an_unforeseen_error_is_one_of_this_package(
    connect: Connect, score: Score, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Whatever the HTTP library raises comes out as a `ScoringError` with its cause."""
    tally("an unforeseen error")

    def fail(*args: Any) -> None:
        raise RuntimeError("out of sorts")

    monkeypatch.setattr(Exchange, "_read", fail)
    with pytest.raises(ScoringError, match="out of sorts") as caught:
        score(connect())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.positions == (0, 1, 2)
