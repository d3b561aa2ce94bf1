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


class Answer:
    """An answer whose body comes in piece by piece, unpacked no further than is wanted."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.content = bytearray()
        self.damage: str | None = None
        self._unpack: Any = None
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            self._unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        elif encoding not in ("", "identity"):
            self.damage = f"content-encoding: {encoding}"

    def add(self, piece: bytes, most: int) -> None:
        """Take a piece, as far as the content then holds at most `most` bytes."""
        if self._unpack is not None and self.damage is None:
            try:
                piece = self._unpack.decompress(piece, most - len(self.content))
            except zlib.error as err:
                self.damage = str(err)
        self.content += piece


def index_and_score(result: Any) -> tuple[int | None, float | None]:
    """Read one result; `None` stands for an index or score that is missing or cannot be one."""
    if not isinstance(result, dict):
        return None, None
    index, score = result.get("index"), result.get("relevance_score", result.get("score"))
    if not isinstance(index, int) or isinstance(index, bool):
        index = None
    if not isinstance(score, int | float) or isinstance(score, bool):
        return index, None
    try:
        score = float(score)
    except OverflowError:
        return index, None
    return index, score if math.isfinite(score) else None


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
