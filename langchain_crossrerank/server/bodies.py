"""Reads the body of a request within bounds, and decodes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from langchain_crossrerank.checks import cut
from langchain_crossrerank.cross_encoders.pairs import encodable
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.server.problems import Problem
from langchain_crossrerank.server.scoring import ClientGoneError, check_documents

_DECODED_AT_ONCE = 256 * 1024
"""Bytes up to which a body is decoded and checked on the event loop; longer ones would hold up other requests."""

_MOST_FIELDS = 64
"""Fields of a body beyond which it is refused; no request has as many."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def beside_the_loop(body: bytes, work: Callable[[Argument], Result], argument: Argument) -> Result:
    """Do work that takes the longer the longer a body is: at once, or on a thread if the body is long."""
    if len(body) <= _DECODED_AT_ONCE:
        return work(argument)
    return await asyncio.to_thread(work, argument)


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


def check_counts(payload: Mapping[str, Any], limits: Limits) -> None:
    """Check how much a decoded body contains, before its contents are looked at one by one.

    Raises:
        Problem: If it has more documents than allowed, or more fields than any request.
    """
    if len(payload) > _MOST_FIELDS:
        raise Problem("invalid", f"the body has {len(payload)} fields; send only those that /openapi.json lists.")
    longest = max((len(value) for value in payload.values() if isinstance(value, list)), default=0)
    check_documents(longest, limits)


def _decode_surrogates(body: bytes) -> Any:
    # Python's own encoder sends half a character if a text was cut inside one; other decoders refuse that.
    try:
        return from_json(encodable(json.dumps(json.loads(body), ensure_ascii=False)), allow_inf_nan=False)
    except (ValueError, RecursionError) as err:
        raise Problem("malformed", f"the body is not JSON: {cut(str(err), 200)}.") from None


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises:
        Problem: If it is compressed, too large, or arrives too slowly.
        ClientGoneError: If the client closes the connection before the end.
    """
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
