"""Cross-encoders behind HTTP: Text Embeddings Inference, and every server with Cohere's rerank request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from types import FunctionType
from typing import Any, Literal, get_args
from uuid import uuid4

from pydantic import SecretStr

from langchain_crossrerank.checks import check_choices, check_seconds, check_whole_numbers, shorten
from langchain_crossrerank.cross_encoders.backends.remote.exchange import Exchange, Limits, ReadAnswer
from langchain_crossrerank.cross_encoders.backends.remote.log_filter import hide_in_logs
from langchain_crossrerank.cross_encoders.backends.remote.requests import MakeRequest, Requests, RequestShape
from langchain_crossrerank.cross_encoders.backends.remote.routes import endpoint_of, health_of
from langchain_crossrerank.cross_encoders.backends.remote.servers import Servers
from langchain_crossrerank.cross_encoders.backends.remote.settings import Credentials, check_urls
from langchain_crossrerank.cross_encoders.backends.remote.transport import CONNECTIONS, Transport, run_on_loop
from langchain_crossrerank.cross_encoders.base import CrossEncoder, ScoreSteps
from langchain_crossrerank.cross_encoders.fingerprints import fingerprint
from langchain_crossrerank.cross_encoders.pairs import (
    EncodedPair,
    PairScore,
    TextPair,
    check_text_pairs,
    encodable,
    plan_batches,
)
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler, interruptible
from langchain_crossrerank.cross_encoders.scores import Activation, check_finite
from langchain_crossrerank.errors import InvalidInputError, RerankTimeoutError
from langchain_crossrerank.redaction import show_url

DEFAULT_LENGTH = 512
"""Tokens that a server's model is taken to read if the caller does not say."""

QUERY_CHARACTERS_PER_TOKEN = 64
"""Characters of a query that are sent for each token of `max_length`, far more than any tokenizer puts into one."""

LONGEST_QUERY = 262_144
"""Characters of a query that are sent if the caller does not say what the server's model reads."""

_ROUNDING = 1e-3
"""How far a probability may lie outside 0 to 1, because a server computes with few digits."""

_logger = logging.getLogger(__name__)


class RemoteCrossEncoder(CrossEncoder):
    """A cross-encoder that a server computes.

    A request holds one query and at most `max_documents` passages, fewer if the server refuses so many; more are
    divided, sent several at a time, and put together again. Answers are matched by their `index`. Blank passages are
    not sent, because many servers refuse them: they get 0.0 where scores lie above 0 and up to 1, else a score just
    below the lowest of the call.

    A server that is overloaded or restarting is tried again, after what `Retry-After` says or after 0.5, 1, 2...
    seconds with some randomness. Of several servers, the first one that works is asked; another one takes over at
    once, whatever the first does, unless it finds fault with the request (400, 413, 422).

    Long passages are cut by the server, which is asked to do so where its API has a field for it. If it refuses a
    request for its length all the same, texts are cut here and marked as truncated: the query to half of `max_length`,
    the passages to the rest, at three ASCII characters or one other character per token, and to half of that as long
    as it is still too long. A query is sent again with every request, so what no model reads of it is cut out of its
    middle: beyond 64 characters for each token of `max_length`, or 262,144 without one.

    Args:
        url: The address of the endpoint, for example `"http://localhost:7997/rerank"`, or the base address of the
            server, below which the usual routes are tried. A list is the same as its first address with the others as
            `fallback_urls`.
        fallback_urls: Addresses of further servers with the same model, in order of preference.
        model: The model's name for servers that have several, not sent with `make_request`; also the name in traces.
        request_shape: `"documents"` (Cohere, Jina, vLLM, Infinity, llama.cpp), `"texts"` (Text Embeddings Inference) or
            `"text_2"` (vLLM's `/score`); `None` goes by the address. If the server asks for another one, that is used
            from then on, with a warning.
        api_key: Sent as a bearer token; `None` for the environment's `CROSSRERANK_API_KEY`, if that is set, and
            `False` for no key, whatever the environment says.
        api_key_header: Header that carries the key alone, instead of `Authorization: Bearer`; Azure's is `"api-key"`.
        headers: Further headers, which replace those of the same name. Values are shown nowhere if they look like a
            key, or if the header's name says so.
        extra_body: Further fields of the body, which replace those of the same name.
        make_request: Makes the body, any JSON value, from a query and a list of passages, for servers with a request of
            their own.
        read_answer: Reads scores, in the passages' order, from an answer's JSON and the number of passages.
        allow_insecure_key: Send a key over plain http to another machine, where every proxy and network on the way can
            read it.
        activation: The unit of the server's scores. `None` takes them for probabilities (`"sigmoid"`) until one lies
            outside 0 to 1, and then for logits, with a warning. With `"texts"`, `"identity"` asks for raw scores.
        max_documents: Passages in one request; TEI accepts 32 by default.
        max_length: Maximum tokens that the server's model reads. `None` leaves the cut to the server where possible,
            and is 512 where it is not.
        timeout: Seconds for the passages of one request, with all attempts, pauses and follow-ups, from connecting to
            the last byte.
        attempt_timeout: Seconds for one attempt; `None` for what is left of `timeout`, divided by the servers.
        max_retries: Further rounds of attempts after the first one; in each round, every server is asked once.
        max_retry_wait: Longest pause between two attempts, in seconds, whatever the server asks for.
        max_response_bytes: Bytes of an answer, packed or unpacked, beyond which it is refused.

    Raises:
        InvalidInputError: If an address is not http or https or contains a password, if no header can carry the key, if
            a key would travel unencrypted, or if a setting is out of range.
    """

    backend = "remote"

    _warned_unit = False

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        fallback_urls: Sequence[str] = (),
        model: str | None = None,
        request_shape: RequestShape | None = None,
        api_key: SecretStr | str | Literal[False] | None = None,
        api_key_header: str | None = None,
        headers: Mapping[str, str | SecretStr] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        make_request: MakeRequest | None = None,
        read_answer: ReadAnswer | None = None,
        allow_insecure_key: bool = False,
        activation: Activation | None = None,
        max_documents: int = 32,
        max_length: int | None = None,
        timeout: float = 30.0,
        attempt_timeout: float | None = None,
        max_retries: int = 3,
        max_retry_wait: float = 30.0,
        max_response_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        urls = [*check_urls(url), *check_urls(fallback_urls, may_be_empty=True)]
        if request_shape is not None:
            check_choices(request_shape=(request_shape, get_args(RequestShape)))
        if activation is not None:
            check_choices(activation=(activation, get_args(Activation)))
        check_whole_numbers(
            max_documents=(max_documents, 1),
            max_length=(DEFAULT_LENGTH if max_length is None else max_length, 8),
            max_retries=(max_retries, 0),
            max_response_bytes=(max_response_bytes, 1),
        )
        check_seconds(timeout=timeout)
        check_seconds(may_be_zero=True, max_retry_wait=max_retry_wait)
        if attempt_timeout is not None:
            check_seconds(attempt_timeout=attempt_timeout)
        if model is not None and (not isinstance(model, str) or not model or encodable(model) != model):
            raise InvalidInputError(f"model is {shorten(model)}; pass the name that the server knows, or None.")
        self._credentials = Credentials.of(api_key, api_key_header, headers, urls)
        if not allow_insecure_key:
            self._credentials.check_encryption(urls)
        hide_in_logs(self._credentials)
        self.name = model if model is not None else show_url(urls[0])
        self.activation = activation or "sigmoid"
        self.max_length = max_length or DEFAULT_LENGTH
        self.max_batch_tokens = max_documents * self.max_length
        self.max_batch_pairs = max_documents
        self._unit_is_known = activation is not None
        shape: RequestShape = "text_2" if endpoint_of(urls) == "score" else "documents"
        self._requests = Requests(
            shape=request_shape or shape,
            model=model,
            raw_scores=activation == "identity",
            max_length=max_length,
            extra_body=_check_body(extra_body),
            make_request=_check_callable("make_request", make_request),
        )
        self._read_answer = _check_callable("read_answer", read_answer)
        self._limits = Limits(timeout, attempt_timeout, max_retries, max_retry_wait, max_response_bytes)
        self._servers = Servers(urls, "score" if self._requests.shape == "text_2" else "rerank")
        self._transport = Transport()
        # As given, without what is learned from a server later, so that a cache is found again after a restart.
        self._identity = _hashed(
            urls,
            model,
            request_shape,
            max_length,
            self._requests.extra_body,
            _identify(make_request),
            _identify(read_answer),
        )

    @property
    def url(self) -> str:
        """The address, or the first of several, with its secrets; show `name` instead."""
        return self._servers.routes[0].given

    @property
    def fingerprint(self) -> str:
        """The addresses, the model's name, the request and the unit; the server's weights cannot be seen from here."""
        return fingerprint("remote", self._identity, activation=self.activation)

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Threads enough to keep several requests under way."""
        return StepScheduler(name=self.name, workers=CONNECTIONS, network=True)

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score pairs in one step, which ends at once when the caller gives up."""
        pairs = check_text_pairs(text_pairs)
        self._prepare(pairs)
        work = run_on_loop(self._score_all(pairs))

        def stop() -> None:
            work.cancel()

        # Whatever ends the waiting, a time limit of the caller or Ctrl-C, ends the requests too.
        try:
            with interruptible(stop):
                results = work.result()
        finally:
            stop()
        yield 1.0
        return results

    async def ascore_pairs(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> list[PairScore]:
        """Score pairs without blocking the event loop, several requests at a time.

        Raises:
            RemoteError: If the server fails.
            RerankTimeoutError: If the deadline passes.
        """
        pairs = check_text_pairs(text_pairs)
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                # Certificates are read from files, which would block the event loop.
                await asyncio.to_thread(self._prepare, pairs)
                return await asyncio.wrap_future(run_on_loop(self._score_all(pairs)))
        except TimeoutError as err:
            raise RerankTimeoutError(
                f"{self.name!r} did not score {len(pairs)} pairs within {seconds} seconds; rerank fewer candidates, or "
                "allow more time."
            ) from err

    def _prepare(self, pairs: Sequence[TextPair]) -> None:
        # Fails for a proxy in the environment that the HTTP library cannot use.
        self._guarded(lambda _: self._transport.prepare(), None, pairs, pairs)

    def check_health(self, *, timeout: float = 5.0) -> dict[str, bool]:
        """Ask every server whether it is ready.

        Args:
            timeout: Seconds to wait for an answer.

        Returns:
            For each address that was given, whether `/health` there, without endpoint and version, answers with 200.
        """
        check_seconds(timeout=timeout)
        self._transport.prepare()
        headers = self._credentials.headers
        given = [route.given for route in self._servers.routes]
        health = [health_of(url) for url in given]

        async def ask() -> list[bool]:
            return await asyncio.gather(*(self._transport.is_healthy(url, headers, seconds=timeout) for url in health))

        return dict(zip(map(show_url, given), run_on_loop(ask()).result(), strict=True))

    def close(self) -> None:
        """Close the connections of this process; a later call opens new ones."""
        self._transport.close()

    async def aclose(self) -> None:
        """Close the connections of this process without blocking the event loop."""
        await asyncio.to_thread(self._transport.close)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # In another process, the log does not know the key yet.
        hide_in_logs(self._credentials)

    async def _score_all(self, pairs: Sequence[TextPair]) -> list[PairScore]:
        """Score pairs on the HTTP loop."""
        scores: dict[TextPair, PairScore] = {}

        async def score_group(group: Sequence[EncodedPair]) -> None:
            members = [item.text_pair for item in group]
            async with self._transport.slots:
                try:
                    scores.update(zip(members, await self._score_group(members), strict=True))
                except Exception as err:  # noqa: BLE001 - raised again by the base class's rule
                    self._guarded(_raise, err, pairs, members)

        sent = self._encode([pair for pair in dict.fromkeys(pairs) if pair[1]])
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._plan(sent):
                    tasks.create_task(score_group(group))
        except BaseExceptionGroup as group_error:
            # All others are cancelled by then; the first failure says why.
            raise group_error.exceptions[0] from group_error.exceptions[0].__cause__
        check_finite([scores[pair].score for pair in pairs if pair in scores], self.name)
        self._check_unit(scored.score for scored in scores.values())
        if self.activation == "sigmoid":
            scores = {pair: replace(scored, score=_rounded(scored.score)) for pair, scored in scores.items()}
        blank = PairScore(self._blank_score([scored.score for scored in scores.values()]))
        return [scores.get(pair, blank) for pair in pairs]

    def _blank_score(self, scores: Sequence[float]) -> float:
        """Return a score that ranks a blank passage last: 0 among probabilities, else just below the others."""
        lowest = min(scores, default=math.inf)
        if lowest == math.inf or (self.activation == "sigmoid" and lowest > 0):
            return 0.0
        return max(math.nextafter(lowest, -math.inf), -sys.float_info.max)

    async def _score_group(self, members: Sequence[TextPair]) -> list[PairScore]:
        """Score pairs of one query, asking again for what a server with a limit on its results left out."""
        given, passages = members[0][0], [passage for _, passage in members]
        query = self._cut_query(given)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout
        found: dict[int, PairScore] = {}
        while missing := [place for place in range(len(passages)) if place not in found]:
            scores = await self._exchange().run(query, [passages[place] for place in missing], deadline)
            if len(scores) < len(missing):
                self.max_batch_pairs = min(self.max_batch_pairs or len(scores), len(scores))
            found |= {missing[place]: scored for place, scored in scores.items()}
        self._warn_truncated(
            [EncodedPair(pair, 0, truncated=found[place].truncated) for place, pair in enumerate(members)]
        )
        ordered = [found[place] for place in range(len(passages))]
        if any(scored.query_truncated for scored in ordered):
            self._warn_query_truncated(given)
        return ordered if query == given else [replace(scored, query_truncated=True) for scored in ordered]

    def _cut_query(self, query: str) -> str:
        known = self._requests.max_length
        half = (LONGEST_QUERY if known is None else QUERY_CHARACTERS_PER_TOKEN * known) // 2
        if len(query) <= 2 * half:
            return query
        self._warn_query_truncated(query)
        return query[:half] + query[-half:]

    def _exchange(self) -> Exchange:
        return Exchange(
            transport=self._transport,
            servers=self._servers,
            requests=self._requests,
            read_answer=self._read_answer,
            headers=self._credentials.headers,
            secrets=self._credentials.secrets,
            limits=self._limits,
            max_length=self.max_length,
        )

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        # A request has one query.
        by_query: dict[str, list[EncodedPair]] = {}
        for item in encoded:
            by_query.setdefault(item.text_pair[0], []).append(item)
        groups = by_query.values()
        return [batch for group in groups for batch in plan_batches(group, self.max_batch_tokens, self.max_batch_pairs)]

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        work = run_on_loop(self._score_group([item.text_pair for item in batch]))
        return [scored.score for scored in work.result()]

    def _check_unit(self, scores: Iterable[float]) -> None:
        """Take scores for logits from now on if one of them is not a probability."""
        outside = next((score for score in scores if not -_ROUNDING <= score <= 1 + _ROUNDING), None)
        if outside is None or self.activation == "identity":
            return
        if self._unit_is_known:
            if not self._warned_unit:
                self._warned_unit = True
                _logger.warning(
                    "%r returned the score %.4g, which lies outside 0 to 1 although activation is 'sigmoid'; pass "
                    "activation='identity' if the server returns logits.",
                    self.name,
                    outside,
                )
            return
        self.activation = "identity"
        _logger.warning(
            "%r returned the score %.4g, so its scores are taken for logits and not for probabilities of 0 to 1 from "
            "now on. Pass activation='identity' to say so, and choose score_threshold in that unit.",
            self.name,
            outside,
        )


def _rounded(score: float) -> float:
    """Return a probability without its error of rounding; what lies further outside 0 to 1 is none."""
    return min(max(score, 0.0), 1.0) if -_ROUNDING <= score <= 1 + _ROUNDING else score


def _check_body(extra_body: Mapping[str, Any] | None) -> dict[str, Any]:
    if extra_body is None:
        return {}
    with contextlib.suppress(TypeError, ValueError):
        if isinstance(extra_body, Mapping) and json.dumps(dict(extra_body), allow_nan=False):
            return dict(extra_body)
    raise InvalidInputError(f"extra_body is {shorten(extra_body)}; pass a dict that can be written as JSON.")


def _check_callable(what: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise InvalidInputError(f"{what} is {shorten(value)}; pass a function, or None.")
    return value


def _identify(hook: Callable[..., Any] | None) -> str | None:
    """Return a text that differs between functions that may do different things."""
    if hook is None:
        return None
    if not isinstance(hook, FunctionType) or hook.__closure__:
        # What a method, another object or a closure does depends on more than its code.
        return uuid4().hex
    code, defaults = hook.__code__, (hook.__defaults__, hook.__kwdefaults__)
    return _hashed(hook.__qualname__, code.co_code.hex(), code.co_names, repr(code.co_consts), repr(defaults))


def _hashed(*parts: Any) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _raise(err: Exception) -> None:
    raise err
