"""Cross-encoders behind HTTP: Text Embeddings Inference, and every server that took over Cohere's rerank request."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from weakref import WeakKeyDictionary

import httpx
from pydantic import SecretStr

from langchain_crossrerank.cross_encoders.base import (
    Activation,
    CrossEncoder,
    EncodedPair,
    PairScore,
    TextPair,
    check_finite,
    check_text_pairs,
    plan_batches,
    shorten,
)
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.errors import InvalidInputError, RemoteError

RequestShape = Literal["documents", "texts"]
"""`"documents"` is Cohere's request, which most servers took over; `"texts"` is that of Text Embeddings Inference."""

RETRIED = frozenset({429, 502, 503, 504})
"""HTTP statuses that are tried again."""

_CONNECTIONS = 8


class RemoteCrossEncoder(CrossEncoder):
    """A cross-encoder that a server computes.

    One request holds one query and at most `max_documents` passages; more are divided and put together again. Answers
    are matched by their `index`. Requests that meet an overloaded or restarting server are tried again, after what
    `Retry-After` says or after 0.5, 1, 2... seconds with some randomness.

    Args:
        url: The full address of the endpoint, for example `"http://localhost:7997/rerank"`.
        model: The model's name for servers that have several; also the name shown in traces.
        request_shape: `"documents"` (Cohere v2, Jina, vLLM, Infinity, llama.cpp) or `"texts"` (TEI).
        api_key: Sent as a bearer token; by default the environment's `CROSSRERANK_API_KEY`, if set.
        activation: The unit of the server's scores: TEI and most others give `"sigmoid"`. For TEI `"identity"` asks
            for raw scores.
        max_documents: Passages in one request; TEI takes 32 by default.
        max_length: The most tokens the server's model reads; batches are planned with it, the server truncates.
        timeout: Seconds for one attempt, from connecting to the end of the answer's next piece.
        max_retries: Further attempts after the first.
        max_retry_wait: Seconds to wait at most between two attempts, whatever the server asks for.
        max_response_bytes: A longer answer is refused.

    Raises:
        InvalidInputError: If the URL is not http or https, or carries a password.
    """

    backend = "remote"

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        request_shape: RequestShape = "documents",
        api_key: SecretStr | str | None = None,
        activation: Activation = "sigmoid",
        max_documents: int = 32,
        max_length: int = 512,
        timeout: float = 30.0,
        max_retries: int = 3,
        max_retry_wait: float = 30.0,
        max_response_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self.url = _check_url(url)
        self.name = model or url
        self.activation = activation
        self.max_length = max_length
        self.max_batch_tokens = max_documents * max_length
        self.max_batch_pairs = max_documents
        self.request_shape = request_shape
        self.timeout = timeout
        self.max_retries = max_retries
        self.max_retry_wait = max_retry_wait
        self.max_response_bytes = max_response_bytes
        self._model = model
        key = api_key if api_key is not None else os.environ.get("CROSSRERANK_API_KEY")
        self._api_key = SecretStr(key) if isinstance(key, str) else key
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    @property
    def fingerprint(self) -> str:
        """The address, the model's name and the unit; the server's weights cannot be seen from here."""
        return f"remote:{self.url}:{self._model}:{self.request_shape}:{self.activation}"

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Threads enough to keep several requests under way."""
        return StepScheduler(name=f"crossrerank-{self.name}", workers=_CONNECTIONS)

    async def ascore_pairs(self, text_pairs: Iterable[TextPair]) -> list[PairScore]:
        """Score pairs with the asynchronous client, several requests at a time."""
        pairs = check_text_pairs(text_pairs)
        encoded = self._encode(list(dict.fromkeys(pairs)))
        requests = [
            group
            for batch in plan_batches(encoded, self.max_batch_tokens, self.max_batch_pairs)
            for group in _by_query(batch)
        ]
        at_once = asyncio.Semaphore(_CONNECTIONS)

        async def one(group: Sequence[EncodedPair]) -> list[float]:
            async with at_once:
                return await self._apost(group)

        tasks = [asyncio.ensure_future(one(group)) for group in requests]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        scores = {
            item.text_pair: score
            for group, answer in zip(requests, answers, strict=True)
            for item, score in zip(group, answer, strict=True)
        }
        results = [PairScore(scores[pair]) for pair in pairs]
        check_finite([result.score for result in results], self.name)
        return results

    def close(self) -> None:
        """Close the synchronous client's connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections of the asynchronous client of this event loop."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        scores: dict[int, float] = {}
        for group in _by_query(batch):
            scores.update(zip(map(id, group), self._post(group), strict=True))
        return [scores[id(item)] for item in batch]

    def _post(self, group: Sequence[EncodedPair]) -> list[float]:
        exchange = self._exchange(group)
        answer: _Answer | httpx.TransportError | None = None
        while True:
            try:
                pause = exchange.send(answer)
            except StopIteration as stop:
                return list(stop.value)
            if pause is not None:
                time.sleep(pause)
                answer = None
                continue
            try:
                with self._client.stream("POST", self.url, json=self._body(group), headers=self._headers()) as response:
                    content = bytearray()
                    for piece in response.iter_bytes():
                        self._collect(content, piece)
                    answer = _Answer(response.status_code, response.headers, bytes(content))
            except httpx.TransportError as err:
                answer = err

    async def _apost(self, group: Sequence[EncodedPair]) -> list[float]:
        exchange = self._exchange(group)
        answer: _Answer | httpx.TransportError | None = None
        while True:
            try:
                pause = exchange.send(answer)
            except StopIteration as stop:
                return list(stop.value)
            if pause is not None:
                await asyncio.sleep(pause)
                answer = None
                continue
            request = self._async_client().stream("POST", self.url, json=self._body(group), headers=self._headers())
            try:
                async with request as response:
                    content = bytearray()
                    async for piece in response.aiter_bytes():
                        self._collect(content, piece)
                    answer = _Answer(response.status_code, response.headers, bytes(content))
            except httpx.TransportError as err:
                answer = err

    def _exchange(
        self, group: Sequence[EncodedPair]
    ) -> Generator[float | None, _Answer | httpx.TransportError | None, list[float]]:
        """Decide what happens next in one request, without doing it.

        Yields `None` to have the request sent and its outcome passed in, or seconds to pause. Returns the scores.
        """
        for attempt in range(self.max_retries + 1):
            outcome = yield None
            asked: float | None = None
            if isinstance(outcome, _Answer):
                if outcome.status not in RETRIED:
                    return self._read(outcome, len(group))
                asked = _retry_after(outcome.headers)
                failure = self._refused(outcome)
            else:
                failure = RemoteError(
                    f"the rerank server at {self.url} could not be reached or broke off "
                    f"({type(outcome).__name__}: {outcome}); check that it runs and the address."
                )
                failure.__cause__ = outcome
            if attempt == self.max_retries:
                raise failure
            # Randomness keeps many clients from coming back all at once.
            backoff = 0.5 * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
            yield min(asked if asked is not None else backoff, self.max_retry_wait)
        raise RemoteError(f"max_retries is {self.max_retries}; pass 0 or more.")

    def _body(self, group: Sequence[EncodedPair]) -> dict[str, Any]:
        query = group[0].text_pair[0]
        passages = [item.text_pair[1] for item in group]
        if self.request_shape == "texts":
            return {"query": query, "texts": passages, "raw_scores": self.activation == "identity", "truncate": True}
        body: dict[str, Any] = {"query": query, "documents": passages, "top_n": len(passages)}
        if self._model is not None:
            body["model"] = self._model
        return body

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key.get_secret_value()}"} if self._api_key is not None else {}

    def _collect(self, content: bytearray, piece: bytes) -> None:
        content += piece
        if len(content) > self.max_response_bytes:
            raise RemoteError(
                f"the rerank server at {self.url} answered with more than max_response_bytes="
                f"{self.max_response_bytes} bytes; it may be another kind of server."
            )

    def _refused(self, answer: _Answer) -> RemoteError:
        text = self._without_key(answer.content[:300].decode("utf-8", "replace"))
        return RemoteError(
            f"the rerank server at {self.url} answered {answer.status}: {text!r}; "
            "check the address, the model's name, the request shape and the key.",
            status_code=answer.status,
        )

    def _read(self, answer: _Answer, expected: int) -> list[float]:
        if answer.status != httpx.codes.OK:
            raise self._refused(answer)
        try:
            payload = json.loads(answer.content)
        except ValueError as err:
            raise self._unusable(f"no JSON ({err})") from err
        results = payload.get("results") if isinstance(payload, dict) else payload
        if not isinstance(results, list):
            raise self._unusable("no list of results")
        scores: dict[int, float] = {}
        for result in results:
            index, score = _index_and_score(result)
            if index is None or score is None:
                raise self._unusable(f"the result {shorten(result)}")
            if not 0 <= index < expected:
                raise self._unusable(f"index {index} for {expected} passages")
            if index in scores:
                raise self._unusable(f"index {index} twice")
            scores[index] = score
        missing = sorted(set(range(expected)) - scores.keys())
        if missing:
            raise self._unusable(f"no result for passages {shorten(missing)} of {expected}")
        return [scores[index] for index in range(expected)]

    def _unusable(self, what: str) -> RemoteError:
        return RemoteError(
            f"the rerank server at {self.url} answered with {self._without_key(what)}; "
            f"check that the endpoint speaks the {self.request_shape!r} shape.",
            status_code=int(httpx.codes.OK),
        )

    def _without_key(self, text: str) -> str:
        # A server may repeat the request in its error.
        key = self._api_key.get_secret_value() if self._api_key is not None else ""
        return text.replace(key, "**********") if key else text

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=self.timeout, limits=httpx.Limits(max_connections=_CONNECTIONS))

    def _async_client(self) -> httpx.AsyncClient:
        # An asynchronous client's connections belong to the event loop that opened them.
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            limits = httpx.Limits(max_connections=_CONNECTIONS)
            self._async_clients[loop] = httpx.AsyncClient(timeout=self.timeout, limits=limits)
        return self._async_clients[loop]


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


def _check_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as err:
        raise InvalidInputError(f"url is {shorten(url)}, which is no URL; pass the endpoint's full address.") from err
    if parsed.userinfo:
        raise InvalidInputError(f"the URL of {parsed.host!r} carries a name or password; pass api_key instead.")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(f"url is {shorten(url)}; pass the full http:// or https:// address of the endpoint.")
    return str(parsed)


def _by_query(batch: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
    groups: dict[str, list[EncodedPair]] = {}
    for item in batch:
        groups.setdefault(item.text_pair[0], []).append(item)
    return list(groups.values())


def _index_and_score(result: Any) -> tuple[int | None, float | None]:
    if not isinstance(result, dict):
        return None, None
    index, score = result.get("index"), result.get("relevance_score", result.get("score"))
    if not isinstance(index, int) or isinstance(index, bool):
        index = None
    if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
        return index, None
    return index, float(score)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` as seconds from now; it may be a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
