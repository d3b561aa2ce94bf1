"""Checks of what a rerank server is reached with: its address, key, limits and times."""

from __future__ import annotations

import math
import os
import re

import httpx
from pydantic import SecretStr

from langchain_crossrerank.cross_encoders.pairs import shorten
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


def check_choices(**settings: tuple[object, tuple[str, ...]]) -> None:
    """Raise `InvalidInputError` unless each setting is one of its choices."""
    for what, (value, choices) in settings.items():
        if value not in choices:
            raise InvalidInputError(f"{what} is {shorten(value)}; pass {' or '.join(map(repr, choices))}.")


def check_whole_numbers(**settings: tuple[object, int]) -> None:
    """Raise `InvalidInputError` unless each setting is a whole number, and at least its least."""
    for what, (value, least) in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidInputError(f"{what} is {shorten(value)}; pass a whole number of at least {least}.")


def check_seconds(*, timeout: object, max_retry_wait: object) -> None:
    """Raise `InvalidInputError` unless both are finite numbers of seconds, and `timeout` above 0."""
    for what, value in (("timeout", timeout), ("max_retry_wait", max_retry_wait)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
        if not is_number or (what == "timeout" and value == 0):
            least = "above 0" if what == "timeout" else "of 0 or more"
            raise InvalidInputError(f"{what} is {shorten(value)}; pass a number of seconds {least}.")


def cut(text: str, limit: int) -> str:
    """Shorten a text to `limit` characters, with dots for what is left out."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
