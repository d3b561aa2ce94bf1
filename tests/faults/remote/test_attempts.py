"""Servers that are busy, broken or gone: what is tried again, and for how long."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import itertools
import os
import socket
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    EXPECTED,
    NOW,
    PAIRS,
    SHORT,
    Connect,
    Handler,
    Reply,
    Score,
    Server,
    answer,
    break_off,
    fails,
    honest,
    plain,
    relevance,
    reset,
    stall,
    stall_in_body,
)

RETRIED = [408, 425, 429, 500, 502, 503, 504, 520, 524, 529]


@pytest.mark.parametrize("status", RETRIED)
def test_an_overloaded_server_is_asked_again(
    status: int, server: Server, connect: Connect, score: Score, shape: Any, pauses: list[float], tally: Tally
) -> None:
    """After a pause of about half a second the same request is sent again."""
    tally(f"status {status}, then recovery")
    server.script(answer({"error": "busy"}, status))
    assert score(connect(request_shape=shape)) == EXPECTED
    assert server.requests[0].body == server.requests[1].body
    (pause,) = pauses
    assert 0.375 <= pause <= 0.625


def test_the_pauses_double_up_to_the_longest_allowed(
    server: Server, connect: Connect, score: Score, pauses: list[float], tally: Tally
) -> None:
    """0.5, 1, 2 seconds with a quarter of randomness, and never more than `max_retry_wait`."""
    tally("pauses")
    server.script(*[answer({}, 503)] * 5)
    assert score(connect(max_retries=5, max_retry_wait=3)) == EXPECTED
    for pause, planned in zip(pauses, (0.5, 1, 2, 4, 8), strict=True):
        assert min(0.75 * planned, 3) <= pause <= min(1.25 * planned, 3)


WAITS = {
    "7": 7.0,
    "0": 0.0,
    "1.5": 1.5,
    "3600": 20.0,
    "-5": 0.0,
    email.utils.formatdate(NOW + 9, usegmt=True): 9.0,
    email.utils.formatdate(NOW + 9): 9.0,
    time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(NOW + 9)): 9.0,
    email.utils.formatdate(NOW + 86400, usegmt=True): 20.0,
    email.utils.formatdate(NOW - 60, usegmt=True): 0.0,
    "soon": None,
    "nan": None,
    "inf": None,
    "7, 8": None,
    "Wed, 21 Oct 99999 07:28:00 GMT": None,
    "Wed, 21 Oct 2015 07:28:00 +99999999999999999999": None,
}


@pytest.fixture
def far_away() -> Iterator[None]:
    """A local time zone that is not that of HTTP."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
@pytest.mark.parametrize("value", WAITS)
def test_retry_after_is_honoured_and_capped(
    value: str, server: Server, connect: Connect, score: Score, pauses: list[float], tally: Tally
) -> None:
    """A number or a date is waited for, at most `max_retry_wait`; anything else is ignored."""
    tally("Retry-After")
    server.script(answer({}, 429, retry_after=value))
    assert score(connect(max_retry_wait=20)) == EXPECTED
    (pause,) = pauses
    expected = WAITS[value]
    assert pause == expected if expected is not None else 0.375 <= pause <= 0.625


@pytest.mark.parametrize("status", RETRIED)
@pytest.mark.parametrize("max_retries", [0, 2])
def test_an_error_with_the_status_is_raised_when_attempts_run_out(
    status: int, max_retries: int, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """After `max_retries` further attempts the last status is raised."""
    tally(f"status {status} for ever")
    server.always(answer({"error": "too busy"}, status))
    error = fails(score, connect(max_retries=max_retries))
    assert error.status_code == status
    assert "too busy" in str(error)
    assert server.url in str(error)
    assert len(server.requests) == 1 + max_retries


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 413, 422, 501])
def test_other_statuses_are_not_asked_again(
    status: int, server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """One request, two at an address that may lack a slash, and an error with the status and the server's words."""
    tally(f"status {status}")
    server.always(answer(b"" if status == 204 else b"no such thing", status))
    error = fails(score, connect(request_shape=shape))
    assert error.status_code == status
    assert status == 204 or "no such thing" in str(error)
    assert len(server.requests) == (2 if status == 404 else 1)


BROKEN: dict[str, Reply] = {
    "closes without an answer": plain(b""),
    "resets": reset,
    "breaks off in the head": plain(b"HTTP/1.1 200 OK\r\nContent-"),
    "breaks off in the body": break_off,
    "breaks off in a chunk": plain(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[{"),
    "sends a bad chunk": plain(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[{"),
    "speaks no HTTP": plain(b"220 mail.example ESMTP\r\n"),
    "sends a head without end": plain(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000),
    "stalls": stall,
    "stalls in the body": stall_in_body,
}


def impatient(what: str) -> dict[str, float]:
    """Settings for a server that may stall."""
    return {"attempt_timeout": SHORT} if "stalls" in what else {}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_connection_is_an_error_of_this_package(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """After all attempts, a `RemoteError` without a status that names the address."""
    tally(f"a server that {what}")
    server.always(BROKEN[what])
    error = fails(score, connect(**impatient(what)))
    assert error.status_code is None
    assert server.url in str(error)
    assert len(server.requests) == 3


@pytest.mark.parametrize("what", [what for what in BROKEN if "stalls" not in what])
def test_a_connection_that_breaks_once_is_mended(
    what: str, server: Server, connect: Connect, score: Score, pauses: list[float], tally: Tally
) -> None:
    """The next attempt uses a new connection and succeeds."""
    tally(f"a server that {what}, then recovery")
    server.script(BROKEN[what])
    assert score(connect()) == EXPECTED
    assert len(pauses) == 1


def test_an_address_where_nobody_listens_is_an_error_of_this_package(
    connect: Connect, score: Score, pauses: list[float], tally: Tally
) -> None:
    """An unreachable port is tried again and then named."""
    tally("an unreachable port")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/rerank"
    error = fails(score, connect(url))
    assert error.status_code is None
    assert url in str(error)
    assert len(pauses) == 2


def test_a_kept_connection_that_the_server_closed_is_opened_again(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The server may close the connection between two calls without notice."""
    tally("a kept connection that ends")

    def last_words(handler: Handler) -> None:
        honest(handler)
        handler.close_connection = True

    server.always(last_words)
    assert score(connect(), PAIRS, 3) == EXPECTED
    assert len({request.client for request in server.requests}) == len(server.requests)


def test_connections_are_kept_between_calls(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """Three calls need one connection."""
    tally("kept connections")
    assert score(connect(), PAIRS, 3) == EXPECTED
    assert len({request.client for request in server.requests}) == 1


def test_a_closed_model_connects_again(server: Server, connect: Connect, tally: Tally) -> None:
    """`close` ends the connections; the model, which other callers may share, goes on working."""
    tally("a closed model")
    model = connect()
    assert model.score(PAIRS) == EXPECTED
    model.close()
    model.close()
    assert model.score(PAIRS) == EXPECTED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(server: Server, connect: Connect, tally: Tally) -> None:
    """On a shared connection, each process could receive the other's answers."""
    tally("a fork")
    model = connect()
    assert model.score(PAIRS) == EXPECTED
    child = os.fork()
    if child == 0:
        os._exit(0 if model.score(PAIRS) == EXPECTED else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model.score(PAIRS) == EXPECTED
    parent, forked, again = (request.client for request in server.requests)
    assert forked != parent == again


def test_event_loops_that_are_gone_are_not_kept(server: Server, connect: Connect, tally: Tally) -> None:
    """Using a model in many short event loops keeps none of them alive, and all share a connection."""
    tally("many event loops")
    model = connect()
    loops: list[weakref.ref[Any]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await model.ascore(PAIRS) == EXPECTED

    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []
    assert len({request.client for request in server.requests}) == 1


def test_waiting_for_a_free_connection_is_not_a_failure(server: Server, connect: Connect, tally: Tally) -> None:
    """`timeout` counts from connecting, so that many calls at once wait their turn."""
    tally("a crowd")
    model = connect(timeout=20 * SHORT, max_documents=1)

    def slow(handler: Handler) -> None:
        handler.server.released.wait(SHORT)
        honest(handler)

    server.always(slow)
    pairs = [("lora", f"passage {place}") for place in range(100)]

    async def crowd() -> list[list[float]]:
        return await asyncio.gather(*(model.ascore(pairs[start : start + 10]) for start in range(0, 100, 10)))

    assert list(itertools.chain(*asyncio.run(crowd()))) == [relevance(*pair) for pair in pairs]
