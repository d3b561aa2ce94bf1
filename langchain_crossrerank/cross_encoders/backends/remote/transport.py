"""Sends requests from an event loop of its own, so that every exchange can be ended at any moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx

from langchain_crossrerank._process import PerProcess
from langchain_crossrerank.cross_encoders.backends.remote.answers import Answer

CONNECTIONS = 8
"""Requests of one model that are under way at the same time."""

_MAX_LIST_BYTES = 1024 * 1024

Result = TypeVar("Result")


class AnswerTooLongError(Exception):
    """An answer is longer than allowed; `status` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="crossrerank-http", daemon=True).start()
    return loop


_LOOP = PerProcess(_start_loop)


def run_on_loop(work: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Run a coroutine on this process's HTTP loop; cancelling the future ends it and closes its connection."""
    return asyncio.run_coroutine_threadsafe(work, _LOOP.get())


class Transport:
    """The connections of one model.

    They are shared by all threads and event loops of a process, because they live on a loop of their own: no time limit
    of a blocking client covers a server that sends a byte now and then, but a task can be cancelled at any moment. A
    forked child opens connections of its own.
    """

    def __init__(self) -> None:
        self._client = PerProcess(_open_client)
        self._slots = PerProcess(_make_slots)

    def prepare(self) -> None:
        """Read certificates and the like now, and not on the loop that all models share."""
        self._client.get()

    @property
    def slots(self) -> asyncio.Semaphore:
        """Allows as many requests at a time as there are connections."""
        return self._slots.get()

    async def post(
        self, url: str, content: bytes, headers: Mapping[str, str], *, max_bytes: int, seconds: float
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            url: The address.
            content: The body.
            headers: The headers.
            max_bytes: Bytes of the answer, packed or unpacked, beyond which it is refused.
            seconds: Limit of it all, from connecting to the last byte; then the connection is closed.

        Raises:
            TimeoutError: If the limit passes.
            httpx.TransportError: If the server cannot be reached or breaks off.
            AnswerTooLongError: If the answer is too long.
        """
        async with (
            asyncio.timeout(seconds),
            self._client.get().stream("POST", url, content=content, headers=headers) as response,
        ):
            answer = Answer(response)
            async for piece in response.aiter_raw():
                answer.add(piece, max_bytes + 1)
                if answer.size > max_bytes:
                    raise AnswerTooLongError(answer.status)
            return answer

    async def is_healthy(self, url: str, headers: Mapping[str, str], *, seconds: float) -> bool:
        """Whether a server answers at `url` with status 200 within some seconds."""
        try:
            async with asyncio.timeout(seconds), self._client.get().stream("GET", url, headers=headers) as response:
                return response.status_code == httpx.codes.OK
        except (TimeoutError, httpx.TransportError):
            return False

    async def list_models(self, url: str, headers: Mapping[str, str], *, seconds: float) -> list[str]:
        """Return the names in `/v1/models` of the server of `url`; none if it has no such list."""
        address = str(httpx.URL(url).copy_with(path="/v1/models", query=None))
        try:
            async with asyncio.timeout(seconds), self._client.get().stream("GET", address, headers=headers) as response:
                answer = Answer(response)
                async for piece in response.aiter_raw():
                    answer.add(piece, _MAX_LIST_BYTES)
                    if answer.size >= _MAX_LIST_BYTES:
                        return []
            listed = json.loads(answer.content)["data"] if answer.status == httpx.codes.OK else []
            return [model["id"] for model in listed if isinstance(model["id"], str)]
        except (TimeoutError, httpx.TransportError, ValueError, KeyError, TypeError, RecursionError):
            return []

    def close(self) -> None:
        """Close this process's connections; a later request opens new ones."""
        client = self._client.take()
        if client is not None:
            run_on_loop(client.aclose()).result()


def _open_client() -> httpx.AsyncClient:
    # Time limits and the number of connections are kept here, not by the library.
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None), limits=httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS)
    )


def _make_slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(CONNECTIONS)
