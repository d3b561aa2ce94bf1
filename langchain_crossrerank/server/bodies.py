"""Reads the body of a request within bounds, and decodes it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from langchain_crossrerank.checks import cut
from langchain_crossrerank.cross_encoders.pairs import encodable
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.server.problems import Problem
from langchain_crossrerank.server.scoring import ClientGoneError

_DECODED_AT_ONCE = 256 * 1024
"""Bytes up to which a body is decoded on the event loop; longer ones would hold up other requests."""


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Return the body of a request, which must be a JSON object.

    Raises:
        Problem: If it is too large, arrives too slowly, or is not a JSON object.
        ClientGoneError: If the client closes the connection before the end.
    """
    body = await _read(request, limits)
    if len(body) <= _DECODED_AT_ONCE:
        return decode(body)
    return await asyncio.to_thread(decode, body)


def decode(body: bytes) -> dict[str, Any]:
    """Decode a JSON object; lone surrogates in its texts become the replacement character.

    Raises:
        Problem: If it is not a JSON object.
    """
    try:
        payload = from_json(body, allow_inf_nan=False)
    except ValueError:
        payload = _decode_surrogates(body)
    if not isinstance(payload, dict):
        raise Problem("mistyped", f"the body is a JSON {type(payload).__name__}; send an object.")
    return payload


def _decode_surrogates(body: bytes) -> Any:
    # Python's own encoder sends half a character if a text was cut inside one; other decoders refuse that.
    try:
        return from_json(encodable(json.dumps(json.loads(body), ensure_ascii=False)), allow_inf_nan=False)
    except (ValueError, RecursionError) as err:
        raise Problem("malformed", f"the body is not JSON: {cut(str(err), 200)}.") from None


async def _read(request: Request, limits: Limits) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Problem("invalid", f"content-encoding is {encoding[:40]!r}; send the body uncompressed.")
    declared = request.headers.get("content-length", "")
    too_large = Problem(
        "too_large",
        f"the body is larger than the {limits.body_bytes} bytes that this server accepts; send fewer documents at a "
        "time.",
    )
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise Problem("slow", f"the body did not arrive within {limits.body_seconds:g} s; send it again.") from None
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)
