"""Who may use a server: keys, and the hosts and origins that a browser may send."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_crossrerank.server.problems import Problem

OPEN_PATHS = ("/health", "/openapi.json", "/", "/page/")
"""Paths that need no key: health, the OpenAPI document, and the page without any passages. One that ends in a slash
covers everything below it, except `/` itself."""

_KEY_HEADERS = ("x-api-key", "api-key")


class Access:
    """Lets requests in that may be answered, and refuses the others.

    Args:
        app: What answers.
        api_keys: Keys of which a request must have one; empty for none.
        allowed_hosts: Names that a request's `Host` may have; `None` for any.
        refuse: Writes the answer to a request that is not let in.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_keys: Sequence[str],
        allowed_hosts: Sequence[str] | None,
        refuse: Callable[[Request, Problem], Response],
    ) -> None:
        self._app = app
        self._api_keys = api_keys
        self._allowed_hosts = allowed_hosts
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            request = Request(scope)
            try:
                check_access(request, api_keys=self._api_keys, allowed_hosts=self._allowed_hosts)
            except Problem as problem:
                await self._refuse(request, problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def check_access(request: HTTPConnection, *, api_keys: Sequence[str], allowed_hosts: Sequence[str] | None) -> None:
    """Raise unless a request may be answered.

    Raises:
        Problem: If the host or origin is not allowed, or the key is missing or wrong.
    """
    _check_host(request, allowed_hosts)
    _check_origin(request)
    if api_keys and not _is_open(route_path(request.scope)):
        _check_key(request, api_keys)


def route_path(scope: Scope) -> str:
    """Return the path of a request as routes name it, below the prefix that the application is mounted at.

    The path of `request.url` is no ground for a decision: that URL is put together from the `Host` header as well.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if path == prefix or path.startswith(f"{prefix}/") else path


def _is_open(path: str) -> bool:
    return any(
        path == known or (known != "/" and known.endswith("/") and path.startswith(known)) for known in OPEN_PATHS
    )


def _check_host(request: HTTPConnection, allowed_hosts: Sequence[str] | None) -> None:
    """Refuse names that another site's page has pointed at this machine (DNS rebinding).

    Every browser sends the header; what does not, such as a health probe with HTTP/1.0, is none.
    """
    host = request.headers.get("host")
    if host is not None and allowed_hosts is not None and host_name(host) not in allowed_hosts:
        raise Problem(
            "forbidden",
            f"the host {host[:80]!r} is not one of this server's names; start it with --allow-host to add one.",
        )


def _check_origin(request: HTTPConnection) -> None:
    """Refuse requests that a browser sends for the page of another site."""
    origin = request.headers.get("origin")
    if origin is not None and _netloc(origin) != request.headers.get("host", ""):
        raise Problem(
            "forbidden", f"the origin {origin[:80]!r} is another site; only this server's own page may call it."
        )


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without the port; `""` if it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _check_key(request: HTTPConnection, api_keys: Sequence[str]) -> None:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    sent = bearer.strip() if scheme.lower() == "bearer" else ""
    for header in _KEY_HEADERS:
        sent = sent or request.headers.get(header, "")
    # All are compared, in constant time, so that nothing can be learned from how long it takes.
    matches = [hmac.compare_digest(sent.encode(), key.encode()) for key in api_keys]
    if not any(matches):
        # Cohere's wording, by which some clients recognise this error.
        what = "invalid api token" if sent else "No API key provided"
        raise Problem("unauthorized", f"{what}. Send the key as `Authorization: Bearer KEY`.")
