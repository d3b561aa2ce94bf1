"""What a rerank server answers: unpacked within bounds, and read as scores."""

from __future__ import annotations

import email.utils
import math
import time
import zlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import httpx

_LISTS = ("results", "data", "rankings", "scores", "output", "result", "response", "predictions")
_INDEXES = ("index", "id")
_SCORES = ("relevance_score", "score", "logit")
_NESTED_LISTS = 4


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
    for _ in range(_NESTED_LISTS):
        if isinstance(payload, list):
            return payload
        if not isinstance(payload, dict):
            return None
        payload = next((payload[name] for name in _LISTS if payload.get(name) is not None), None)
    return None


def read_scores(results: list[Any], expected: int) -> dict[int, float]:
    """Read results as scores by the passages' places.

    A result is an object with an index and a score; a list of nothing but scores is in the passages' order. Numbers may
    be written as text, but then all of them: a mixture is the work of a broken server.

    Raises:
        UnreadableAnswerError: If a result is something else, names no passage or the same one twice, or if a plain list
            has another length.
    """
    if results and not any(isinstance(result, dict) for result in results):
        if len(results) != expected:
            raise UnreadableAnswerError(f"{len(results)} scores for {expected} passages")
        results = [{"index": place, "score": score} for place, score in enumerate(results)]
    as_text = {name: _is_text(results, names) for name, names in (("index", _INDEXES), ("score", _SCORES))}
    scores: dict[int, float] = {}
    for result in results:
        index = _whole_number(_first(result, _INDEXES), as_text=as_text["index"])
        score = _number(_first(result, _SCORES), as_text=as_text["score"])
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
    return next((result[name] for name in names if name in result), None)


def _is_text(results: list[Any], names: tuple[str, ...]) -> bool:
    return all(isinstance(_first(result, names), str) for result in results)


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
