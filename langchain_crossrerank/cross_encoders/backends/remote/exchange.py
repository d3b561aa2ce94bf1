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
    find_complaint,
    find_results,
    read_scores,
    retry_after,
)
from langchain_crossrerank.cross_encoders.backends.remote.lengths import SentTexts
from langchain_crossrerank.cross_encoders.backends.remote.requests import (
    PLACEHOLDER_MODEL,
    Requests,
    speaks_of_a_model,
    wants_model,
)
from langchain_crossrerank.cross_encoders.backends.remote.routes import Route
from langchain_crossrerank.cross_encoders.backends.remote.servers import Servers
from langchain_crossrerank.cross_encoders.backends.remote.transport import AnswerTooLongError, Transport
from langchain_crossrerank.cross_encoders.pairs import PairScore
from langchain_crossrerank.errors import InvalidInputError, RemoteError
from langchain_crossrerank.redaction import hide, show_url

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""HTTP statuses that are tried again."""

_REQUESTS_FAULT = frozenset({400, 413, 422})
"""HTTP statuses that every other server would answer as well."""

ReadAnswer = Callable[[Any, int], Iterable[float]]
"""Reads the JSON of an answer as scores in the passages' order; the number is that of the passages."""

_SMALLEST_CAP = 5
"""Results below which an incomplete answer is taken for a fault, and not for a server's limit on its results."""


@dataclass(frozen=True)
class Limits:
    """How long and how often a request is tried.

    Attributes:
        timeout: Seconds for one query's passages with all attempts and pauses.
        attempt_timeout: Seconds for one attempt; `None` for what is left of `timeout`, shared with the other servers.
        max_retries: Further rounds of attempts at all servers after the first one.
        max_retry_wait: Longest pause between two attempts, in seconds.
        max_response_bytes: Bytes of an answer, packed or unpacked, beyond which it is refused.
    """

    timeout: float
    attempt_timeout: float | None
    max_retries: int
    max_retry_wait: float
    max_response_bytes: int


@dataclass(frozen=True)
class _Failure:
    """What a server did instead of scoring.

    Attributes:
        error: How it is reported.
        may_pass: Whether the same request may succeed a little later.
        wait: Seconds that the server asks to wait; `None` if it does not say.
    """

    error: RemoteError
    may_pass: bool = False
    wait: float | None = None


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

    async def run(self, query: str, passages: Sequence[str], deadline: float) -> dict[int, PairScore]:
        """Ask until there is an answer: one server after the other, then all of them again after a pause.

        Args:
            query: The query.
            passages: The passages.
            deadline: Time of the event loop at which to give up, in seconds.

        Returns:
            Scores by the passages' places. Some may be missing, because a server limits its results or the passages of
            a request; never all.

        Raises:
            RemoteError: If there is no usable answer within the limits.
        """
        texts = SentTexts(query, passages, self.max_length)
        servers = len(self.servers.routes)
        attempt, failed, may_pass = 0, list[Route](), False
        while True:
            route = self.servers.choose(failed)
            outcome = await self._ask(route, texts, deadline, servers - len(failed))
            if outcome is None:
                continue
            if not isinstance(outcome, _Failure):
                self.servers.note_success(route)
                return texts.scored(outcome)
            self.servers.note_failure(route)
            failed.append(route)
            may_pass = may_pass or outcome.may_pass
            if len(failed) < servers:
                continue
            if attempt == self.limits.max_retries or not may_pass:
                raise outcome.error
            await self._pause(attempt, outcome, deadline)
            attempt, failed, may_pass = attempt + 1, [], False

    async def _ask(
        self, route: Route, texts: SentTexts, deadline: float, servers: int
    ) -> dict[int, float] | _Failure | None:
        """Send one request; `None` means that it should be sent again in another way.

        Args:
            route: The server.
            texts: What to send; texts that the server refuses are shortened.
            deadline: Time of the event loop at which to give up.
            servers: Number of servers that share the time that is left.
        """
        url, known = route.url, self.requests.learned
        # The loop is shared by all models, and a body may be megabytes.
        body, content = await asyncio.to_thread(self._body, texts)
        answer = await self._attempt(url, content, deadline, servers)
        if isinstance(answer, _Failure):
            return answer
        if httpx.codes.is_success(answer.status):
            try:
                scores = self._read(answer, url, len(texts.passages))
            except RemoteError as err:
                return _Failure(err)
            route.settle(url)
            return scores
        is_another_model = answer.status == httpx.codes.NOT_FOUND and speaks_of_a_model(answer.text)
        if (
            (not is_another_model and route.tries_another(url, answer.status, answer.headers))
            or await self._learns(answer, body, url, known, deadline)
            or texts.fit(answer.status, answer.text)
        ):
            return None
        failure = self._refused(answer, route, url)
        if answer.status in _REQUESTS_FAULT:
            raise failure
        return _Failure(failure, answer.status in RETRIED, retry_after(answer.headers))

    def _body(self, texts: SentTexts) -> tuple[Any, bytes]:
        body = self.requests.body(texts.query, texts.passages, self.max_length)
        return body, json.dumps(body).encode()

    async def _attempt(self, url: str, content: bytes, deadline: float, servers: int) -> Answer | _Failure:
        left = deadline - asyncio.get_running_loop().time()
        share = left / servers if self.limits.attempt_timeout is None else self.limits.attempt_timeout
        seconds = max(0.0, min(left, share))
        try:
            return await self.transport.post(
                url, content, self.headers, max_bytes=self.limits.max_response_bytes, seconds=seconds
            )
        except AnswerTooLongError as err:
            return _Failure(
                RemoteError(
                    f"the rerank server at {show_url(url)} answered with more than max_response_bytes="
                    f"{self.limits.max_response_bytes} bytes; it may be a server of another kind.",
                    status_code=err.status,
                )
            )
        except TimeoutError:
            failure = RemoteError(
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
        return _Failure(failure, may_pass=True)

    async def _pause(self, attempt: int, failure: _Failure, deadline: float) -> None:
        """Wait before the next round; raise where no time would be left."""
        # Randomness keeps many clients from coming back all at once.
        backoff = 0.5 * 2.0 ** min(attempt, 64) * random.uniform(0.75, 1.25)  # noqa: S311
        pause = min(failure.wait if failure.wait is not None else backoff, self.limits.max_retry_wait)
        if asyncio.get_running_loop().time() + pause >= deadline:
            raise failure.error
        await asyncio.sleep(pause)

    async def _learns(self, answer: Answer, body: Any, url: str, known: tuple[object, ...], deadline: float) -> bool:
        """Take in a refusal, and return whether the request should be made again in another way."""
        if answer.status not in (400, 422):
            return False
        if known != self.requests.learned:
            # Another request has learned meanwhile.
            return True
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

    def _refused(self, answer: Answer, route: Route, url: str) -> RemoteError:
        # The key is hidden before the text is cut, because half a key would not be found any more.
        text = hide(answer.text, self.secrets)[:300]
        tried = hide(route.describe(answer.status, answer.headers), self.secrets)
        return RemoteError(
            f"the rerank server at {show_url(url)} answered {answer.status}: {text!r}{tried}; check the "
            "address, the model's name (RemoteCrossEncoder(url, model=...)), the request shape and the key.",
            status_code=answer.status,
        )

    def _read(self, answer: Answer, url: str, expected: int) -> dict[int, float]:
        if answer.damage is not None:
            raise self._unusable(answer, url, f"a body that cannot be unpacked ({self._shown(answer.damage)})")
        try:
            payload = json.loads(answer.content)
        except (ValueError, RecursionError) as err:
            reason = f"{cut(str(err), 80)}: {self._words(answer, None)}"
            raise self._unusable(answer, url, f"text that is not JSON ({reason})") from err
        if self.read_answer is not None:
            return self._read_own(self.read_answer, answer, url, payload, expected)
        results = find_results(payload)
        if results is None:
            raise self._unusable(answer, url, f"no list of results: {self._words(answer, payload)}")
        try:
            scores = read_scores(results, expected)
        except UnreadableAnswerError as err:
            raise self._unusable(answer, url, cut(hide(str(err), self.secrets), 120)) from None
        if len(scores) < min(expected, _SMALLEST_CAP):
            missing = sorted(set(range(expected)) - scores.keys())
            what = f"no result for passages {shorten(missing)} of {expected}: {self._words(answer, payload)}"
            raise self._unusable(answer, url, what)
        return scores

    def _read_own(
        self, read_answer: ReadAnswer, answer: Answer, url: str, payload: Any, expected: int
    ) -> dict[int, float]:
        read = read_answer(payload, expected)
        if isinstance(read, Mapping | str):
            raise InvalidInputError(f"read_answer returned {shorten(read)}; return a list of scores.")
        scores = dict(enumerate(map(float, read)))
        if len(scores) != expected:
            raise self._unusable(answer, url, f"{len(scores)} scores for {expected} passages")
        return scores

    def _unusable(self, answer: Answer, url: str, what: str) -> RemoteError:
        return RemoteError(
            f"the rerank server at {show_url(url)} answered with {what}; "
            f"check that the endpoint has the {self.requests.shape!r} shape.",
            status_code=answer.status,
        )

    def _words(self, answer: Answer, payload: Any) -> str:
        """Return the beginning of an answer, and before it what it says is wrong if that comes later."""
        text, complaint = self._shown(answer.text), find_complaint(payload, answer.text)
        if complaint is None or (complaint := self._shown(complaint))[1:-1] in text:
            return text
        return f"{complaint} in {cut(text, 60)}"

    def _shown(self, text: str) -> str:
        # The key is hidden before the text is cut, because half a key would not be found any more.
        return repr(cut(hide(text, self.secrets), 120))


def _hint(url: str, text: str) -> str:
    if url.startswith("https:") and "ssl" in text.lower():
        return ", which may have to begin with http://"
    if url.startswith("http:") and "disconnected" in text:
        return ", which may have to begin with https://"
    return ""
