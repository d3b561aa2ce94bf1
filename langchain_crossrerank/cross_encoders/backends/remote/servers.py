"""Which of several servers is asked: the first one that did not fail a short while ago."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from langchain_crossrerank._process import Guarded
from langchain_crossrerank.cross_encoders.backends.remote.routes import Route

REST_SECONDS = 30.0
"""How long a server that failed is passed over while another one works."""


class Servers:
    """One or several servers that compute the same scores.

    Args:
        urls: Their addresses, in order of preference.
        endpoint: What their endpoint is called; see `Route`.
    """

    def __init__(self, urls: Sequence[str], endpoint: str) -> None:
        self._urls, self._endpoint = list(urls), endpoint
        self._failed_at: Guarded[dict[int, float]] = Guarded(dict)
        self.routes = [Route(url, endpoint) for url in urls]

    def choose(self, failed: Collection[Route] = ()) -> Route:
        """Return the first server that works; if all failed lately, the one whose failure is longest ago.

        Args:
            failed: Servers that are not asked, because they just failed; never all.
        """
        now = time.monotonic()
        places = [place for place, route in enumerate(self.routes) if route not in failed]
        with self._failed_at as failed_at:
            working = [place for place in places if self._rested(failed_at.get(place), now)]
            chosen = working[0] if working else min(places, key=lambda place: failed_at[place])
        return self.routes[chosen]

    def note_failure(self, route: Route) -> None:
        """Pass a server over for a while."""
        with self._failed_at as failed_at:
            failed_at[self.routes.index(route)] = time.monotonic()

    def note_success(self, route: Route) -> None:
        """Use a server again at once."""
        with self._failed_at as failed_at:
            failed_at.pop(self.routes.index(route), None)

    @staticmethod
    def _rested(failed_at: float | None, now: float) -> bool:
        return failed_at is None or now - failed_at >= REST_SECONDS

    def __reduce__(self) -> tuple[Any, ...]:
        return Servers, (self._urls, self._endpoint)
