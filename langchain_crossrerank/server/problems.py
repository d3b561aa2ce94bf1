"""What can go wrong with a request, before a dialect says it in its own shape."""

from __future__ import annotations

from typing import Literal

from langchain_crossrerank.errors import (
    CrossRerankError,
    InvalidInputError,
    OverloadedError,
    RemoteError,
    RerankTimeoutError,
)

Kind = Literal[
    "malformed",
    "mistyped",
    "invalid",
    "unauthorized",
    "forbidden",
    "not_found",
    "wrong_method",
    "slow",
    "too_large",
    "busy",
    "failed",
    "upstream",
    "loading",
    "timeout",
]

STATUS: dict[Kind, int] = {
    "malformed": 400,
    "mistyped": 422,
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "wrong_method": 405,
    "slow": 408,
    "too_large": 413,
    "busy": 429,
    "failed": 500,
    "upstream": 502,
    "loading": 503,
    "timeout": 504,
}
"""The HTTP status of each kind; a dialect may differ."""


class Problem(Exception):  # noqa: N818 - an answer to the client, not a fault of the server
    """A request that gets no result.

    Args:
        kind: What is wrong, a key of `STATUS`.
        message: The problem in words, with the value and what to do.
        retry_after: Seconds after which the same request may succeed; `None` if waiting does not help.
    """

    def __init__(self, kind: Kind, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


def as_problem(err: CrossRerankError) -> Problem:
    """Return the problem that reports an error of this package to a client."""
    if isinstance(err, InvalidInputError):
        return Problem("invalid", str(err))
    if isinstance(err, OverloadedError):
        return Problem("busy", str(err), retry_after=max(1, round(err.retry_after or 1)))
    if isinstance(err, RerankTimeoutError):
        return Problem("timeout", str(err))
    return Problem("upstream" if isinstance(err, RemoteError) else "failed", str(err))
