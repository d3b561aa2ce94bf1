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

    An address that ends in the name of an endpoint is asked as given. Below a base address (nothing but a version in
    its path) the usual endpoints are tried in order; any other address is asked as given first. A redirect is followed
    only to the same address with or without a trailing slash, so that key and passages go nowhere else.

    Args:
        url: The address that the caller gave.
        endpoint: What the endpoint is called, `"rerank"` or `"score"`.
    """

    def __init__(self, url: str, endpoint: str) -> None:
        self.given = url
        self._candidates = _candidates(httpx.URL(url), endpoint)
        self._tried: list[str] = []

    @property
    def url(self) -> str:
        """The address to ask next."""
        return self._candidates[0]

    def tries_another(self, asked: str, status: int, headers: Mapping[str, str]) -> bool:
        """Take in what the server answered at `asked`, and say whether there is another address to ask instead."""
        if asked != self.url:
            # Another request has moved on meanwhile.
            return True
        if status in _REDIRECTS:
            target = _same_but_slash(httpx.URL(asked), headers.get("location"))
            if target is None or target in self._tried:
                return False
            self._tried.append(asked)
            self._candidates[0] = target
            return True
        if status in _WRONG_ROUTE and len(self._candidates) > 1:
            self._tried.append(self._candidates.pop(0))
            return True
        return False

    def settle(self) -> None:
        """Keep the current address: it works."""
        del self._candidates[1:]

    def describe(self, status: int, headers: Mapping[str, str]) -> str:
        """Return what an error should say about the addresses asked, or an empty text."""
        if status in _REDIRECTS and headers.get("location"):
            return f"; it redirects to {show_url(headers['location'])!r}, pass that address if you trust it"
        if self._tried:
            return f"; tried {', '.join(repr(show_url(url)) for url in [*self._tried, self.url])}"
        return ""


def _candidates(url: httpx.URL, endpoint: str) -> list[str]:
    segments = [segment for segment in url.path.split("/") if segment]
    if segments and segments[-1] in _ENDPOINTS:
        return [str(url)]
    base = "/" + "/".join(segments)
    below = [f"{base.rstrip('/')}/{endpoint}"]
    is_base = all(_VERSION.fullmatch(segment) for segment in segments)
    if not segments:
        below += [f"/v1/{endpoint}", f"/v2/{endpoint}"]
    routes = [str(url.copy_with(path=path)) for path in below]
    return [*routes, str(url)] if is_base else [str(url), *routes]


def _same_but_slash(asked: httpx.URL, location: str | None) -> str | None:
    try:
        target = asked.join(location or "")
    except httpx.InvalidURL:
        return None
    same_place = (target.scheme, target.netloc, target.query) == (asked.scheme, asked.netloc, asked.query)
    differs_by_slash = target.path != asked.path and target.path.rstrip("/") == asked.path.rstrip("/")
    return str(target) if same_place and differs_by_slash else None


def endpoint_of(urls: Sequence[str]) -> str:
    """Return the endpoint's name that the first address ends in, `"rerank"` if none."""
    last = httpx.URL(urls[0]).path.rstrip("/").rpartition("/")[2]
    return "score" if last == "score" else "rerank"
