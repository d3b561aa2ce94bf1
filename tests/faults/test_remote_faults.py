"""Rerank servers that are slow, broken, hostile or gone: what the remote cross-encoder does about each."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import gzip
import itertools
import json
import logging
import os
import pickle
import re
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import tracemalloc
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from pydantic import SecretStr

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders import CrossEncoder, TextPair, load_cross_encoder, remote_answers
from langchain_crossrerank.cross_encoders import remote as remote_module
from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.remote import RemoteCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, RemoteError, RerankTimeoutError, ScoringError
from tests.faults.conftest import Tally

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

SHORT = 0.1
"""Seconds of a timeout that is meant to pass: the server does not answer before the test lets it."""

NOW = 1_700_000_000.0
"""The time that the remote module sees, in seconds since 1970."""

KEY = "sk-Zm9v/YmFy+4242=qux"
"""A key with characters that JSON writers may escape."""

MEGABYTE = 1024 * 1024

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

PAIRS = [("lora", "alpha"), ("lora", "beta beta beta"), ("lora", "")]


def relevance(query: str, passage: str) -> float:
    """Score a pair as the server does."""
    return zlib.crc32(f"{query}|{passage}".encode()) / 2**32


EXPECTED = [relevance(*pair) for pair in PAIRS]


@dataclass
class Request:
    """What a server was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    client: tuple[str, int]

    @property
    def passages(self) -> list[str]:
        """The passages, in either shape."""
        found: list[str] = self.body["texts"] if "texts" in self.body else self.body["documents"]
        return found


class Handler(BaseHTTPRequestHandler):
    """Notes a request and does what the script says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        """Answer."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_seen = Request(self.path, headers, json.loads(content), self.client_address)
        self.server.next_reply(self.request_seen)(self)

    do_GET = do_POST

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        self.begin(status, content_length=str(len(content)), **headers)
        self.wfile.write(content)

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send an answer's head."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on standard error."""


Reply = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """A rerank server on this machine that follows a script, and behaves well after its end."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/rerank"
        self.requests: list[Request] = []
        self.errors: list[BaseException | None] = []
        self.replies: Iterator[Reply] = iter(())
        self.released = threading.Event()
        self._arrived = threading.Condition()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def script(self, *replies: Reply) -> None:
        """Say how the next requests are answered."""
        self.replies = iter(replies)

    def always(self, reply: Reply) -> None:
        """Say how every further request is answered."""
        self.replies = itertools.repeat(reply)

    def next_reply(self, request: Request) -> Reply:
        """Note a request and give its reply."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
            return next(self.replies, honest)

    def wait_for(self, requests: int) -> bool:
        """Wait until so many requests have arrived."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.requests) >= requests, WATCHDOG)

    def get_request(self) -> Any:
        """Remember a connection, to end it at the end of the test."""
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong in a handler, unless the client had gone."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.errors.append(error)

    def close(self) -> None:
        """Stop serving and end every connection."""
        self.released.set()
        self.shutdown()
        self._thread.join()
        for connection in self._connections:
            if connection.fileno() != -1:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self.server_close()


def results_for(request: Request) -> Any:
    """Score as a real server does: best first, in the manner of the request's shape."""
    scores = [relevance(request.body["query"], passage) for passage in request.passages]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if "texts" in request.body:
        return [{"index": index, "score": scores[index]} for index in order]
    return {"id": "r1", "results": [{"index": index, "relevance_score": scores[index]} for index in order]}


def honest(handler: Handler) -> None:
    """Answer well."""
    handler.send(json.dumps(results_for(handler.request_seen)).encode())


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """Make a reply of bytes as they are, or of anything else as JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler: handler.send(content, status, **headers)


def plain(content: bytes) -> Reply:
    """Make a reply that is no HTTP answer of the library's making."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return reply


def reset(handler: Handler) -> None:
    """End the connection with a reset, not a farewell."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def break_off(handler: Handler) -> None:
    """End the connection in the middle of the answer's body."""
    handler.begin(content_length="1000")
    plain(b'{"results": [')(handler)


def stall(handler: Handler) -> None:
    """Answer well, but not before the test allows it."""
    assert handler.server.released.wait(WATCHDOG), "nobody released the server"
    honest(handler)


def stall_in_body(handler: Handler) -> None:
    """Begin an answer, and do not go on before the test allows it."""
    handler.begin(content_length="1000")
    handler.wfile.write(b'{"results": [')
    assert handler.server.released.wait(WATCHDOG), "nobody released the server"
    handler.close_connection = True


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no key from outside, and no certificates, whose reading would take most of each test's time."""
    monkeypatch.setattr(ssl, "create_default_context", lambda **settings: NO_CERTIFICATES)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "CROSSRERANK_API_KEY":
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
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
    """The seconds that the remote module pauses, written down and not waited."""
    seen: list[float] = []

    async def asleep(seconds: float) -> None:
        seen.append(seconds)

    clock = SimpleNamespace(time=lambda: NOW, sleep=seen.append)
    for module in (remote_module, remote_answers):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(remote_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": asleep}))
    return seen


Connect = Callable[..., RemoteCrossEncoder]


@pytest.fixture
def connect(server: Server, pauses: list[float]) -> Iterator[Connect]:
    """Make models of the server, closed at the end."""
    made: list[RemoteCrossEncoder] = []

    def connect(url: str | None = None, **settings: Any) -> RemoteCrossEncoder:
        made.append(RemoteCrossEncoder(url or server.url, **{"timeout": WATCHDOG, "max_retries": 2, **settings}))
        return made[-1]

    yield connect
    for model in made:
        model.close()


Score = Callable[..., list[float]]


def _sync(model: CrossEncoder, text_pairs: Sequence[TextPair] = PAIRS, times: int = 1) -> list[float]:
    return [model.score(text_pairs) for _ in range(times)][-1]


def _async(model: CrossEncoder, text_pairs: Sequence[TextPair] = PAIRS, times: int = 1) -> list[float]:
    async def score() -> list[float]:
        try:
            return [[scored.score for scored in await model.ascore_pairs(text_pairs)] for _ in range(times)][-1]
        finally:
            await aclose(model)

    return asyncio.run(score())


async def aclose(model: Any) -> None:
    """Close the asynchronous client of a model, wrapped or not."""
    await getattr(model, "inner", model).aclose()


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, behind one signature."""
    way: Score = request.param
    return way


@pytest.fixture(params=["documents", "texts"])
def shape(request: pytest.FixtureRequest) -> Any:
    """Both shapes of a request."""
    return request.param


def fails(score: Score, model: CrossEncoder, *args: Any) -> RemoteError:
    """Score, and give the error that comes."""
    with pytest.raises(RemoteError) as caught:
        score(model, *args)
    return caught.value


def whole(error: BaseException) -> str:
    """Everything that a log, a trace or a pickle could hold of an error."""
    return "".join([*traceback.format_exception(error), repr(error), str(pickle.dumps(error))])


def shows_key(text: str) -> bool:
    """Whether six characters of the key, one after the other, stand in a text."""
    return any(KEY[start : start + 6].lower() in text.lower() for start in range(len(KEY) - 5))


# Requests and answers


BODIES = {
    "documents": ({"model": "m1"}, {"model": "m1", "documents": ["alpha"], "top_n": 1}),
    "documents without a model": ({}, {"documents": ["alpha"], "top_n": 1}),
    "texts": ({"model": "m1"}, {"texts": ["alpha"], "raw_scores": False, "truncate": True}),
    "texts with raw scores": ({"activation": "identity"}, {"texts": ["alpha"], "raw_scores": True, "truncate": True}),
}


@pytest.mark.parametrize("what", BODIES)
def test_the_request_is_exactly_what_the_shape_says(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The body holds the shape's fields and no other, and goes to the given path."""
    tally("request bodies")
    settings, body = BODIES[what]
    score(connect(request_shape=what.split(maxsplit=1)[0], **settings), [("lora", "alpha")])
    (request,) = server.requests
    assert request.body == {"query": "lora", **body}
    assert request.path == "/rerank"
    assert request.headers["content-type"] == "application/json"


KEYS: dict[str, tuple[Any, str | None, str | None]] = {
    "given": (KEY, None, f"Bearer {KEY}"),
    "given as a secret": (SecretStr(KEY), None, f"Bearer {KEY}"),
    "from the environment": (None, KEY, f"Bearer {KEY}"),
    "given, and another in the environment": (KEY, "other", f"Bearer {KEY}"),
    "none": (None, None, None),
    "an empty environment": (None, "", None),
}


@pytest.mark.parametrize("what", KEYS)
def test_the_key_travels_as_a_bearer_token(
    what: str, server: Server, connect: Connect, score: Score, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """The header holds the key that was given, else that of the environment, else there is no header."""
    tally("keys")
    given, environment, header = KEYS[what]
    if environment is not None:
        monkeypatch.setenv("CROSSRERANK_API_KEY", environment)
    assert score(connect(api_key=given)) == EXPECTED
    assert server.requests[0].headers.get("authorization") == header


def test_both_shapes_give_the_scores_in_input_order(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """The server answers best first; the scores come back at their passages' places."""
    tally("answers out of order")
    assert score(connect(request_shape=shape)) == EXPECTED
    assert sorted(EXPECTED, reverse=True) != EXPECTED


@pytest.mark.parametrize("name", ["relevance_score", "score"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["object", "list"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_results_are_matched_by_index(
    order: tuple[int, ...], wrapped: bool, name: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Whatever the order, the name of the score and the wrapping, and whole numbers are scores too."""
    tally("answers out of order")
    results = [{"index": index, name: [0.25, 1, -2.5][index]} for index in order]
    server.script(answer({"results": results} if wrapped else results))
    scores = score(connect(), [("lora", passage) for passage in "abc"])
    assert scores == [0.25, 1.0, -2.5]
    assert {type(value) for value in scores} == {float}


def test_more_passages_than_a_request_holds_are_divided_and_merged(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """One query a request, never more than `max_documents` passages, and every score at its place."""
    tally("divided requests")
    pairs = [(query, f"passage {'x' * (7 * place % 40)} {place}") for place in range(50) for query in ("lora", "bm25")]
    scores = score(connect(request_shape=shape, max_documents=8), [*pairs, *pairs[:5]])
    assert scores == [relevance(*pair) for pair in [*pairs, *pairs[:5]]]
    assert max(len(request.passages) for request in server.requests) <= 8
    assert sum(len(request.passages) for request in server.requests) == len(pairs)
    asked = sorted((request.body["query"], passage) for request in server.requests for passage in request.passages)
    assert asked == sorted(pairs)


def test_a_request_is_filled_to_max_documents_and_no_further(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """Twenty passages of one query are two requests of eight and one of four."""
    tally("divided requests")
    pairs = [("lora", f"passage {place:02}") for place in range(20)]
    assert score(connect(request_shape=shape, max_documents=8), pairs) == [relevance(*pair) for pair in pairs]
    assert sorted(len(request.passages) for request in server.requests) == [4, 8, 8]


def test_no_pairs_need_no_server(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """Nothing to score is an empty list and no request."""
    tally("no pairs")
    assert score(connect(), []) == []
    assert server.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity"])
def test_a_compressed_answer_is_read(
    encoding: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """A server may compress its answer."""
    tally("content encodings")

    def reply(handler: Handler) -> None:
        content = json.dumps(results_for(handler.request_seen)).encode()
        handler.send(gzip.compress(content) if "gzip" in encoding else content, content_encoding=encoding)

    server.script(reply)
    assert score(connect()) == EXPECTED


# Another attempt


@pytest.mark.parametrize("status", [429, 502, 503, 504])
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
    """A number or a date is waited for, at most `max_retry_wait`; what cannot be read counts as not there."""
    tally("Retry-After")
    server.script(answer({}, 429, retry_after=value))
    assert score(connect(max_retry_wait=20)) == EXPECTED
    (pause,) = pauses
    expected = WAITS[value]
    assert pause == expected if expected is not None else 0.375 <= pause <= 0.625


@pytest.mark.parametrize("status", [429, 502, 503, 504])
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


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 413, 422, 500])
def test_other_statuses_are_not_asked_again(
    status: int, server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """One request, and an error with the status and the server's words."""
    tally(f"status {status}")
    server.always(answer(b"" if status == 204 else b"no such thing", status))
    error = fails(score, connect(request_shape=shape))
    assert error.status_code == status
    assert status == 204 or "no such thing" in str(error)
    assert len(server.requests) == 1


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
    return {"timeout": SHORT} if "stalls" in what else {}


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
    """The next attempt has a connection of its own and gives the scores."""
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
    """The server may close between two calls without a word."""
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
    """`close` ends connections, not the model, which other callers in the process may share."""
    tally("a closed model")
    model = connect()
    assert model.score(PAIRS) == EXPECTED
    model.close()
    model.close()
    assert model.score(PAIRS) == EXPECTED


def test_a_forked_child_opens_connections_of_its_own(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Answers on one connection to two processes would reach either."""
    tally("a fork")
    model = connect()
    assert model.score(PAIRS) == EXPECTED
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert model.score(PAIRS) == EXPECTED
        model.close()
    assert model.score(PAIRS) == EXPECTED
    parent, forked, again = (request.client for request in server.requests)
    assert forked != parent == again


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_event_loops_that_are_gone_are_not_kept(server: Server, connect: Connect, tally: Tally) -> None:
    """Who uses one model in many short event loops and closes nothing collects no loops and connections."""
    tally("many event loops")
    model = connect()
    loops: list[weakref.ref[Any]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert await model.ascore(PAIRS) == EXPECTED

    for _ in range(5):
        asyncio.run(use())
    _async(model)
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []


def test_waiting_for_a_free_connection_is_no_failure(connect: Connect, tally: Tally) -> None:
    """`timeout` counts from connecting, so that many calls at once wait their turn."""
    tally("a crowd")
    model = connect(timeout=1.5)

    async def timeout() -> httpx.Timeout:
        client = model._async_client()
        await model.aclose()
        return client.timeout

    assert asyncio.run(timeout()) == model._sync_client().timeout == httpx.Timeout(1.5, pool=None)


# Answers that cannot be used


def but(position: int, **changes: Any) -> list[dict[str, Any]]:
    """Make good results for three passages, one of them changed; `None` as a change takes the field out."""
    results: list[dict[str, Any]] = [{"index": index, "score": 0.5} for index in range(3)]
    changed = {**results[position], **changes}
    results[position] = {name: value for name, value in changed.items() if value is not ...}
    return results


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
    "has no results": {"data": but(0)},
    "has null results": {"results": None},
    "has an object for results": {"results": {"0": 0.5}},
    "is an error with 200": {"error": "model not loaded"},
    "has no result": [],
    "has text for a result": ["0.5", "0.5", "0.5"],
    "has bare scores": [0.5, 0.5, 0.5],
    "lacks an index": but(1, index=...),
    "has an index of null": but(1, index=None),
    "has an index of true": but(1, index=True),
    "has an index of text": but(1, index="1"),
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
    "has a score of text": but(1, score="0.5"),
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
    """A status says what to do, whatever the body is."""
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


@pytest.mark.parametrize("reply", [declared, chunked])
def test_a_huge_answer_is_refused_before_it_is_whole(
    reply: Reply, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The error comes once `max_response_bytes` is passed; the server stalls there, so nobody can have read on."""
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


# The key


def escaped(key: str) -> str:
    """Write a key as a careful JSON writer does."""
    return re.sub(r"[^\w-]", lambda found: f"\\u{ord(found.group()):04x}", key)


ECHOES: dict[str, Reply] = {
    "in an error": answer({"error": f"bad key Bearer {KEY}"}, 401),
    "in a busy error": answer({"error": f"bad key Bearer {KEY}"}, 503),
    "with escaped slashes": answer(f'{{"error": "{KEY}"}}'.replace("/", "\\/").encode(), 401),
    "with escaped characters": answer(f'{{"error": "{escaped(KEY)}"}}'.encode(), 401),
    "with escaped capitals": answer(f'{{"error": "{escaped(KEY).replace("2b", "2B")}"}}'.encode(), 401),
    "in the address": answer(f"/?key={KEY.replace('/', '%2F').replace('+', '%2B')}".encode(), 400),
    "as a result": answer([KEY]),
    "as an index": answer(but(0, index=KEY)),
    "as a score": answer(but(0, score=f"Bearer {KEY}")),
    "as a field": answer(but(0, **{KEY: 1, "score": ...})),
    "in its status line": plain(f"HTTP/1.1 Bearer {KEY}\r\n\r\n".encode()),
    "in the name of an encoding": answer(b"[]", content_encoding=KEY),
}


@pytest.mark.parametrize("what", ECHOES)
def test_a_server_that_echoes_the_key_does_not_reveal_it(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """No piece of the key is in the error, its causes, its traceback or its pickle."""
    tally(f"a key echoed {what}")
    server.always(ECHOES[what])
    assert not shows_key(whole(fails(score, connect(api_key=KEY))))


def test_a_key_at_the_cut_of_an_error_is_not_shown_in_part(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Wherever the server's words are cut, the key is gone before."""
    model = connect(api_key=KEY)
    for before in range(260, 305):
        tally("a key at the cut")
        server.script(answer(b"x" * before + KEY.encode() + b"y" * 50, 400))
        assert not shows_key(whole(fails(score, model)))


def test_a_key_at_the_cut_of_a_result_is_not_shown_in_part(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Wherever a bad result is cut, the key is gone before."""
    model = connect(api_key=KEY)
    for before in range(40, 82):
        tally("a key at the cut")
        server.script(answer(["x" * before + KEY + "y" * 50]))
        assert not shows_key(whole(fails(score, model)))


def test_a_key_in_many_pieces_of_the_answer_is_not_shown(
    server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """A body that comes byte by byte is put together before it is looked at."""
    tally("a key echoed in pieces")

    def reply(handler: Handler) -> None:
        content = f"no such key: {KEY}".encode()
        handler.begin(401, content_length=str(len(content)))
        for byte in content:
            handler.wfile.write(bytes([byte]))

    server.always(reply)
    error = fails(score, connect(api_key=KEY))
    assert not shows_key(whole(error))
    assert "no such key" in str(error)


@pytest.mark.parametrize("reply", [honest, ECHOES["in an error"], ECHOES["in a busy error"], break_off])
def test_the_key_is_in_no_log_and_no_repr(
    reply: Reply, server: Server, connect: Connect, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Neither our logs nor those of the HTTP library at their most talkative hold the key, nor does the model."""
    tally("logs and reprs")
    model = connect(api_key=KEY, model="m1")
    server.always(reply)
    with caplog.at_level(logging.DEBUG):
        if reply is honest:
            score(model)
        else:
            assert not shows_key(whole(fails(score, model)))
    assert {"httpx", "httpcore.http11"} <= {record.name for record in caplog.records}
    assert not shows_key("".join(f"{record.getMessage()}{record.__dict__!r}" for record in caplog.records))
    assert not shows_key(f"{model!r}{model}{vars(model)!r}{model.fingerprint}{model.scheduler._name}")


class Recorder(BaseCallbackHandler):
    """Writes down everything that a tracer gets."""

    raise_error = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _note(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(repr((args, kwargs)))
        self.seen += [whole(arg) for arg in args if isinstance(arg, BaseException)]

    on_chain_start = on_chain_end = on_chain_error = on_custom_event = _note


Rerank = Callable[..., list[Document]]


def _rerank(reranker: CrossEncoderReranker, documents: list[Document], callbacks: Any = None) -> list[Document]:
    return reranker.compress_documents(documents, "lora", callbacks)


def _arerank(reranker: CrossEncoderReranker, documents: list[Document], callbacks: Any = None) -> list[Document]:
    async def rerank() -> list[Document]:
        try:
            return await reranker.acompress_documents(documents, "lora", callbacks)
        finally:
            await aclose(reranker.cross_encoder)

    return asyncio.run(rerank())


@pytest.fixture(params=[_rerank, _arerank], ids=["sync", "async"])
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Both ways to rerank, behind one signature."""
    way: Rerank = request.param
    return way


def candidates(number: int = 5) -> list[Document]:
    """Make candidates whose order a rerank changes."""
    return [Document(f"passage {place}", id=f"d{place}") for place in range(number)]


@pytest.mark.parametrize("on_error", ["raise", "keep_order"])
@pytest.mark.parametrize("reply", [honest, ECHOES["in an error"]], ids=["works", "fails"])
def test_the_key_is_in_no_trace(
    reply: Reply, on_error: Any, server: Server, connect: Connect, rerank: Rerank, tally: Tally
) -> None:
    """Inputs, outputs, errors and events of a traced rerank are free of the key."""
    tally("traces")
    server.always(reply)
    recorder = Recorder()
    reranker = CrossEncoderReranker(model=connect(api_key=KEY), on_error=on_error)
    try:
        rerank(reranker, candidates(), [recorder])
    except RemoteError:
        assert on_error == "raise"
    assert len(recorder.seen) >= 2
    assert not shows_key("".join(recorder.seen))


# Settings


PASSWORDS = [
    "http://user:hunter2@127.0.0.1/rerank",
    "https://user:hunter2@example.com",
    "http://:hunter2@host/",
    "http://user:hunter2@host:port/",
    "http://user:hunter2@host:99999/",
    "http://user:hunter2@",
    "http://user:hunter2@[::1/",
    "http://user:hunter2/x@host/",
    "http://user:hunter2\n@host/",
    "user:hunter2@host/rerank",
    "ftp://user:hunter2@host/",
    "//user:hunter2@host/",
    "http://user:hunter2@host/" + "x" * 70_000,
]


@pytest.mark.parametrize("url", PASSWORDS, ids=lambda url: repr(url[:40]))
def test_a_url_with_a_password_is_refused_without_showing_it(url: str, tally: Tally) -> None:
    """The error and its causes do not hold the password, whatever else is wrong with the URL."""
    tally("URLs with passwords")
    with pytest.raises(InvalidInputError, match=r"URL|url") as caught:
        RemoteCrossEncoder(url)
    # The line of this test that a traceback quotes holds no password.
    assert "hunter2" not in whole(caught.value)


BAD_URLS: list[Any] = [
    "",
    "rerank",
    "/rerank",
    "localhost:8080/rerank",
    "ftp://host/rerank",
    "file:///etc/passwd",
    "http://",
    "http:///rerank",
    "http://?query",
    "http://host:port/",
    "http://host:99999/",
    "http://host:-1/",
    "http://host/\n",
    "http://host/\ud800",
    " http://host/",
    None,
    5,
    b"http://host/",
]


@pytest.mark.parametrize("url", BAD_URLS, ids=ascii)
def test_a_url_that_cannot_work_is_refused(url: Any, tally: Tally) -> None:
    """The error comes at once, shows the value and says what to pass."""
    tally("bad URLs")
    with pytest.raises(InvalidInputError, match="pass the") as caught:
        RemoteCrossEncoder(url)
    assert repr(url) in str(caught.value)


BAD_KEYS: dict[str, Any] = {
    "a newline at its end": f"{KEY}\n",
    "a header in it": f"{KEY}\r\nX-Evil: 1",
    "a space in it": f"{KEY} {KEY}",
    "a character beyond ASCII": f"{KEY}é",
    "a lone surrogate": f"{KEY}\ud800",
    "a control character": f"{KEY}\x00",
    "nothing": "",
    "white space": "  ",
    "a secret newline": SecretStr(f"{KEY}\n"),
    "bytes": KEY.encode(),
    "a list": [KEY],
}


@pytest.mark.parametrize("what", BAD_KEYS)
def test_a_key_that_no_header_can_carry_is_refused(what: str, tally: Tally) -> None:
    """The error comes when the model is made, names `api_key` and does not show it."""
    tally("bad keys")
    with pytest.raises(InvalidInputError, match="api_key") as caught:
        RemoteCrossEncoder("http://127.0.0.1/", api_key=BAD_KEYS[what])
    assert not shows_key(whole(caught.value))


def test_a_bad_key_from_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """Who did not pass a key learns where it came from."""
    tally("bad keys")
    monkeypatch.setenv("CROSSRERANK_API_KEY", f"{KEY}\n")
    with pytest.raises(InvalidInputError, match="CROSSRERANK_API_KEY") as caught:
        RemoteCrossEncoder("http://127.0.0.1/")
    assert not shows_key(whole(caught.value))


BAD_SETTINGS: list[tuple[str, Any]] = [
    *itertools.product(["max_documents", "max_length", "max_response_bytes"], [0, -1, 1.5, "8", True, None]),
    *itertools.product(["max_retries"], [-1, 0.5, "1", True, None]),
    *itertools.product(["timeout"], [0, -1.0, float("nan"), float("inf"), "30", True, None]),
    *itertools.product(["max_retry_wait"], [-1.0, float("nan"), float("inf"), "30", True, None]),
    *itertools.product(["request_shape"], ["cohere", "", None, 5, []]),
    *itertools.product(["activation"], ["softmax", "", None]),
    *itertools.product(["model"], ["", 5, "m\ud800"]),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=ascii)
def test_a_bad_setting_is_refused(name: str, value: Any, tally: Tally) -> None:
    """The error comes when the model is made, names the setting and its value, and says what to pass."""
    tally("bad settings")
    with pytest.raises(InvalidInputError, match=rf"{name} is .*; pass ") as caught:
        RemoteCrossEncoder("http://127.0.0.1/", **{name: value})
    assert repr(value) in str(caught.value)


# In company


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
    """Scores that are kept are not asked for again, also where the server is gone meanwhile."""
    tally("a cache")
    cached = CachedCrossEncoder(connect())
    new = [("lora", "gamma"), ("lora", "delta")]
    assert score(cached) == EXPECTED
    assert score(cached, [*PAIRS, *new]) == [*EXPECTED, *(relevance(*pair) for pair in new)]
    server.always(plain(b""))
    assert score(cached, new) == [relevance(*pair) for pair in new]
    assert [sorted(request.passages) for request in server.requests] == [
        sorted(passage for _, passage in PAIRS),
        ["delta", "gamma"],
    ]


def test_a_failed_call_leaves_nothing_in_a_cache(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """An answer that cannot be used is forgotten."""
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
    """The first candidates come back as they were, marked, with a reason that does not hold the key."""
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
    """The best documents come back by the server's scores."""
    tally("a server that works")
    result = rerank(CrossEncoderReranker(model=connect(), top_n=2), candidates())
    best = sorted((relevance("lora", document.page_content) for document in candidates()), reverse=True)
    assert [document.metadata["relevance_score"] for document in result] == best[:2]


class Watched(RemoteCrossEncoder):
    """A model that says when its work on a thread ended, in whatever way."""

    ended: threading.Event

    def score_steps(self, text_pairs: Any) -> ScoreSteps:
        """Score, and say when the work ended."""
        try:
            return (yield from super().score_steps(text_pairs))
        finally:
            self.ended.set()


def test_the_timeout_of_a_rerank_stops_a_stalling_server(server: Server, tally: Tally) -> None:
    """The caller hears it in time, and of twenty requests only the one under way was sent."""
    tally("a rerank with a timeout")
    model = Watched(server.url, max_documents=1, timeout=WATCHDOG)
    model.ended = threading.Event()
    server.always(stall)
    with pytest.raises(RerankTimeoutError):
        _rerank(CrossEncoderReranker(model=model, timeout=SHORT), candidates(20))
    assert server.wait_for(1)
    server.released.set()
    assert model.ended.wait(WATCHDOG)
    assert len(server.requests) == 1
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
    """Eight of twenty requests are under way; no other is sent after them, and the model goes on working."""
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

    monkeypatch.setattr(RemoteCrossEncoder, "_read", fail)
    with pytest.raises(ScoringError, match="out of sorts") as caught:
        score(connect())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.positions == (0, 1, 2)
