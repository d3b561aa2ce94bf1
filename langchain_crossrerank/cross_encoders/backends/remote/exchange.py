"""One request to a rerank server until there is an answer: other routes, other servers, other fields, pauses."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from langchain_crossrerank.checks import cut, shorten
from langchain_crossrerank.cross_encoders.backends.remote.answers import (
    Answer,
    UnreadableAnswerError,
    find_results,
    read_scores,
    retry_after,
)
from langchain_crossrerank.cross_encoders.backends.remote.requests import (
    PLACEHOLDER_MODEL,
    Requests,
    complains_of_length,
    cut_passages,
    wants_model,
)
from langchain_crossrerank.cross_encoders.backends.remote.routes import Route
from langchain_crossrerank.cross_encoders.backends.remote.servers import Servers
from langchain_crossrerank.cross_encoders.backends.remote.transport import AnswerTooLongError, Transport
from langchain_crossrerank.cross_encoders.pairs import PairScore
from langchain_crossrerank.errors import RemoteError
from langchain_crossrerank.redaction import hide, show_url

RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that are tried again."""

ReadAnswer = Callable[[Any, int], Iterable[float]]
"""Reads the JSON of an answer as scores in the passages' order; the number is that of the passages."""

_SMALLEST_CAP = 5
"""Results below which an incomplete answer is taken for a fault, and not for a server's limit on its results."""


@dataclass(frozen=True)
class Limits:
    """How long and how often a request is tried.

    Attributes:
        timeout: Seconds for a request with all its attempts and pauses.
        attempt_timeout: Seconds for one attempt; `None` for what is left of `timeout`, shared with the other servers.
        max_retries: Further attempts after the first one.
        max_retry_wait: Longest pause between two attempts, in seconds.
        max_response_bytes: Bytes of an answer, packed or unpacked, beyond which it is refused.
    """

    timeout: float
    attempt_timeout: float | None
    max_retries: int
    max_retry_wait: float
    max_response_bytes: int


@dataclass
class Exchange:
    """Gets the scores of one query's passages.

    Attributes:
        transport: The connections.
        servers: The servers to ask.
        requests: What they are sent.
        read_answer: Reads the scores, in place of the usual reading.
        headers: The headers of a request.
        secrets: What no error may show.
        limits: How long and how often.
        max_length: Tokens that the server's model is taken to read.
    """

    transport: Transport
    servers: Servers
    requests: Requests
    read_answer: ReadAnswer | None
    headers: Mapping[str, str]
    secrets: Sequence[str]
    limits: Limits
    max_length: int

    async def run(self, query: str, passages: Sequence[str]) -> dict[int, PairScore]:
        """Ask until there is an answer.

        Returns:
            Scores by the passages' places. Some may be missing, because a server limits its results; never all.

        Raises:
            RemoteError: If there is no usable answer within the limits.
        """
        deadline = asyncio.get_running_loop().time() + self.limits.timeout
        texts, attempt = list(passages), 0
        while True:
            route = self.servers.choose()
            url = route.url
            # The loop is shared by all models, and a body may be megabytes.
            body, content = await asyncio.to_thread(self._body, query, texts)
            outcome = await self._attempt(url, content, deadline)
            if isinstance(outcome, Answer):
                if outcome.status == httpx.codes.OK:
                    self.servers.note_success(route)
                    scores = self._read(outcome, url, len(texts))
                    cut_here = [text != passage for text, passage in zip(texts, passages, strict=True)]
                    return {place: PairScore(score, truncated=cut_here[place]) for place, score in scores.items()}
                if route.tries_another(url, outcome.status, outcome.headers):
                    continue
                if await self._learns(outcome, body, url, deadline):
                    continue
                shorter = self._cut_if_too_long(outcome, query, texts)
                if shorter is not None:
                    texts = shorter
                    continue
                failure = self._refused(outcome, route)
                if outcome.status not in RETRIED:
                    raise failure
            else:
                failure = outcome
            if attempt == self.limits.max_retries:
                raise failure
            await self._pause(attempt, outcome, route, failure, deadline)
            attempt += 1

    def _body(self, query: str, texts: Sequence[str]) -> tuple[Any, bytes]:
        body = self.requests.body(query, texts, self.max_length)
        return body, json.dumps(body).encode()

    async def _attempt(self, url: str, content: bytes, deadline: float) -> Answer | RemoteError:
        left = deadline - asyncio.get_running_loop().time()
        share = left / len(self.servers.routes) if self.limits.attempt_timeout is None else self.limits.attempt_timeout
        seconds = max(0.0, min(left, share))
        try:
            return await self.transport.post(
                url, content, self.headers, max_bytes=self.limits.max_response_bytes, seconds=seconds
            )
        except AnswerTooLongError as err:
            raise RemoteError(
                f"the rerank server at {show_url(url)} answered with more than max_response_bytes="
                f"{self.limits.max_response_bytes} bytes; it may be a server of another kind.",
                status_code=err.status,
            ) from None
        except TimeoutError:
            return RemoteError(
                f"the rerank server at {show_url(url)} did not answer within {seconds:.3g} seconds; check that it "
                "works, pass a longer timeout, or rerank fewer candidates."
            )
        except httpx.TransportError as err:
            text = hide(str(err), self.secrets)
            failure = RemoteError(
                f"the rerank server at {show_url(url)} could not be reached, or broke off "
                f"({type(err).__name__}: {cut(text, 300)}); check that it runs, and its address{_hint(url, text)}."
            )
            # A cause that repeats the key would show it in tracebacks.
            failure.__cause__ = err if text == str(err) else None
            return failure

    async def _pause(
        self, attempt: int, outcome: Answer | RemoteError, route: Route, failure: RemoteError, deadline: float
    ) -> None:
        """Wait before the next attempt, unless another server can be asked; raise where no time would be left."""
        if self.servers.note_failure(route):
            return
        asked = retry_after(outcome.headers) if isinstance(outcome, Answer) else None
        # Randomness keeps many clients from coming back all at once.
        backoff = 0.5 * 2.0 ** min(attempt, 64) * random.uniform(0.75, 1.25)  # noqa: S311
        pause = min(asked if asked is not None else backoff, self.limits.max_retry_wait)
        if asyncio.get_running_loop().time() + pause >= deadline:
            raise failure
        await asyncio.sleep(pause)

    async def _learns(self, answer: Answer, body: Any, url: str, deadline: float) -> bool:
        """Take in a refusal, and return whether the request should be made again in another way."""
        if answer.status not in (400, 422):
            return False
        if self.requests.make_request is None and self.requests.model is None and wants_model(answer.text, body):
            seconds = max(0.0, deadline - asyncio.get_running_loop().time())
            listed = await self.transport.list_models(url, self.headers, seconds=seconds)
            if len(listed) > 1:
                raise RemoteError(
                    f"the rerank server at {show_url(url)} has several models; pass one of them, "
                    f"RemoteCrossEncoder(url, model=...): {', '.join(map(shorten, listed[:10]))}.",
                    status_code=answer.status,
                )
            self.requests.model = listed[0] if listed else PLACEHOLDER_MODEL
            return True
        return self.requests.learn(answer.text, body)

    def _cut_if_too_long(self, answer: Answer, query: str, texts: Sequence[str]) -> list[str] | None:
        if not complains_of_length(answer.status, answer.text):
            return None
        shorter = cut_passages(query, texts, self.max_length)
        return shorter if shorter != list(texts) else None

    def _refused(self, answer: Answer, route: Route) -> RemoteError:
        # The key is hidden before the text is cut, because half a key would not be found any more.
        text = hide(answer.text, self.secrets)[:300]
        tried = hide(route.describe(answer.status, answer.headers), self.secrets)
        return RemoteError(
            f"the rerank server at {show_url(route.url)} answered {answer.status}: {text!r}{tried}; check the "
            "address, the model's name (RemoteCrossEncoder(url, model=...)), the request shape and the key.",
            status_code=answer.status,
        )

    def _read(self, answer: Answer, url: str, expected: int) -> dict[int, float]:
        if answer.damage is not None:
            raise self._unusable(url, f"a body that cannot be unpacked ({self._shown(answer.damage)})")
        try:
            payload = json.loads(answer.content)
        except (ValueError, RecursionError) as err:
            reason = f"{cut(str(err), 80)}: {self._shown(answer.text)}"
            raise self._unusable(url, f"text that is not JSON ({reason})") from err
        if self.read_answer is not None:
            scores = dict(enumerate(map(float, self.read_answer(payload, expected))))
            if len(scores) != expected:
                raise self._unusable(url, f"{len(scores)} scores for {expected} passages")
            return scores
        results = find_results(payload)
        if results is None:
            raise self._unusable(url, f"no list of results: {self._shown(answer.text)}")
        try:
            scores = read_scores(results, expected)
        except UnreadableAnswerError as err:
            raise self._unusable(url, cut(hide(str(err), self.secrets), 120)) from None
        if len(scores) < min(expected, _SMALLEST_CAP):
            missing = sorted(set(range(expected)) - scores.keys())
            raise self._unusable(url, f"no result for passages {shorten(missing)} of {expected}")
        return scores

    def _unusable(self, url: str, what: str) -> RemoteError:
        return RemoteError(
            f"the rerank server at {show_url(url)} answered with {what}; "
            f"check that the endpoint has the {self.requests.shape!r} shape.",
            status_code=int(httpx.codes.OK),
        )

    def _shown(self, text: str) -> str:
        # The key is hidden before the text is cut, because half a key would not be found any more.
        return repr(cut(hide(text, self.secrets), 120))


def _hint(url: str, text: str) -> str:
    if url.startswith("https:") and "ssl" in text.lower():
        return ", which may have to begin with http://"
    if url.startswith("http:") and "disconnected" in text:
        return ", which may have to begin with https://"
    return ""
