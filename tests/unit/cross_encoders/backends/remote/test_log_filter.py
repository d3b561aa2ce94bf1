"""Keys in the logs of the HTTP libraries."""

from __future__ import annotations

import logging

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.log_filter import hide_in_logs
from langchain_crossrerank.redaction import HIDDEN


@pytest.mark.parametrize(
    "name", ["httpx", "httpcore.http11", "httpcore.http2", "httpcore.connection", "httpcore.proxy"]
)
def test_a_secret_is_in_no_record(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is hidden in messages and arguments, for every handler; the rest of the record stays."""
    hide_in_logs(["sk-of-the-filter-test", "ab", ""])
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
    for number in range(5):
        hide_in_logs([f"sk-number-{number}"])
    assert len(logging.getLogger("httpx").filters) == max(1, before)
