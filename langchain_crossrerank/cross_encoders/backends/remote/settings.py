"""Checks of what a rerank server is reached with: its addresses, its key and further headers."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import httpx
from pydantic import SecretStr

from langchain_crossrerank.checks import cut
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.redaction import HIDDEN, looks_secret, secrets_of_url, show_url

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_HEADER = re.compile(r"key|token|auth|secret|cookie|password|credential|session|signature", re.IGNORECASE)
_NOT_IN_KEYS = re.compile(r"[^!-~]|\A\Z")
_NOT_IN_HEADERS = re.compile(r"[^ -~]|\A[ ]|[ ]\Z|\A\Z")


Value = TypeVar("Value")


def check_urls(url: str | Sequence[str], *, may_be_empty: bool = False) -> list[str]:
    """Return one or several addresses in their normal form.

    Raises:
        InvalidInputError: If there is none, or one is not a full http or https address, or contains a password.
    """
    urls = list(url) if isinstance(url, list | tuple) else [url]
    if not urls and not may_be_empty:
        raise InvalidInputError("url is an empty list; pass the address of at least one server.")
    return [_check_url(one) for one in urls]


def _check_url(url: object) -> str:
    # What comes before an @ may be a password.
    _, at, after = repr(show_url(url) if isinstance(url, str) else url).rpartition("@")
    shown = cut(f"{HIDDEN}{at}{after}" if at else after, 80)
    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]  # checked by httpx
    except (httpx.InvalidURL, TypeError, ValueError):
        # The library's own words may contain it too.
        raise InvalidInputError(f"url is {shown}, not a valid URL; pass the server's full address.") from None
    if parsed.userinfo:
        raise InvalidInputError(f"the URL of {parsed.host!r} contains a name or password; pass the api_key instead.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(f"url is {shown}; pass the full http:// or https:// address of the server.")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise InvalidInputError(f"url is {shown}, with an invalid port; pass the one that the server listens on.")
    return str(parsed.copy_with(fragment=None))


def check_key(api_key: object) -> SecretStr | None:
    """Return the key; for `None` that of the environment's `CROSSRERANK_API_KEY`. For `False` there is none.

    Raises:
        InvalidInputError: If no header can carry it.
    """
    if api_key is False:
        return None
    what, key = "api_key", api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if key is None:
        what, key = "api_key, taken from CROSSRERANK_API_KEY,", os.environ.get("CROSSRERANK_API_KEY", "")
        if not key.strip():
            return None
    if not isinstance(key, str):
        raise InvalidInputError(f"api_key is of type {type(key).__name__}; pass a string, or False for no key.")
    wrong = _NOT_IN_KEYS.search(key)
    if wrong is not None:
        raise InvalidInputError(
            f"{what} {_describe(wrong)}, which no header can carry; pass the key alone, without white space."
        )
    return SecretStr(key)


@dataclass(frozen=True)
class Credentials:
    """The headers of a request, and the secrets among them and in the addresses.

    Attributes:
        source: What the caller passed the secret as, for errors; `None` if there is none among the headers.
    """

    _headers: dict[str, SecretStr]
    _secrets: tuple[SecretStr, ...]
    source: str | None

    @classmethod
    def of(
        cls,
        api_key: SecretStr | str | Literal[False] | None,
        api_key_header: str | None,
        headers: Mapping[str, str | SecretStr] | None,
        urls: Sequence[str],
    ) -> Credentials:
        """Check a key and headers, and put them together.

        Raises:
            InvalidInputError: If one of them cannot be part of a header.
        """
        key, sent = check_key(api_key), check_headers(headers)
        hidden = [value for name, value in sent.items() if _is_secret(name, value.get_secret_value())]
        source = "headers" if hidden else None
        if key is not None:
            hidden.append(key)
            source = "key of CROSSRERANK_API_KEY" if api_key is None else "api_key"
        if api_key_header is not None:
            _check_header_name("api_key_header", api_key_header)
        if key is not None and api_key_header is not None:
            sent = _merged({api_key_header: key}, sent)
        elif key is not None:
            sent = _merged({"Authorization": SecretStr(f"Bearer {key.get_secret_value()}")}, sent)
        hidden += [SecretStr(secret) for url in urls for secret in secrets_of_url(url)]
        return cls(sent, tuple(hidden), source)

    @property
    def headers(self) -> dict[str, str]:
        """The headers as they are sent."""
        fixed = {"Accept-Encoding": "gzip", "Content-Type": "application/json"}
        return _merged(fixed, {name: value.get_secret_value() for name, value in self._headers.items()})

    @property
    def secrets(self) -> list[str]:
        """What may be shown nowhere."""
        return [secret.get_secret_value() for secret in self._secrets]

    def check_encryption(self, urls: Sequence[str]) -> None:
        """Raise if a secret header would travel unencrypted to another machine.

        Raises:
            InvalidInputError: If an address is plain http to another machine.
        """
        exposed = next((url for url in urls if self.source is not None and _is_exposed(httpx.URL(url))), None)
        if exposed is not None:
            raise InvalidInputError(
                f"the {self.source} would travel unencrypted to {show_url(exposed)}, readable by every proxy and "
                "network on the way; pass an https:// address, or allow_insecure_key=True if you trust the network."
            )


def check_headers(headers: Mapping[str, str | SecretStr] | None) -> dict[str, SecretStr]:
    """Return further headers of a request, their values as secrets.

    Raises:
        InvalidInputError: If a name or a value cannot be part of a header.
    """
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidInputError(f"headers is of type {type(headers).__name__}; pass a dict of names and values.")
    checked: dict[str, SecretStr] = {}
    for name, value in (headers or {}).items():
        _check_header_name("headers", name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            raise InvalidInputError(f"headers[{name!r}] is of type {type(text).__name__}; pass a string.")
        wrong = _NOT_IN_HEADERS.search(text)
        if wrong is not None:
            raise InvalidInputError(
                f"headers[{name!r}] {_describe(wrong)}, which no header can carry; pass ASCII text."
            )
        checked[name] = SecretStr(text)
    return _merged(checked)


def _merged(*headers: Mapping[str, Value]) -> dict[str, Value]:
    """Join headers, whose names have no case; of one name, the last value is kept."""
    last = {name.lower(): (name, value) for some in headers for name, value in some.items()}
    return dict(last.values())


def _is_secret(name: str, value: str) -> bool:
    return _SECRET_HEADER.search(name) is not None or any(looks_secret(word) for word in value.split())


def _is_exposed(url: httpx.URL) -> bool:
    if url.scheme != "http" or url.host == "localhost" or url.host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return True


def _check_header_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise InvalidInputError(f'{what} contains the name {name!r}; pass the name of a header, such as "api-key".')


def _describe(wrong: re.Match[str]) -> str:
    return f"has U+{ord(wrong.group()):04X} at position {wrong.start()}" if wrong.group() else "is empty"
