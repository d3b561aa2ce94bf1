"""A function that goes on only when the event loop lets it, to show that the loop is not blocked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

GIVE_UP = 10.0
"""Seconds after which a thread that should have been released fails the test instead of hanging the run."""


class Held:
    """A function whose calls last until the test lets them go.

    Args:
        function: What it does then.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._started = threading.Event()
        self._release = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Wait, and call the function."""
        self._started.set()
        if not self._release.wait(GIVE_UP):
            raise TimeoutError("nobody let the function go: the event loop was blocked")
        return self._function(*args, **kwargs)

    async def let_go(self) -> None:
        """Wait for the first call, and let it and all others go."""
        assert await asyncio.to_thread(self._started.wait, GIVE_UP)
        self._release.set()
