"""Invalid addresses, keys and limits are refused when the model is made."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import SecretStr

from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.redaction import HIDDEN
from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import KEY, shows_key, whole

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
    """The error and its causes do not contain the password, whatever else is wrong with the URL."""
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
    """The error comes at once, shows the value, except for the query, and says what to pass."""
    tally("bad URLs")
    with pytest.raises(InvalidInputError, match="pass the") as caught:
        RemoteCrossEncoder(url)
    assert repr(url).replace("?query", f"?{HIDDEN}") in str(caught.value)


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
    """A caller who passed no key learns where it came from."""
    tally("bad keys")
    monkeypatch.setenv("CROSSRERANK_API_KEY", f"{KEY}\n")
    with pytest.raises(InvalidInputError, match="CROSSRERANK_API_KEY") as caught:
        RemoteCrossEncoder("http://127.0.0.1/")
    assert not shows_key(whole(caught.value))


BAD_SETTINGS: list[tuple[str, Any]] = [
    *itertools.product(["max_documents", "max_response_bytes"], [0, -1, 1.5, "8", True, None]),
    *itertools.product(["max_length"], [0, -1, 1.5, "8", True]),
    *itertools.product(["max_retries"], [-1, 0.5, "1", True, None]),
    *itertools.product(["timeout"], [0, -1.0, float("nan"), float("inf"), "30", True, None]),
    *itertools.product(["max_retry_wait"], [-1.0, float("nan"), float("inf"), "30", True, None]),
    *itertools.product(["attempt_timeout"], [0, -1.0, float("nan"), float("inf"), "30", True]),
    *itertools.product(["request_shape"], ["cohere", "", 5, []]),
    *itertools.product(["activation"], ["softmax", ""]),
    *itertools.product(["extra_body"], [5, [("a", 1)], {"a": {1, 2}}, {"a": float("nan")}]),
    *itertools.product(["make_request", "read_answer"], [5, "function", {}]),
    *itertools.product(["model"], ["", 5, "m\ud800"]),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=ascii)
def test_a_bad_setting_is_refused(name: str, value: Any, tally: Tally) -> None:
    """The error comes when the model is made, names the setting and its value, and says what to pass."""
    tally("bad settings")
    with pytest.raises(InvalidInputError, match=rf"{name} is .*; pass ") as caught:
        RemoteCrossEncoder("http://127.0.0.1/", **{name: value})
    assert repr(value) in str(caught.value)
