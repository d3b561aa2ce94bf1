"""Who may use the server: keys, hosts and origins, and where it may listen."""

from __future__ import annotations

import logging
import os
import re
import socket

import httpx
import pytest
from starlette.datastructures import URL
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.server import access
from langchain_crossrerank.server.application import create_app
from langchain_crossrerank.server.config import (
    ServerConfig,
    check_exposure,
    is_loopback,
    keys_from_environment,
    local_hosts,
    named_models,
)
from langchain_crossrerank.server.problems import Problem
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.conftest import Serve

KEY = "a-key-that-is-long-enough"
BODY = {"query": "q", "documents": ["a"]}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"authorization": "Bearer another-key"},
    ],
)
def test_a_key_opens_the_server(serve_fake: Serve, headers: dict[str, str]) -> None:
    """Each of several keys is accepted in each header that clients use."""
    with serve_fake(FakeCrossEncoder(), api_keys=(KEY, "another-key")) as server, server.client() as client:
        for path in ("/v1/models", "/metrics"):
            assert client.get(path, headers=headers).status_code == httpx.codes.OK
        assert client.post("/v1/rerank", json=BODY, headers=headers).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer schlüssel".encode("latin-1")},
    ],
)
def test_without_the_key_nothing_is_answered(serve_fake: Serve, headers: dict[str, str]) -> None:
    """A missing or wrong key gets 401 in the shape of the dialect, on every path that does something or shows it."""
    with serve_fake(FakeCrossEncoder(), api_keys=(KEY,)) as server, server.client() as client:
        answers = [client.get(path, headers=headers) for path in ("/v1/models", "/metrics", "/nothing")]
        answers += [client.post(path, json=BODY, headers=headers) for path in ("/rerank", "/v1/rerank", "/score")]
        assert {answer.status_code for answer in answers} == {httpx.codes.UNAUTHORIZED}
        assert all(answer.headers["www-authenticate"] == "Bearer" for answer in answers)
        assert answers[4].json()["message"].endswith("Send the key as `Authorization: Bearer KEY`.")
        assert answers[5].json()["error"]["type"] == "AuthenticationError"
        assert KEY not in "".join(answer.text for answer in answers)


def test_state_and_documentation_need_no_key(serve_fake: Serve) -> None:
    """A load balancer can ask for the state, and the documentation says that a key is needed."""
    with serve_fake(FakeCrossEncoder(), api_keys=(KEY,)) as server, server.client() as client:
        assert client.get("/health").status_code == httpx.codes.OK
        assert client.get("/openapi.json").json()["security"] == [{"key": []}]


def test_the_host_header_opens_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a key is needed depends on the path that is routed, whatever URL is made of the `Host` header."""
    monkeypatch.setattr(HTTPConnection, "url", URL("http://host/health?/v1/models"))
    connection = HTTPConnection({"type": "http", "path": "/v1/models", "headers": [(b"host", b"host/health?")]})
    with pytest.raises(Problem, match="No API key provided"):
        access.check_access(connection, api_keys=(KEY,), allowed_hosts=None)


def test_below_a_prefix_the_same_paths_are_open(own_cache: object) -> None:
    """Mounted below a path, the server needs a key for what needs one elsewhere, and answers in the same dialects."""
    app = create_app(ServerConfig({"fake": "bundled"}, api_keys=(KEY,)))
    with TestClient(app, root_path="/prefix") as client:
        assert client.get("/prefix/health").status_code != httpx.codes.UNAUTHORIZED
        assert client.get("/prefix/v1/models").status_code == httpx.codes.UNAUTHORIZED
        refused = client.post("/prefix/score", json={"text_1": "q", "text_2": ["a"]})
        assert refused.json()["error"]["type"] == "AuthenticationError"
        answer = client.post("/prefix/score", json={"text_1": "q"}, headers={"x-api-key": KEY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


def test_keys_are_compared_in_constant_time(serve_fake: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key is compared by `hmac.compare_digest`, whichever matches."""
    compared: list[bytes] = []

    def compare(sent: bytes, key: bytes) -> bool:
        compared.append(key)
        return sent == key

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    with serve_fake(FakeCrossEncoder(), api_keys=("first", "second")) as server, server.client() as client:
        client.get("/v1/models", headers={"x-api-key": "first"})
    assert compared == [b"first", b"second"]


def test_keys_are_never_shown(serve_fake: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """No key is in a log, at any level, or in the `repr` of a configuration."""
    caplog.set_level(logging.DEBUG)
    with serve_fake(FakeCrossEncoder(), api_keys=(KEY,)) as server, server.client() as client:
        client.post("/v1/rerank", json=BODY, headers={"authorization": f"Bearer {KEY}"})
        client.post("/v1/rerank", json=BODY, headers={"authorization": f"Bearer {KEY}-wrong"})
    assert KEY not in caplog.text
    assert KEY not in repr(ServerConfig({"bundled": "bundled"}, api_keys=(KEY,)))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "["])
def test_foreign_names_of_this_machine_are_refused(fake_client: httpx.Client, host: str) -> None:
    """A page that points its own name to the loopback address reaches nothing."""
    answer = fake_client.post("/v1/rerank", json=BODY, headers={"host": host})
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "--allow-host" in answer.json()["message"]


def test_own_names_are_accepted(fake_client: httpx.Client) -> None:
    """The loopback address has its usual names, with any port, and those that were allowed."""
    hosts = local_hosts("127.0.0.1", ["Rerank.Example"])
    assert hosts is not None
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:8000"):
        assert fake_client.get("/v1/models", headers={"host": host}).status_code == httpx.codes.OK
    assert "rerank.example" in hosts
    assert local_hosts("0.0.0.0") is None


def test_a_probe_without_a_host_is_answered(serve_fake: Serve) -> None:
    """Health probes speak HTTP/1.0 without the header that every browser sends."""
    with serve_fake(FakeCrossEncoder(), allowed_hosts=local_hosts("127.0.0.1")) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").readline().split()[1] == b"200"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "192.168.1.2"])
def test_names_that_are_given_are_the_only_ones(serve_fake: Serve, host: str) -> None:
    """Wherever the server listens, a page that points another name to it reaches nothing once names are given."""
    with serve_fake(FakeCrossEncoder(), allowed_hosts=local_hosts(host, ["Rerank.lan"])) as server:
        for name, status in (("rerank.lan", 200), ("localhost", 200), ("evil.example", 403)):
            assert httpx.get(f"{server.url}/v1/models", headers={"host": name}).status_code == status


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://["])
def test_pages_of_other_sites_are_refused(fake_client: httpx.Client, origin: str) -> None:
    """A request that a browser sends for another site's page is not answered; one of our own page is."""
    answer = fake_client.post("/v1/rerank", json=BODY, headers={"origin": origin})
    assert answer.status_code == httpx.codes.FORBIDDEN
    own = fake_client.post("/v1/rerank", json=BODY, headers={"origin": str(fake_client.base_url)})
    assert own.status_code == httpx.codes.OK
    assert "access-control-allow-origin" not in own.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    """Only programs on this machine reach the loopback address."""
    assert is_loopback(host)
    check_exposure(host, (), no_auth=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "rerank.example", "", "127.0.0.1.nip.io"])
def test_other_addresses_need_a_key(host: str) -> None:
    """Anything else is refused without a key, unless that is asked for."""
    with pytest.raises(InvalidInputError, match=r"CROSSRERANK_API_KEY.*--no-auth"):
        check_exposure(host, (), no_auth=False)
    check_exposure(host, (KEY,), no_auth=False)
    check_exposure(host, (), no_auth=True)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several keys are separated by commas; blanks are left out."""
    monkeypatch.setenv("CROSSRERANK_API_KEY", " first-key, second-key ,,")
    assert keys_from_environment() == ("first-key", "second-key")
    monkeypatch.delenv("CROSSRERANK_API_KEY")
    assert keys_from_environment() == ()


@pytest.mark.parametrize("key", ["", "abc", "white space ", "schlüssel", "tab\tin it"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    """A key that is guessed at once, or that no header can carry, is refused without showing it."""
    with pytest.raises(InvalidInputError, match=f"API key of {len(key)} characters") as raised:
        ServerConfig({"bundled": "bundled"}, api_keys=(key,))
    assert not key.strip() or key not in str(raised.value)


def test_models_are_served_by_name(tmp_path: object) -> None:
    """A model has the name it is given, a folder its own, and a URL shows no secrets."""
    folder = f"{tmp_path}/my=model"
    os.mkdir(folder)
    url = "https://user:secret@host.example/rerank?key=hidden"
    named = named_models(["bundled", "fast=bundled", folder, "org/name", url])
    assert [*named][:4] == ["bundled", "fast", "my=model", "org/name"]
    assert list(named.values()) == ["bundled", "bundled", folder, "org/name", url]
    assert not re.search("secret|hidden", [*named][4])


@pytest.mark.parametrize(
    ("models", "message"),
    [(["bundled", "bundled"], "two models"), (["=bundled"], "NAME=MODEL"), (["name="], "NAME=MODEL")],
)
def test_names_are_checked(models: list[str], message: str) -> None:
    """Two models of one name and empty names are refused."""
    with pytest.raises(InvalidInputError, match=message):
        named_models(models)


def test_a_server_needs_a_model() -> None:
    """The error names the model that is always there."""
    with pytest.raises(InvalidInputError, match="crossrerank serve bundled"):
        ServerConfig({})
