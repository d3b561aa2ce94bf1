"""Says why a download from the Hugging Face hub failed."""

from __future__ import annotations

import re
from urllib.request import getproxies

from langchain_crossrerank.checks import cut
from langchain_crossrerank.redaction import show_url

_LONGEST = 200


def describe_failure(err: BaseException) -> str:
    """Describe why a download failed: what the network, the proxy or the server said, not what was made of it.

    Args:
        err: What the hub's client raised; its causes are followed to the first one.

    Returns:
        Text such as `"ConnectError: [Errno -2] Name or service not known; the proxy is http://proxy:3128"`.
    """
    first = _first_cause(err)
    # The client for HTTP adds a page about the status.
    words = re.sub(r"For more information check: \S+", "", str(first)).split()
    message = cut(" ".join(words), _LONGEST)
    reason = f"{type(first).__name__}: {message}" if message else type(first).__name__
    proxy = getproxies().get("https") or getproxies().get("all")
    # A refused offline look-up never reached the network.
    if proxy is None or type(first).__name__ == "OfflineModeIsEnabled":
        return reason
    return f"{reason}; the proxy is {show_url(proxy)}"


def find_status(err: BaseException) -> int | None:
    """Return the HTTP status with which a server refused a download; `None` if none answered."""
    return getattr(getattr(_first_cause(err), "response", None), "status_code", None)


def _first_cause(err: BaseException) -> BaseException:
    while (cause := err.__cause__ or (None if err.__suppress_context__ else err.__context__)) is not None:
        err = cause
    return err
