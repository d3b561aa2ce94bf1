"""Checks of what a rerank server is reached with: its address, key, limits and times."""

from __future__ import annotations

import os
import re

import httpx
from pydantic import SecretStr

from langchain_crossrerank.checks import cut
from langchain_crossrerank.errors import InvalidInputError

HIDDEN = "**********"
"""Stands where a password or key stood."""


def check_url(url: str) -> str:
    """Give an address in its normal form.

    Raises:
        InvalidInputError: If it is not a full http or https address, or carries a password.
    """
    # What stands before an @ may be a password.
    _, at, after = repr(url).rpartition("@")
    shown = cut(f"{HIDDEN}{at}{after}" if at else after, 80)
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        # The library's own words may hold it too.
        raise InvalidInputError(f"url is {shown}, which is no URL; pass the endpoint's full address.") from None
    if parsed.userinfo:
        raise InvalidInputError(f"the URL of {parsed.host!r} carries a name or password; pass api_key instead.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(f"url is {shown}; pass the full http:// or https:// address of the endpoint.")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise InvalidInputError(f"url is {shown}, whose port cannot be; pass the one that the server listens on.")
    return str(parsed)


def check_key(api_key: object) -> SecretStr | None:
    """Give the key, or else the environment's `CROSSRERANK_API_KEY`; `None` where there is neither.

    Raises:
        InvalidInputError: If no header can carry it.
    """
    what, key = "api_key", api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if key is None:
        what, key = "api_key, taken from CROSSRERANK_API_KEY,", os.environ.get("CROSSRERANK_API_KEY", "")
        if not key.strip():
            return None
    if not isinstance(key, str):
        raise InvalidInputError(f"api_key is of type {type(key).__name__}; pass a string, or None for no key.")
    wrong = re.search(r"[^!-~]|\A\Z", key)
    if wrong is not None:
        found = f"has U+{ord(wrong.group()):04X} at position {wrong.start()}" if wrong.group() else "is empty"
        raise InvalidInputError(
            f"{what} {found} and no header can carry that; pass the key alone, without white space or line end."
        )
    return SecretStr(key)
