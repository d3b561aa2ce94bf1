"""A small rerank server on this machine, what it is asked and answers, and models that are closed after a test."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder

Reply = tuple[int, Any]

PAIRS = [("lora", "alpha"), ("lora", "beta"), ("lora", "gamma")]
SCORES = {"alpha": 0.75, "beta": 0.5, "gamma": 0.25}


def scored(body: Any) -> Reply:
    """Answer like Cohere."""
    return 200, {
        "results": [{"index": i, "relevance_score": SCORES.get(t, 0.1)} for i, t in enumerate(body["documents"])]
    }


def wants_name(models: Any) -> Callable[[Any], Reply]:
    """Make a server that lists `models` and wants a name in every request."""

    def reply(body: Any) -> Reply:
        if body is None:
            return (404, {}) if models is None else (200, {"object": "list", "data": [{"id": name} for name in models]})
        if "model" not in body:
            return 422, {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]}
        return scored(body)

    return reply


def nim_request(query: str, passages: list[str]) -> Any:
    """The request of NVIDIA NIM."""
    return {
        "model": "nv",
        "query": {"text": query},
        "passages": [{"text": text} for text in passages],
        "truncate": "END",
    }


def read_pairs(answer: Any, expected: int) -> list[float]:
    """Read an answer of no known form."""
    assert len(answer["who"]) == expected
    return [float(score) for _, score in sorted(answer["who"].items())]


class Server(ThreadingHTTPServer):
    """A server on this machine that answers with what a function makes of path, headers and body."""

    daemon_threads = True

    def __init__(self, reply: Callable[[Any], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def bodies(self) -> list[Any]:
        """The bodies of the requests so far."""
        return [body for _, _, _, body in self.seen]


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_POST(self) -> None:
        """Note the request and answer."""
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(content) if content else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, body))
        status, answer = self.server.reply(body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no key from outside."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "CROSSRERANK_API_KEY":
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(reply: Callable[[Any], Reply] = scored) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def connect() -> Iterator[Callable[..., RemoteCrossEncoder]]:
    """Make models that are closed at the end."""
    made: list[RemoteCrossEncoder] = []

    def make(url: Any, **settings: Any) -> RemoteCrossEncoder:
        made.append(RemoteCrossEncoder(url, **{"max_retries": 0, **settings}))
        return made[-1]

    yield make
    for model in made:
        model.close()


Connect = Callable[..., RemoteCrossEncoder]
