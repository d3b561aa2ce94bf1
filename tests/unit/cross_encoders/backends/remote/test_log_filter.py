"""Keys in the logs of the HTTP libraries."""

from __future__ import annotations

import gc
import logging
import pickle
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.cross_encoders.backends.remote.log_filter import hide_in_logs
from langchain_crossrerank.cross_encoders.backends.remote.settings import Credentials
from langchain_crossrerank.redaction import HIDDEN


def credentials_of(key: str, **settings: Any) -> Credentials:
    """Credentials with a key for a server that is never asked."""
    return Credentials.of(key, None, settings.get("headers"), ["https://rerank.example"])


@pytest.mark.parametrize(
    "name", ["httpx", "httpcore.http11", "httpcore.http2", "httpcore.connection", "httpcore.proxy"]
)
def test_a_secret_is_in_no_record(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is hidden in messages and arguments, for every handler; the rest of the record stays."""
    credentials = credentials_of("sk-of-the-filter-test", headers={"x-token": "ab"})
    hide_in_logs(credentials)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(name).debug("headers %r and %s", [(b"x-echo", b"sk-of-the-filter-test")], "about")
        logging.getLogger(name).info("%d plain", 5)
    echo, plain = caplog.records
    assert echo.getMessage() == f"headers [(b'x-echo', b'{HIDDEN}')] and about"
    assert "sk-of-the-filter-test" not in repr(vars(echo))
    assert (plain.msg, plain.args) == ("%d plain", (5,))


def test_the_filter_is_added_once() -> None:
    """Many models do not slow the logs down."""
    before = len(logging.getLogger("httpx").filters)
    several = [credentials_of(f"sk-number-{number}") for number in range(5)]
    for credentials in several:
        hide_in_logs(credentials)
    assert len(logging.getLogger("httpx").filters) == max(1, before)


def logged(text: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return what the log of the HTTP library has of a text."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        logging.getLogger("httpx").info(text)
    return caplog.records[0].getMessage()


def test_a_secret_is_hidden_as_long_as_a_model_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """The last of several models with a key, copies included, takes the key out of the filter with it."""
    first = RemoteCrossEncoder("https://rerank.example", api_key="sk-shared-key")
    second = RemoteCrossEncoder("https://rerank.example", api_key="sk-shared-key")
    copy = pickle.loads(pickle.dumps(second))
    for model in (first, second, copy):
        assert logged("sk-shared-key", caplog) == HIDDEN
        model.close()
        assert logged("sk-shared-key", caplog) == HIDDEN, "a closed model may be used again"
    del first, second, model
    gc.collect()
    assert logged("sk-shared-key", caplog) == HIDDEN
    del copy
    gc.collect()
    assert logged("sk-shared-key", caplog) == "sk-shared-key"
