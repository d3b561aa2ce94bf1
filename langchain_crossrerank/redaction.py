"""Hides secrets wherever a URL or a server's words are shown: `repr`, errors, metadata, logs and traces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN = "**********"
"""Shown in place of a secret."""

MIN_SECRET = 4
"""Characters below which a secret is not searched for in other text: it would be found in every word."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_KEY_PREFIX = re.compile(r"(sk|pk|rk|hf|gsk|jina|pa|key|token|bearer)[-_]\w{6,}", re.IGNORECASE)
_LONG_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_KEY_NAME = re.compile(r"(api[-_]?)?(key|token|secret)s?", re.IGNORECASE)


def show_url(address: str) -> str:
    """Return a URL with its secrets hidden, safe to show anywhere; other text is returned unchanged.

    Hidden are the name and password before the host, the values of the query, the fragment, and parts of the path that
    look like a key: random letters and digits, a UUID, a known prefix such as `sk-`, or what follows `/key/`.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest, hash_sign, _ = rest.partition("#")
    rest, question_mark, query = rest.partition("?")
    # A password may contain a slash that was not escaped, so the last @ counts.
    credentials, at, place = rest.rpartition("@")
    host, slash, path = place.partition("/")
    shown = f"{scheme}://{HIDDEN + at if credentials else ''}{host}{slash}{_show_path(path)}"
    if question_mark:
        fields = [field.partition("=") for field in query.split("&")]
        shown += "?" + "&".join(f"{name}={HIDDEN}" if sign else HIDDEN for name, sign, _ in fields)
    return f"{shown}#{HIDDEN}" if hash_sign else shown


def secrets_of_url(address: str) -> list[str]:
    """Return the parts of a URL that `show_url` hides."""
    _, separator, rest = address.partition("://")
    if not separator:
        return []
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    credentials, _, place = rest.rpartition("@")
    segments = place.partition("/")[2].split("/")
    hidden = [
        part for part, shown in zip(segments, _show_path("/".join(segments)).split("/"), strict=True) if part != shown
    ]
    values = [value if sign else name for name, sign, value in (field.partition("=") for field in query.split("&"))]
    found = [*credentials.split(":"), *hidden, *values, fragment]
    return [form for part in found if part for form in {part, unquote(part)}]


def looks_secret(word: str) -> bool:
    """Whether a word looks like a key: random letters and digits, a UUID, or a known prefix such as `sk-`."""
    return bool(_UUID.search(word) or _KEY_PREFIX.match(word) or any(map(_is_mixed, _LONG_RUN.findall(word))))


def _is_mixed(run: str) -> bool:
    return not run.isalpha() and not run.isdigit()


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every secret hidden, in any case and however JSON or a URL may write it."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            text = re.sub("".join(map(_spellings, secret)), HIDDEN, text, flags=re.IGNORECASE)
    return text


def _show_path(path: str) -> str:
    segments = path.split("/")
    shown = [
        HIDDEN if segment and (looks_secret(segment) or _KEY_NAME.fullmatch(before)) else segment
        for before, segment in zip(["", *segments], segments, strict=False)
    ]
    return "/".join(shown)


def _spellings(character: str) -> str:
    """Return a pattern for a character as it is, or as JSON and URLs may write it."""
    if character.isalnum():
        return character
    code = f"{ord(character):02x}"
    return rf"(?:\\?{re.escape(character)}|\\u00{code}|%{code})"
