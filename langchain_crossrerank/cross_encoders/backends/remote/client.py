"""Cross-encoders behind HTTP: Text Embeddings Inference, and every server that took over Cohere's rerank request."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import httpx
from pydantic import SecretStr

from langchain_crossrerank.checks import check_choices, check_seconds, check_whole_numbers, cut, shorten
from langchain_crossrerank.cross_encoders.backends.remote.answers import Answer, index_and_score, retry_after
from langchain_crossrerank.cross_encoders.backends.remote.settings import HIDDEN, check_key, check_url
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import (
    EncodedPair,
    PairScore,
    TextPair,
    check_text_pairs,
    encodable,
    plan_batches,
)
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.cross_encoders.scores import Activation, check_finite
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
        api_key: Sent as a bearer token; by default the environment's `CROSSRERANK_API_KEY`, if it holds something.
        activation: The unit of the server's scores: TEI and most others give `"sigmoid"`. With `"texts"`,
            `"identity"` asks the server for raw scores; with `"documents"`, which has no word for that, it only says
            what the server is set to give.
        max_documents: Passages in one request; TEI takes 32 by default.
        max_length: The most tokens the server's model reads; batches are planned with it, the server truncates.
        timeout: Seconds for one attempt, from connecting to the end of the answer's next piece.
        max_retries: Further attempts after the first.
        max_retry_wait: Seconds to wait at most between two attempts, whatever the server asks for.
        max_response_bytes: A longer answer, unpacked, is refused.

    Raises:
        InvalidInputError: If the URL is not http or https, or carries a password, if no header can carry the key, or
            if a setting is out of range.
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
        self.url = check_url(url)
        check_choices(
            request_shape=(request_shape, get_args(RequestShape)), activation=(activation, get_args(Activation))
        )
        check_whole_numbers(
            max_documents=(max_documents, 1),
            max_length=(max_length, 8),
            max_retries=(max_retries, 0),
            max_response_bytes=(max_response_bytes, 1),
        )
        check_seconds(timeout=timeout, max_retry_wait=max_retry_wait)
        if model is not None and (not isinstance(model, str) or not model or encodable(model) != model):
            raise InvalidInputError(f"model is {shorten(model)}; pass the name that the server knows, or None.")
        self.name = model if model is not None else str(url)
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
        self._api_key = check_key(api_key)
        # A process that was forked off has an entry of its own: on one connection, both would read either's answers.
        self._clients: dict[int, httpx.Client] = {}
        self._async_clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    @property
    def fingerprint(self) -> str:
        """The address, the model's name and the unit; the server's weights cannot be seen from here."""
        return f"remote:{self.url}:{self._model}:{self.request_shape}:{self.activation}"

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Threads enough to keep several requests under way."""
        return StepScheduler(name=self.name, workers=_CONNECTIONS, network=True)

    async def ascore_pairs(
        self,
        text_pairs: Iterable[TextPair],
        *,
        deadline: float | None = None,  # noqa: ARG002
    ) -> list[PairScore]:
        """Score pairs with the asynchronous client, several requests at a time."""
        pairs = check_text_pairs(text_pairs)
        encoded = self._encode(list(dict.fromkeys(pairs)))
        requests = self._plan(encoded)
        at_once = asyncio.Semaphore(_CONNECTIONS)

        async def one(group: Sequence[EncodedPair]) -> list[float]:
            async with at_once:
                try:
                    return await self._apost(group)
                except Exception as err:  # noqa: BLE001 - raised again by the base class's rule
                    failure = err
            scores: list[float] = self._guarded(_raise, failure, pairs, [item.text_pair for item in group])
            return scores

        tasks = [asyncio.ensure_future(one(group)) for group in requests]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        scores = {
            item.text_pair: score
            for group, answer in zip(requests, answers, strict=True)
            for item, score in zip(group, answer, strict=True)
        }
        results = [PairScore(scores[pair]) for pair in pairs]
        check_finite([result.score for result in results], self.name)
        return results

    def close(self) -> None:
        """Close the synchronous client's connections; a later call opens new ones."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the asynchronous client of this event loop; a later call opens new ones."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        # A request has one query.
        by_query: dict[str, list[EncodedPair]] = {}
        for item in encoded:
            by_query.setdefault(item.text_pair[0], []).append(item)
        groups = by_query.values()
        return [batch for group in groups for batch in plan_batches(group, self.max_batch_tokens, self.max_batch_pairs)]

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return self._post(batch)

    def _post(self, group: Sequence[EncodedPair]) -> list[float]:
        exchange = self._exchange(group)
        answer: Answer | httpx.TransportError | None = None
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
                client = self._sync_client()
                with client.stream("POST", self.url, json=self._body(group), headers=self._headers()) as response:
                    answer = Answer(response)
                    for piece in response.iter_raw():
                        self._collect(answer, piece)
            except httpx.TransportError as err:
                answer = err

    async def _apost(self, group: Sequence[EncodedPair]) -> list[float]:
        exchange = self._exchange(group)
        answer: Answer | httpx.TransportError | None = None
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
                    answer = Answer(response)
                    async for piece in response.aiter_raw():
                        self._collect(answer, piece)
            except httpx.TransportError as err:
                answer = err

    def _exchange(
        self, group: Sequence[EncodedPair]
    ) -> Generator[float | None, Answer | httpx.TransportError | None, list[float]]:
        """Decide what happens next in one request, without doing it.

        Yields `None` to have the request sent and its outcome passed in, or seconds to pause. Returns the scores.
        """
        attempt = 0
        while True:
            outcome = yield None
            asked: float | None = None
            if isinstance(outcome, Answer):
                if outcome.status not in RETRIED:
                    return self._read(outcome, len(group))
                asked = retry_after(outcome.headers)
                failure = self._refused(outcome)
            else:
                told = self._without_key(str(outcome))
                failure = RemoteError(
                    f"the rerank server at {self.url} could not be reached or broke off "
                    f"({type(outcome).__name__}: {cut(told, 300)}); check that it runs and the address."
                )
                # A cause that repeats the key would show it in tracebacks.
                failure.__cause__ = outcome if told == str(outcome) else None
            if attempt == self.max_retries:
                raise failure
            # Randomness keeps many clients from coming back all at once.
            backoff = 0.5 * 2.0 ** min(attempt, 64) * random.uniform(0.75, 1.25)  # noqa: S311
            yield min(asked if asked is not None else backoff, self.max_retry_wait)
            attempt += 1

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
        headers = {"Accept-Encoding": "gzip"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        return headers

    def _collect(self, answer: Answer, piece: bytes) -> None:
        answer.add(piece, self.max_response_bytes + 1)
        if len(answer.content) > self.max_response_bytes:
            raise RemoteError(
                f"the rerank server at {self.url} answered with more than max_response_bytes="
                f"{self.max_response_bytes} bytes; it may be another kind of server.",
                status_code=answer.status,
            )

    def _refused(self, answer: Answer) -> RemoteError:
        # A key that the cut divides would not be found any more.
        text = self._without_key(answer.content.decode("utf-8", "replace"))[:300]
        return RemoteError(
            f"the rerank server at {self.url} answered {answer.status}: {text!r}; "
            "check the address, the model's name, the request shape and the key.",
            status_code=answer.status,
        )

    def _read(self, answer: Answer, expected: int) -> list[float]:
        if answer.status != httpx.codes.OK:
            raise self._refused(answer)
        if answer.damage is not None:
            raise self._unusable(f"a body that cannot be unpacked ({self._shown(answer.damage)})")
        try:
            payload = json.loads(answer.content)
        except (ValueError, RecursionError) as err:
            raise self._unusable(f"no JSON ({err})") from err
        results = payload.get("results") if isinstance(payload, dict) else payload
        if not isinstance(results, list):
            raise self._unusable("no list of results")
        scores: dict[int, float] = {}
        for result in results:
            index, score = index_and_score(result)
            if index is None or score is None:
                raise self._unusable(f"the result {self._shown(result)}")
            if not 0 <= index < expected:
                raise self._unusable(f"index {self._shown(index)} for {expected} passages")
            if index in scores:
                raise self._unusable(f"index {index} twice")
            scores[index] = score
        missing = sorted(set(range(expected)) - scores.keys())
        if missing:
            raise self._unusable(f"no result for passages {shorten(missing)} of {expected}")
        return [scores[index] for index in range(expected)]

    def _unusable(self, what: str) -> RemoteError:
        return RemoteError(
            f"the rerank server at {self.url} answered with {what}; "
            f"check that the endpoint speaks the {self.request_shape!r} shape.",
            status_code=int(httpx.codes.OK),
        )

    def _shown(self, value: object) -> str:
        return cut(self._without_key(repr(value)), 80)

    def _without_key(self, text: str) -> str:
        # A server may repeat the request in its error.
        if self._api_key is None:
            return text
        pattern = "".join(map(_spellings, self._api_key.get_secret_value()))
        return re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)

    def _settings(self) -> dict[str, Any]:
        # How long a call waits for a free connection is the caller's matter.
        timeout = httpx.Timeout(self.timeout, pool=None)
        return {"timeout": timeout, "limits": httpx.Limits(max_connections=_CONNECTIONS)}

    def _sync_client(self) -> httpx.Client:
        client = self._clients.get(os.getpid())
        # Of two threads that come first, both get the same client.
        return client or self._clients.setdefault(os.getpid(), httpx.Client(**self._settings()))

    def _async_client(self) -> httpx.AsyncClient:
        # An asynchronous client's connections belong to the event loop that opened them.
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            for gone in [other for other in list(self._async_clients) if other.is_closed()]:
                self._async_clients.pop(gone, None)
            self._async_clients[loop] = httpx.AsyncClient(**self._settings())
        return self._async_clients[loop]


def _spellings(character: str) -> str:
    """Give a pattern for a character as it is, or as JSON and URLs may write it."""
    if character.isalnum():
        return character
    code = f"{ord(character):02x}"
    return rf"(?:\\?{re.escape(character)}|\\u00{code}|%{code})"


def _raise(err: Exception) -> None:
    raise err
