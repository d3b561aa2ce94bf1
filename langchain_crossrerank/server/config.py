"""What a server is started with: models by name, keys, limits, and where it may listen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from langchain_crossrerank.checks import check_whole_numbers, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.redaction import MIN_SECRET, show_url

API_KEY_VARIABLE = "CROSSRERANK_API_KEY"
"""Environment variable with the keys that clients may use, separated by commas."""

UPSTREAM_KEY_VARIABLE = "CROSSRERANK_UPSTREAM_API_KEY"
"""Environment variable with the key that is sent to rerank servers whose URLs are served as models."""

MEMORY = "memory"
"""The value of `cache` that keeps scores in the memory of each process."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a request and of the queue; each worker process has a queue of its own.

    Attributes:
        documents: Maximum documents in a request.
        tokens: Maximum tokens in a request, estimated at four characters per token; no document counts for more than
            the model reads, and a longer query counts once as a whole.
        body_bytes: Maximum bytes in the body of a request.
        body_seconds: Seconds in which the body must have arrived.
        queue: Maximum requests in progress at a time; further ones get 429.
    """

    documents: int = 1000
    tokens: int = 524_288
    body_bytes: int = 16 * 2**20
    body_seconds: float = 30.0
    queue: int = 128

    def __post_init__(self) -> None:
        check_whole_numbers(
            max_documents=(self.documents, 1),
            max_tokens=(self.tokens, 1),
            max_body_bytes=(self.body_bytes, 1),
            max_queue=(self.queue, 1),
        )


@dataclass(frozen=True)
class PagePassage:
    """A passage that the page searches.

    Attributes:
        text: The passage.
        source: Where it comes from, in words.
        file: The name of its file.
    """

    text: str
    source: str = ""
    file: str = ""


@dataclass(frozen=True)
class ServerConfig:
    """Everything that a worker process needs to serve; can be pickled.

    Attributes:
        models: What `load_cross_encoder` loads, by the name that clients use; the first is the default.
        loading: Further arguments of `load_cross_encoder`, for all models. Where it has no `api_key`, a URL gets the
            key in `CROSSRERANK_UPSTREAM_API_KEY`, or none.
        api_keys: Keys of which a client must send one; empty for a server that anyone may use.
        cache: `None`, `"memory"`, or the path of a SQLite file for scores.
        limits: Bounds of requests.
        allowed_hosts: Names that a request's `Host` may have; `None` for any. It keeps web pages that a browser shows
            from reaching a server on the loopback address under a name of their own.
        passages: Passages that the page searches.
        worker_threads: Threads of a forward pass, where `loading` does not set them and the backend supports it; `None`
            for the backend's own choice.
    """

    models: Mapping[str, str]
    loading: Mapping[str, Any] = field(default_factory=dict)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    cache: str | None = None
    limits: Limits = field(default_factory=Limits)
    allowed_hosts: tuple[str, ...] | None = None
    passages: tuple[PagePassage, ...] = ()
    worker_threads: int | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise InvalidInputError(
                'no model is named; name at least one: "bundled" for the model inside this package, a folder, or a '
                "name on the Hugging Face hub, as in `crossrerank serve bundled`."
            )
        check_keys(self.api_keys)


def named_models(models: Sequence[str]) -> dict[str, str]:
    """Return models by the names that clients use.

    Args:
        models: `MODEL` or `NAME=MODEL`. Without a name, a folder is served under its own name and a URL without its
            secrets.

    Raises:
        InvalidInputError: If two models have the same name, or a name or model is empty.
    """
    named: dict[str, str] = {}
    for given in models:
        name, sign, model = given.partition("=")
        if not sign or os.path.exists(given) or "://" in name:
            model = given
            name = Path(given).resolve().name if os.path.isdir(given) else show_url(given)
        if not name.strip() or not model.strip():
            raise InvalidInputError(f"{shorten(given)} does not name a model; pass MODEL or NAME=MODEL.")
        if name in named:
            raise InvalidInputError(
                f"two models would be served as {name!r}; name one of them, as in {f'another={model}'!r}."
            )
        named[name] = model
    return named


def keys_from_environment() -> tuple[str, ...]:
    """Return the keys in `CROSSRERANK_API_KEY`."""
    keys = (key.strip() for key in os.environ.get(API_KEY_VARIABLE, "").split(","))
    return tuple(key for key in keys if key)


def check_keys(api_keys: Sequence[str]) -> None:
    """Check the keys that clients may use.

    Raises:
        InvalidInputError: If one is guessed at once, or no header can carry it.
    """
    for key in api_keys:
        if len(key) < MIN_SECRET or not key.isascii() or not key.isprintable() or key != key.strip():
            raise InvalidInputError(
                f"an API key of {len(key)} characters is not valid; pass {MIN_SECRET} or more printable ASCII "
                "characters, such as the output of `openssl rand -hex 24`."
            )


def upstream_key() -> str | Literal[False]:
    """Return the key in `CROSSRERANK_UPSTREAM_API_KEY`, as the `api_key` of a rerank server that is served as a model.

    It is never that of `CROSSRERANK_API_KEY`, which has the keys of our own clients.
    """
    return os.environ.get(UPSTREAM_KEY_VARIABLE) or False


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, api_keys: Sequence[str], *, no_auth: bool) -> None:
    """Raise unless it is safe, or allowed outright, to listen on `host`.

    Raises:
        InvalidInputError: If other machines could use the server without a key.
    """
    if not is_loopback(host) and not api_keys and not no_auth:
        raise InvalidInputError(
            f"--host is {host!r}, so other machines could use the server without a key; set {API_KEY_VARIABLE}, pass "
            "--api-key, or pass --no-auth to allow it."
        )


def local_hosts(host: str, others: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Return the names by which a server may be addressed; `None` for any.

    Any are allowed where it listens on another address than the loopback one and no names are given.

    Args:
        host: Where it listens.
        others: Further names than those of the loopback address.
    """
    if not is_loopback(host) and not others:
        return None
    return ("localhost", "127.0.0.1", "::1", host, *(name.lower() for name in others))
