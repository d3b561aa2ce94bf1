"""What a rerank server answers: unpacked within bounds, and read as scores."""

from __future__ import annotations

import email.utils
import math
import re
import time
import zlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import httpx

_LISTS = ("results", "data", "rankings", "scores", "output", "result", "response", "predictions", "records")
_INDEXES = ("index", "id", "corpus_id")
_SCORES = ("relevance_score", "relevanceScore", "score", "logit")
_NESTED = 4

_COMPLAINTS = ("error", "errors", "detail", "message", "msg", "reason")
_TITLE = re.compile(r"<title[^>]*>([^<]+)", re.IGNORECASE)
_SEARCHED_CHARACTERS = 20_000


class Answer:
    """An answer whose body arrives piece by piece and is unpacked no further than allowed.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any case.
        content: The body so far, unpacked.
        received: Bytes of the body so far, as they arrived.
        damage: Why the body cannot be unpacked, `None` if it can.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.content = bytearray()
        self.received = 0
        self.damage: str | None = None
        self._unpack: Any = None
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif encoding not in ("", "identity"):
            self.damage = f"content-encoding: {encoding}"

    def add(self, piece: bytes, max_bytes: int) -> None:
        """Take in a piece, unpacking no more than makes the content `max_bytes` long."""
        self.received += len(piece)
        if self._unpack is not None and self.damage is None:
            try:
                # What follows the end would be kept by the library, however much it is.
                piece = b"" if self._unpack.eof else self._unpack.decompress(piece, max_bytes - len(self.content))
            except zlib.error as err:
                self.damage = str(err)
        self.content += piece

    @property
    def size(self) -> int:
        """Bytes so far, as they arrived or unpacked, whichever are more."""
        return max(self.received, len(self.content))

    @property
    def text(self) -> str:
        """The body as text, for errors."""
        return self.content.decode("utf-8", "replace")


class UnreadableAnswerError(Exception):
    """An answer does not say clearly what the scores are; the message completes "the server answered with ..."."""


def find_results(payload: Any) -> list[Any] | None:
    """Find the list of results in an answer: bare, or under one of the names that servers use, nested or not."""
    for _ in range(_NESTED):
        if isinstance(payload, list):
            return payload
        if not isinstance(payload, dict):
            return None
        payload = next((payload[name] for name in _LISTS if payload.get(name) is not None), None)
    return None


def find_complaint(payload: Any, text: str) -> str | None:
    """Find what an answer without results says instead: an error among its fields, or the title of a web page.

    Args:
        payload: The answer, `None` if it is not JSON.
        text: The same as text.
    """
    if payload is None:
        title = _TITLE.search(text[:_SEARCHED_CHARACTERS])
        return title.group(1).strip() if title is not None else None
    for _ in range(_NESTED):
        if isinstance(payload, list):
            payload = payload[0] if payload else None
        if isinstance(payload, str):
            return payload
        if not isinstance(payload, dict):
            return None
        payload = next((payload[name] for name in _COMPLAINTS if payload.get(name)), None)
    return None


def read_scores(results: list[Any], expected: int) -> dict[int, float]:
    """Read results as scores by the passages' places.

    A result is an object with an index and a score; a list of nothing but scores, or of lists with one score each, is
    in the passages' order. Numbers may be written as text, and indexes with a decimal point, but then all of them: a
    mixture is the work of a broken server.

    Raises:
        UnreadableAnswerError: If a result is something else, names no passage or the same one twice, or if a plain list
            has another length.
    """
    if results and not any(isinstance(result, dict) for result in results):
        if len(results) != expected:
            raise UnreadableAnswerError(f"{len(results)} scores for {expected} passages")
        if all(isinstance(result, list) and len(result) == 1 for result in results):
            results = [result[0] for result in results]
        results = [{"index": place, "score": score} for place, score in enumerate(results)]
    indexes = [_first(result, _INDEXES) for result in results]
    if all(isinstance(index, float) and index.is_integer() for index in indexes):
        indexes = [int(index) for index in indexes]
    found_scores = [_first(result, _SCORES) for result in results]
    indexes_are_text, scores_are_text = _are_text(indexes), _are_text(found_scores)
    scores: dict[int, float] = {}
    for result, place, value in zip(results, indexes, found_scores, strict=True):
        index = _whole_number(place, as_text=indexes_are_text)
        score = _number(value, as_text=scores_are_text)
        if index is None or score is None:
            raise UnreadableAnswerError(f"the result {result!r}")
        if not 0 <= index < expected:
            raise UnreadableAnswerError(f"index {index!r} for {expected} passages")
        if index in scores:
            raise UnreadableAnswerError(f"index {index} twice")
        scores[index] = score
    return scores


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` as seconds from now; it may be a number or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
            # A date without a zone is meant as GMT, as all of HTTP's are.
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            seconds = moment.timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _first(result: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(result, dict):
        return None
    return next((result[name] for name in names if result.get(name) is not None), None)


def _are_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _whole_number(value: Any, *, as_text: bool) -> int | None:
    if as_text:
        return (
            int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else None
        )
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any, *, as_text: bool) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str if as_text else int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
