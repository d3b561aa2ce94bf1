"""The dialect of vLLM's score API: one text against many, or two lists pair by pair, to scores in input order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, Field

from langchain_crossrerank.server.dialects.base import (
    Call,
    Dialect,
    ListOf,
    RequestBody,
    Scored,
    read_query,
    read_token_limit,
    validate,
)
from langchain_crossrerank.server.problems import Kind, Problem


class ScoreRequest(RequestBody):
    """Score texts against others: one against many, or two lists of equal length, pair by pair."""

    text_1: str | ListOf[str] = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"), description="The query, or one for each text."
    )
    text_2: str | ListOf[str] = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"), description="The texts to score."
    )
    model: str | None = Field(default=None, description="A name from `/v1/models`; the first one if left out.")
    use_activation: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("use_activation", "activation"),
        description="`false` returns logits instead of probabilities.",
    )
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Tokens to which both texts together are cut; -1 for the model's limit."
    )
    priority: int | None = Field(default=None, description="Accepted; all requests take turns.")
    user: str | None = Field(default=None, description="Accepted and not used.")


class Score(RequestBody):
    """One pair's score."""

    index: int = Field(description="Position of the pair in the request, from 0.")
    object: str = "score"
    score: float = Field(description="Probability, or a logit if `use_activation` is false.")


class ScoreResponse(RequestBody):
    """Scores in the order of the request."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Score]
    usage: dict[str, int]


def read_request(payload: Mapping[str, Any]) -> Call:
    """Read a request.

    Raises:
        Problem: If the request is not one of this dialect.
    """
    body = validate(ScoreRequest, payload)
    queries = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    texts = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    queries = [read_query(query, what="text_1") for query in queries]
    if len(queries) == 1:
        queries = queries * len(texts)
    if len(queries) != len(texts):
        raise Problem(
            "invalid",
            f"text_1 has {len(queries)} texts and text_2 has {len(texts)}; pass one against any number, or equally "
            "many of both.",
        )
    return Call(
        model=body.model,
        pairs=list(zip(queries, texts, strict=True)),
        render=_render,
        logits=body.use_activation is False,
        max_pair_tokens=read_token_limit(body.truncate_prompt_tokens),
    )


def _render(scored: Scored) -> dict[str, Any]:
    tokens = scored.tokens or 0
    return {
        "id": f"score-{scored.id}",
        "object": "list",
        "created": int(time.time()),
        "model": scored.model,
        "data": [{"index": place, "object": "score", "score": score} for place, score in enumerate(scored.scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


_TYPES: dict[Kind, str] = {
    "not_found": "NotFoundError",
    "unauthorized": "AuthenticationError",
    "busy": "RateLimitError",
    "loading": "ServiceUnavailableError",
    "failed": "InternalServerError",
    "upstream": "InternalServerError",
    "timeout": "InternalServerError",
}


def _error_body(problem: Problem, status: int) -> dict[str, Any]:
    kind = _TYPES.get(problem.kind, "BadRequestError")
    return {"error": {"message": str(problem), "type": kind, "param": None, "code": status}}


DIALECT = Dialect("vllm", read_request, _error_body, {"mistyped": 400})
