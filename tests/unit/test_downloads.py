"""Why a download failed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from langchain_crossrerank.downloads import describe_failure


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy from this machine's environment."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def failure(*errors: Exception) -> Exception:
    """The last of several errors, each caused by the one before."""
    for cause, err in pairwise(errors):
        err.__cause__ = cause
    return errors[-1]


def test_the_first_cause_is_named() -> None:
    """What the network said is shown, not the summary of the hub's client."""
    err = failure(OSError(-2, "Name or service not known"), ValueError("cannot find the snapshot"))
    assert describe_failure(err) == "OSError: [Errno -2] Name or service not known"


def test_an_error_during_the_handling_of_another_is_followed() -> None:
    """An error without an explicit cause leads to the one that was being handled, unless that was suppressed."""
    err, hidden = ValueError("late"), ValueError("late")
    err.__context__ = ConnectionError("refused")
    hidden.__context__, hidden.__suppress_context__ = ConnectionError("refused"), True
    assert describe_failure(err) == "ConnectionError: refused"
    assert describe_failure(hidden) == "ValueError: late"


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may be the cause, so its address is shown, and its password is not."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    assert (
        describe_failure(ConnectionError("refused"))
        == "ConnectionError: refused; the proxy is http://**********@proxy:3128"
    )


def test_a_long_message_is_shortened() -> None:
    """A server's error page does not fill the terminal; an error without a message is named by its class."""
    assert len(describe_failure(ValueError("x" * 10_000))) < 300
    assert describe_failure(TimeoutError()) == "TimeoutError"


def test_an_advertised_page_is_left_out() -> None:
    """What the HTTP client adds to a refusal says nothing about this one."""
    refusal = "Client error '404 Not Found' for url 'https://a/b'\nFor more information check: https://a.example/404"
    assert describe_failure(ValueError(refusal)) == "ValueError: Client error '404 Not Found' for url 'https://a/b'"
