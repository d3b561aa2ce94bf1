"""A scripted rerank server that answers well or badly, and what the tests do with it."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import re
import socket
import ssl
import struct
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import RemoteError

WATCHDOG = 30
"""Seconds after which a test that hangs fails; no test waits for it to pass."""


SHORT = 0.1
"""Seconds of a timeout that is meant to expire: the server does not answer until the test allows it."""


NOW = 1_700_000_000.0
"""The current time for the remote backend, in seconds since 1970."""


KEY = "sk-Zm9v/YmFy+4242=qux"
"""A key with characters that JSON writers may escape."""


MEGABYTE = 1024 * 1024


NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


PAIRS = [("lora", "alpha"), ("lora", "beta beta beta"), ("lora", "gamma")]


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
        """The passages, in any shape."""
        found: list[str] = next(self.body[name] for name in ("texts", "text_2", "documents") if name in self.body)
        return found

    @property
    def query(self) -> str:
        """The query, in any shape."""
        found: str = self.body["text_1" if "text_1" in self.body else "query"]
        return found


class Handler(BaseHTTPRequestHandler):
    """Notes a request and does what the script says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        """Answer."""
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length)
        if len(content) < length:
            raise ConnectionResetError("the client left in the middle of its request")
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
    """A rerank server on this machine that follows a script, and behaves well once it has ended."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/rerank"
        self.requests: list[Request] = []
        self.errors: list[BaseException | None] = []
        self.replies: Iterator[Reply] = iter(())
        self.released = threading.Event()
        self.hung_up = threading.Event()
        self._arrived = threading.Condition()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def script(self, *replies: Reply) -> None:
        """Set the answers to the next requests."""
        self.replies = iter(replies)

    def always(self, reply: Reply) -> None:
        """Set the answer to all further requests."""
        self.replies = itertools.repeat(reply)

    def next_reply(self, request: Request) -> Reply:
        """Record a request and return its reply."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
            return next(self.replies, honest)

    def wait_for(self, requests: int) -> bool:
        """Wait until this many requests have arrived."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.requests) >= requests, WATCHDOG)

    def get_request(self) -> Any:
        """Remember a connection, to end it at the end of the test."""
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Record an error of a handler, unless the client has disconnected."""
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
    """Answer like a real server: best first, in the shape of the request."""
    scores = [relevance(request.query, passage) for passage in request.passages]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if "texts" in request.body:
        return [{"index": index, "score": scores[index]} for index in order]
    if "text_2" in request.body:
        return {"object": "list", "data": [{"index": index, "score": scores[index]} for index in order]}
    return {"id": "r1", "results": [{"index": index, "relevance_score": scores[index]} for index in order]}


def honest(handler: Handler) -> None:
    """Answer well."""
    handler.send(json.dumps(results_for(handler.request_seen)).encode())


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """Make a reply of bytes, or of any other value as JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler: handler.send(content, status, **headers)


def plain(content: bytes) -> Reply:
    """Make a reply of raw bytes instead of an HTTP answer."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return reply


def reset(handler: Handler) -> None:
    """End the connection with a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def break_off(handler: Handler) -> None:
    """End the connection in the middle of the answer's body."""
    handler.begin(content_length="1000")
    plain(b'{"results": [')(handler)


def stall(handler: Handler) -> None:
    """Answer well, but not until the test allows it."""
    assert handler.server.released.wait(WATCHDOG), "the server was not released"
    honest(handler)


def stall_in_body(handler: Handler) -> None:
    """Begin an answer, and do not go on until the test allows it."""
    handler.begin(content_length="1000")
    handler.wfile.write(b'{"results": [')
    assert handler.server.released.wait(WATCHDOG), "the server was not released"
    handler.close_connection = True


Connect = Callable[..., RemoteCrossEncoder]


Score = Callable[..., list[float]]


def score_now(model: CrossEncoder, text_pairs: Sequence[TextPair] = PAIRS, times: int = 1) -> list[float]:
    return [model.score(text_pairs) for _ in range(times)][-1]


def score_async(model: CrossEncoder, text_pairs: Sequence[TextPair] = PAIRS, times: int = 1) -> list[float]:
    async def score() -> list[float]:
        return [[scored.score for scored in await model.ascore_pairs(text_pairs)] for _ in range(times)][-1]

    return asyncio.run(score())


def fails(score: Score, model: CrossEncoder, *args: Any) -> RemoteError:
    """Score, and return the error."""
    with pytest.raises(RemoteError) as caught:
        score(model, *args)
    return caught.value


def whole(error: BaseException) -> str:
    """Everything that a log, a trace or a pickle could contain of an error."""
    return "".join([*traceback.format_exception(error), repr(error), str(pickle.dumps(error))])


def shows_key(text: str) -> bool:
    """Whether a text contains six consecutive characters of the key."""
    return any(KEY[start : start + 6].lower() in text.lower() for start in range(len(KEY) - 5))


def but(position: int, **changes: Any) -> list[dict[str, Any]]:
    """Make good results for three passages with one of them changed; `...` as a value removes the field."""
    results: list[dict[str, Any]] = [{"index": index, "score": 0.5} for index in range(3)]
    changed = {**results[position], **changes}
    results[position] = {name: value for name, value in changed.items() if value is not ...}
    return results


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


class Recorder(BaseCallbackHandler):
    """Records everything that a tracer receives."""

    raise_error = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _note(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append(repr((args, kwargs)))
        self.seen += [whole(arg) for arg in args if isinstance(arg, BaseException)]

    on_chain_start = on_chain_end = on_chain_error = on_custom_event = _note


Rerank = Callable[..., list[Document]]


def rerank_now(reranker: CrossEncoderReranker, documents: list[Document], callbacks: Any = None) -> list[Document]:
    return reranker.compress_documents(documents, "lora", callbacks)


def rerank_async(reranker: CrossEncoderReranker, documents: list[Document], callbacks: Any = None) -> list[Document]:
    return asyncio.run(reranker.acompress_documents(documents, "lora", callbacks))


def candidates(number: int = 5) -> list[Document]:
    """Make candidates whose order a rerank changes."""
    return [Document(f"passage {place}", id=f"d{place}") for place in range(number)]
