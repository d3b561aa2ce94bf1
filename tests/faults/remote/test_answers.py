"""Unusable answers: each is refused, and none takes unbounded memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest

from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    EXPECTED,
    KEY,
    MEGABYTE,
    WATCHDOG,
    Connect,
    Handler,
    Reply,
    Score,
    Server,
    answer,
    but,
    fails,
)

UNUSABLE: dict[str, Any] = {
    "is empty": b"",
    "is HTML": b"<html>rerank</html>",
    "is cut JSON": b'[{"index": 0, "score": 0.5}',
    "is no UTF-8": b'["\xff\xfe"]',
    "is nested too deep": b"[" * 200_000,
    "is nested deep in a result": b'[{"index":' + b"[" * 700 + b"]" * 700 + b"}]",
    "holds a number of 5000 digits": b"[" + b"9" * 5000 + b"]",
    "holds an index of 4000 digits": b'[{"score": 1, "index": ' + b"9" * 4000 + b"}]",
    "holds a score beyond floats": json.dumps(but(1, score=10**400)).encode(),
    "is null": None,
    "is a number": 5,
    "is text": "fine",
    "has no results": {"answers": but(0)},
    "has null results": {"results": None},
    "has results nested too deep": {"output": {"output": {"output": {"output": {"results": but(0)}}}}},
    "has an object for results": {"results": {"0": 0.5}},
    "is an error with 200": {"error": "model not loaded"},
    "has no result": [],
    "has words for results": ["good", "good", "bad"],
    "has text among bare scores": [0.5, "0.5", 0.5],
    "has too few bare scores": [0.5, 0.5],
    "has too many bare scores": [0.5, 0.5, 0.5, 0.5],
    "has a bare score of null": [0.5, None, 0.5],
    "has an object among bare scores": [0.5, {"index": 1, "score": 0.5}, 0.5],
    "lacks an index": but(1, index=...),
    "has an index of null": but(1, index=None),
    "has an index of true": but(1, index=True),
    "has an index of text among numbers": but(1, index="1"),
    "has an index of a float": but(1, index=1.0),
    "misses a passage": but(1)[:2],
    "repeats an index": [*but(0), {"index": 1, "score": 0.7}],
    "repeats one index and misses another": but(1, index=2),
    "has a negative index": but(2, index=-1),
    "has an index out of range": but(1, index=3),
    "has a negative index beside all others": [*but(0), {"index": -1, "score": 0.7}],
    "has an index out of range beside all others": [*but(0), {"index": 3, "score": 0.7}],
    "lacks a score": but(1, score=...),
    "has a score of null": but(1, score=None),
    "has a score of NaN": but(1, score=float("nan")),
    "has a score of infinity": but(1, score=float("inf")),
    "has a score of minus infinity": but(1, score=float("-inf")),
    "has a score of 1e999": json.dumps(but(1)).replace("0.5", "1e999").encode(),
    "has a score of text among numbers": but(1, score="0.5"),
    "has a score of true": but(1, score=True),
    "has a score of a list": but(1, score=[0.5]),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_answer_that_cannot_be_used_is_refused(
    what: str, server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """One request, one short `RemoteError` that names the address and the shape, and never a guessed score."""
    tally(f"an answer that {what}")
    server.always(answer(UNUSABLE[what]))
    error = fails(score, connect(request_shape=shape))
    assert error.status_code == 200
    assert server.url in str(error)
    assert repr(shape) in str(error)
    assert len(str(error)) < 400
    assert len(server.requests) == 1


GARBLED: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x1f\x8b garbage", "gzip"),
    "nothing": (b"", "gzip"),
    "plain JSON": (json.dumps(but(0)).encode(), "gzip"),
    "half of it": (gzip.compress(json.dumps(but(0)).encode())[:30], "gzip"),
    "compressed twice": (gzip.compress(gzip.compress(json.dumps(but(0)).encode())), "gzip, gzip"),
    "an encoding nobody asked for": (b"\x0b\x02\x80", "br"),
    "an encoding nobody knows": (json.dumps(but(0)).encode(), "rot13"),
}


@pytest.mark.parametrize("what", GARBLED)
def test_a_garbled_compression_is_refused(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """What cannot be unpacked is an unusable answer, not an error of the HTTP library."""
    tally("garbled compressions")
    content, encoding = GARBLED[what]
    server.always(answer(content, content_encoding=encoding))
    assert fails(score, connect()).status_code == 200
    assert len(server.requests) == 1


def test_a_garbled_error_page_is_still_an_error_page(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The status decides, whatever the body is."""
    tally("garbled compressions")
    server.script(answer(b"busy", 503, content_encoding="gzip"))
    assert score(connect()) == EXPECTED


def declared(handler: Handler) -> None:
    """Announce ten megabytes, send one and stall."""
    handler.begin(content_length=str(10 * MEGABYTE))
    handler.wfile.write(b" " * MEGABYTE)
    assert handler.server.released.wait(WATCHDOG), "nobody released the server"
    handler.close_connection = True


def chunked(handler: Handler) -> None:
    """Send one megabyte in chunks without saying how many follow, and stall."""
    handler.begin(transfer_encoding="chunked")
    for _ in range(16):
        handler.wfile.write(b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n")
    assert handler.server.released.wait(WATCHDOG), "nobody released the server"
    handler.close_connection = True


def followed(handler: Handler) -> None:
    """Send a whole packed answer and a megabyte more, and stall."""
    handler.begin(content_length=str(10 * MEGABYTE), content_encoding="gzip")
    handler.wfile.write(gzip.compress(json.dumps(but(0)).encode()) + b" " * MEGABYTE)
    assert handler.server.released.wait(WATCHDOG), "nobody released the server"
    handler.close_connection = True


@pytest.mark.parametrize("reply", [declared, chunked, followed])
def test_a_huge_answer_is_refused_before_it_is_whole(
    reply: Reply, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The error comes once `max_response_bytes` is passed; the server stalls there, so no more can have been read."""
    tally("huge answers")
    server.always(reply)
    error = fails(score, connect(max_response_bytes=65536))
    assert "max_response_bytes=65536" in str(error)
    assert len(server.requests) == 1


def test_an_answer_of_exactly_the_limit_is_read(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """The limit itself is allowed, one byte more is not."""
    tally("huge answers", 2)
    content = json.dumps(but(0)).encode()
    server.always(answer(content))
    assert score(connect(max_response_bytes=len(content))) == [0.5] * 3
    assert "max_response_bytes" in str(fails(score, connect(max_response_bytes=len(content) - 1)))


@pytest.mark.parametrize("status", [200, 400])
def test_a_small_answer_that_unpacks_to_a_huge_one_is_refused(
    status: int, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Ten megabytes in ten kilobytes are refused without ever being unpacked whole."""
    tally("huge answers")
    server.always(answer(gzip.compress(b" " * 10 * MEGABYTE), status, content_encoding="gzip"))
    model = connect(max_response_bytes=65536)
    tracemalloc.start()
    try:
        error = fails(score, model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "max_response_bytes=65536" in str(error)
    assert peak < 5 * MEGABYTE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    status: int, server: Server, other_server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The key and the passages go to the address that the caller gave, and nowhere else."""
    tally("redirects")
    server.always(answer(b"over there", status, location=other_server.url))
    assert fails(score, connect(api_key=KEY)).status_code == status
    assert other_server.requests == []
    assert len(server.requests) == 1
