"""Where on a server reranking is asked for: the given address, or the usual routes below a base address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import httpx

from langchain_crossrerank.redaction import show_url

_ENDPOINTS = frozenset({"rerank", "reranks", "reranking", "ranking", "score", "text-rerank", "predict", "invocations"})
_VERSION = re.compile(r"v\d+")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WRONG_ROUTE = frozenset({404, 405})


class Route:
    """The address to ask at one server, found by trying the usual ones.

    An address that ends in the name of an endpoint is asked as given, then with or without a trailing slash. Below a
    base address (nothing but a version in its path) the usual endpoints are tried in order; any other address is asked
    as given first. No redirect is followed, so that key and passages go nowhere else; but where it only adds or removes
    a trailing slash, the given server is asked in that way.

    Args:
        url: The address that the caller gave.
        endpoint: What the endpoint is called, `"rerank"` or `"score"`.

    Attributes:
        url: The address to ask next.
    """

    def __init__(self, url: str, endpoint: str) -> None:
        self.given = url
        self._candidates = _candidates(httpx.URL(url), endpoint)
        self._tried: list[str] = []
        self._in_vain: list[str] = []
        self.url = self._candidates[0]

    def tries_another(self, asked: str, status: int, headers: Mapping[str, str]) -> bool:
        """Take in what the server answered at `asked`, and say whether there is another address to ask instead.

        After the last one, a later request begins again with the first.
        """
        if asked != self.url:
            # Another request has moved on meanwhile.
            return True
        following = list(self._candidates) if status in _WRONG_ROUTE else []
        if status in _REDIRECTS and (target := _same_but_slash(httpx.URL(asked), headers.get("location"))) is not None:
            following = [target, *self._candidates]
        self._tried.append(asked)
        self.url = next((url for url in following if url not in self._tried), asked)
        if self.url != asked:
            return True
        self._in_vain, self._tried = self._tried, []
        if following:
            self.url = self._candidates[0]
        return False

    def settle(self, url: str) -> None:
        """Keep an address: it works."""
        self.url, self._candidates, self._tried = url, [url], []

    def describe(self, status: int, headers: Mapping[str, str]) -> str:
        """Return what an error should say about the addresses asked, or an empty text."""
        tried = ""
        if len(self._in_vain) > 1:
            tried = f"; tried {', '.join(repr(show_url(url)) for url in self._in_vain)}"
        if status in _REDIRECTS and headers.get("location"):
            return f"{tried}; it redirects to {show_url(headers['location'])!r}, pass that address if you trust it"
        return tried


def _candidates(url: httpx.URL, endpoint: str) -> list[str]:
    segments = [segment for segment in url.path.split("/") if segment]
    slashed = url.path[:-1] if url.path.endswith("/") else f"{url.path}/"
    if segments and segments[-1] in _ENDPOINTS:
        return [str(url), str(url.copy_with(path=slashed))]
    base = "/" + "/".join(segments)
    below = [f"{base.rstrip('/')}/{endpoint}"]
    is_base = all(_VERSION.fullmatch(segment) for segment in segments)
    if not segments:
        below += [f"/v1/{endpoint}", f"/v2/{endpoint}"]
    routes = [str(url.copy_with(path=path)) for path in below]
    return [*routes, str(url)] if is_base else [str(url), str(url.copy_with(path=slashed)), *routes]


def _same_but_slash(asked: httpx.URL, location: str | None) -> str | None:
    """Return the address that was asked with or without a trailing slash, if a redirect says no more than that."""
    try:
        target = asked.join(location or "")
    except httpx.InvalidURL:
        return None
    differs_by_slash = target.path != asked.path and target.path.rstrip("/") == asked.path.rstrip("/")
    return str(asked.copy_with(path=target.path)) if target.query == asked.query and differs_by_slash else None


def health_of(url: str) -> str:
    """Return the address of a server's health: `/health` where the endpoint, or its version, lies."""
    parsed = httpx.URL(url)
    segments = [segment for segment in parsed.path.split("/") if segment]
    if segments and segments[-1] in _ENDPOINTS:
        segments.pop()
    if segments and _VERSION.fullmatch(segments[-1]):
        segments.pop()
    return str(parsed.copy_with(path="/" + "/".join([*segments, "health"]), query=None))


def endpoint_of(urls: Sequence[str]) -> str:
    """Return the endpoint's name that the first address ends in, `"rerank"` if none."""
    last = httpx.URL(urls[0]).path.rstrip("/").rpartition("/")[2]
    return "score" if last == "score" else "rerank"
