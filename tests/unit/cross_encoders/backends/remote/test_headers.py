"""Keys and headers: any header can carry them, nothing shows them, and none travels unencrypted unasked."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, RemoteError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, Connect, Serve


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"api_key": "sk-1234"}, {"authorization": "Bearer sk-1234", "api-key": None}),
        ({"api_key": "sk-1234", "api_key_header": "api-key"}, {"authorization": None, "api-key": "sk-1234"}),
        ({"headers": {"api-key": "sk-1234"}}, {"authorization": None, "api-key": "sk-1234"}),
        (
            {"api_key": "sk-1234", "headers": {"Authorization": "Key other", "X-Team": "search team"}},
            {"authorization": "Key other", "x-team": "search team"},
        ),
    ],
)
def test_keys_travel_in_any_header(
    settings: dict[str, Any], expected: dict[str, str | None], serve: Serve, connect: Connect
) -> None:
    """A bearer token, a header that carries the key alone, and further headers, which have the last word."""
    server = serve()
    connect(f"{server.url}/rerank", **settings).score(PAIRS)
    headers = server.seen[0][2]
    assert {name: headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"headers": {"CONTENT-type": "application/vnd.api+json"}}, "content-type", "application/vnd.api+json"),
        ({"headers": {"API-KEY": "sk-5678"}, "api_key": "sk-1234", "api_key_header": "api-key"}, "api-key", "sk-5678"),
        ({"headers": {"X-Team": "a", "x-team": "b"}}, "x-team", "b"),
    ],
)
def test_a_header_is_sent_once(settings: dict[str, Any], name: str, value: str, serve: Serve, connect: Connect) -> None:
    """Names of headers have no case; the caller's own header replaces ours, and the last one the others."""
    model = connect(f"{serve().url}/rerank", **settings)
    sent = [(key, found) for key, found in model._credentials.headers.items() if key.lower() == name]
    assert [found for _, found in sent] == [value]
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"headers": {"bad name": "x"}}, "headers contains the name 'bad name'"),
        ({"headers": {"X": "a\nb"}}, "headers['X'] has U+000A"),
        ({"headers": {"X": "naïve"}}, "headers['X'] has U+00EF"),
        ({"headers": {"X": 5}}, "headers['X'] is of type int"),
        ({"headers": [("X", "a")]}, "headers is of type list"),
        ({"api_key": "k", "api_key_header": "a b"}, "api_key_header contains the name 'a b'"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused(settings: dict[str, Any], words: str) -> None:
    """The error names the header and never shows its value."""
    with pytest.raises(InvalidInputError) as caught:
        RemoteCrossEncoder("http://127.0.0.1/rerank", **settings)
    assert words in str(caught.value)


def test_values_of_headers_and_urls_are_shown_nowhere(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in errors, reprs, names or logs, also when the server repeats them."""
    server = serve(lambda body: (403, {"detail": "no access for hunter2-hunter2 and sesame-sesame"}))
    model = connect(f"{server.url}/rerank?token=sesame-sesame", headers={"X-Api-Key": "hunter2-hunter2"})
    with caplog.at_level(logging.DEBUG), pytest.raises(RemoteError) as caught:
        model.score(PAIRS)
    assert server.seen[0][1] == "/rerank?token=sesame-sesame"
    shown = f"{caught.value}{model!r}{vars(model)!r}{model.name}{model.fingerprint}"
    shown += "".join(f"{record.getMessage()}{record.__dict__!r}" for record in caplog.records)
    assert "403" in shown
    assert "hunter2" not in shown
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://rerank.example/rerank", True),
        ("http://localhost:8000/rerank", True),
        ("http://127.0.0.2/rerank", True),
        ("http://[::1]:8000/rerank", True),
        ("http://rerank.example/rerank", False),
        ("http://10.0.0.7:8000/rerank", False),
        ("http://localhost.example/rerank", False),
        (["https://rerank.example", "http://rerank.example"], False),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [
        {"api_key": "sk-1234"},
        {"headers": {"api-key": "sk-1234"}},
        {"headers": {"Cookie": "sk-1234"}},
        {"headers": {"X-Own": "sk-1234567"}},
    ],
    ids=repr,
)
def test_a_key_does_not_travel_unencrypted_to_another_machine(url: Any, safe: bool, secret: dict[str, Any]) -> None:
    """Plain http to another host needs a word of the caller, and only where there is a key."""
    RemoteCrossEncoder(url, headers={"X-Team": "search", "User-Agent": "ours/1.0"})
    RemoteCrossEncoder(url, **secret, allow_insecure_key=True)
    if safe:
        RemoteCrossEncoder(url, **secret)
    else:
        with pytest.raises(InvalidInputError, match="allow_insecure_key=True") as caught:
            RemoteCrossEncoder(url, **secret)
        assert "sk-1234" not in str(caught.value)


def test_the_key_that_would_travel_unencrypted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who passed no key learns where it came from."""
    monkeypatch.setenv("CROSSRERANK_API_KEY", "sk-1234")
    with pytest.raises(InvalidInputError, match="key of CROSSRERANK_API_KEY would travel unencrypted"):
        RemoteCrossEncoder("http://rerank.example/rerank")
