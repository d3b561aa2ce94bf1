"""Servers that answer slowly or never: a request ends on time, and its connection with it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import pytest

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import OverloadedError, RerankTimeoutError
from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    EXPECTED,
    PAIRS,
    SHORT,
    WATCHDOG,
    Connect,
    Handler,
    Reply,
    Score,
    Server,
    answer,
    candidates,
    fails,
    stall,
)

DRIP = 0.01
"""Seconds between two bytes of a server that never stops: far less than any time limit."""


def drip(handler: Handler, piece: bytes) -> None:
    """Send a piece again and again until the client hangs up, and say so."""
    try:
        while not handler.server.released.wait(DRIP):
            handler.wfile.write(piece)
    except OSError:
        handler.server.hung_up.set()
    handler.close_connection = True


def drip_body(handler: Handler) -> None:
    """Begin an answer and send white space for ever."""
    handler.begin(content_length="100000000")
    drip(handler, b" ")


def drip_chunks(handler: Handler) -> None:
    """The same in chunks."""
    handler.begin(transfer_encoding="chunked")
    drip(handler, b"1\r\n \r\n")


def drip_head(handler: Handler) -> None:
    """Never finish a header."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(handler, b"x")


def drip_promises(handler: Handler) -> None:
    """Promise an answer for ever."""
    drip(handler, b"HTTP/1.1 100 Continue\r\n\r\n")


SLOW: dict[str, Reply] = {
    "in the body": drip_body,
    "in chunks": drip_chunks,
    "in the head": drip_head,
    "in promises": drip_promises,
}


@pytest.mark.parametrize("where", SLOW)
def test_a_server_that_drips_is_given_up_on_time(
    where: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """A byte now and then does not prolong the time limit, and the connection is closed when it is over."""
    tally(f"a server that drips {where}")
    server.always(SLOW[where])
    error = fails(score, connect(timeout=3 * SHORT))
    assert "did not answer within" in str(error)
    assert error.status_code is None
    assert server.hung_up.wait(WATCHDOG)


@pytest.mark.parametrize("reply", [answer({}, 503), answer({}, 503, retry_after="20")], ids=["backoff", "asked for"])
def test_no_pause_outlives_the_time_limit(
    reply: Reply, server: Server, connect: Connect, score: Score, pauses: list[float], tally: Tally
) -> None:
    """A pause that would end after the time limit is not begun; the server's own words are the error."""
    tally("a pause beyond the time limit")
    server.always(reply)
    assert fails(score, connect(timeout=0.3, max_retries=5)).status_code == 503
    assert len(server.requests) == 1
    assert pauses == []


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_fifty_abandoned_reranks_do_not_starve_a_healthy_one(
    asynchronous: bool, server: Server, connect: Connect, tally: Tally
) -> None:
    """Each abandoned rerank frees its thread and its connection at once, although the server still stalls."""
    tally("abandoned reranks", 50)
    model = connect()
    impatient = CrossEncoderReranker(model=model, timeout=SHORT)
    server.replies = itertools.chain([stall] * 50)

    def abandon() -> None:
        # Some are refused before their turn, because it would come too late.
        with pytest.raises((RerankTimeoutError, OverloadedError)):
            impatient.compress_documents(candidates(2), "lora")

    async def abandon_all() -> None:
        results = await asyncio.gather(
            *(impatient.acompress_documents(candidates(2), "lora") for _ in range(50)), return_exceptions=True
        )
        assert {type(result) for result in results} <= {RerankTimeoutError, OverloadedError}

    if asynchronous:
        asyncio.run(abandon_all())
    else:
        threads = [threading.Thread(target=abandon) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    server.replies = iter(())
    result = CrossEncoderReranker(model=model, timeout=WATCHDOG).compress_documents(candidates(3), "lora")
    assert all("relevance_score" in document.metadata for document in result)
    assert not server.released.is_set()


async def test_a_deadline_of_the_caller_ends_the_requests(server: Server, connect: Connect, tally: Tally) -> None:
    """A deadline given for all requests of a call holds below the time limit of each."""
    tally("a deadline of the caller")
    server.always(drip_body)
    with pytest.raises(RerankTimeoutError, match="did not score 3 pairs within"):
        await connect().ascore_pairs(PAIRS, deadline=time.monotonic() + SHORT)
    assert await asyncio.to_thread(server.hung_up.wait, WATCHDOG)


def test_an_interrupted_call_ends_its_requests(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Ctrl-C while waiting closes the connection, and the model goes on working."""
    tally("an interrupted call")
    from langchain_crossrerank.cross_encoders.backends.remote import client

    class Interrupted:
        """A future whose waiting is interrupted as soon as the request is there."""

        def __init__(self, work: Any) -> None:
            self.work = work

        def result(self) -> Any:
            assert server.wait_for(1)
            raise KeyboardInterrupt

        def cancel(self) -> bool:
            cancelled: bool = self.work.cancel()
            return cancelled

    model = connect()
    server.script(drip_body)
    run = client.run_on_loop
    with monkeypatch.context() as patch:
        patch.setattr(client, "run_on_loop", lambda work: Interrupted(run(work)))
        with pytest.raises(KeyboardInterrupt):
            model.score(PAIRS)
    assert server.hung_up.wait(WATCHDOG)
    assert model.score(PAIRS) == EXPECTED
