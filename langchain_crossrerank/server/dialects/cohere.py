"""The dialect of Cohere (v1 and v2), Jina, Infinity and vLLM's rerank: `query` and `documents` to ranked results."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field

from langchain_crossrerank.checks import shorten
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
from langchain_crossrerank.server.problems import Problem

TEXT_FIELD = "text"
"""The field of a document that is read if a document is an object and `rank_fields` is not given."""


class RerankRequest(RequestBody):
    """Rank documents by how well they answer a query."""

    query: str = Field(description="The search text; not blank.")
    documents: ListOf[str | dict[str, Any]] = Field(description='Texts, or objects such as `{"text": ...}`.')
    model: str | None = Field(default=None, description="A name from `/v1/models`; the first one if left out.")
    top_n: int | None = Field(default=None, ge=1, description="Number of results; all if left out.")
    return_documents: bool | None = Field(default=None, description="Whether results contain the document.")
    raw_scores: bool | None = Field(default=None, description="Return logits instead of probabilities.")
    max_tokens_per_doc: int | None = Field(default=None, ge=1, description="Tokens to which documents are cut.")
    rank_fields: ListOf[str] | None = Field(
        default=None, min_length=1, max_length=32, description="Fields of the documents to read, each once, in order."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        description="Tokens to which query and document together are cut; -1 for the model's limit.",
    )
    truncation: Literal[True] | None = Field(default=None, description="Long documents are always cut.")
    max_chunks_per_doc: int | None = Field(
        default=None,
        ge=1,
        description="Accepted; one chunk of each document is read, up to the model's limit.",
    )
    priority: int | None = Field(default=None, description="Accepted; all requests take turns.")
    user: str | None = Field(default=None, description="Accepted and not used.")


class RankedDocument(RequestBody):
    """One document's place and score."""

    index: int = Field(description="Position of the document in the request, from 0.")
    relevance_score: float = Field(description="Probability from 0 to 1, or a logit if `raw_scores` is true.")
    document: dict[str, Any] | None = Field(default=None, description="Left out unless `return_documents` is true.")


class RerankResponse(RequestBody):
    """Documents, best first."""

    id: str
    model: str
    results: list[RankedDocument]
    meta: dict[str, Any] = Field(description="Version and billed units, as Cohere's clients read them.")
    usage: dict[str, int] = Field(description="Tokens read, as Jina's and Infinity's clients read them.")


def read_request(payload: Mapping[str, Any], *, version: str = "2") -> Call:
    """Read a request.

    Args:
        payload: The decoded body.
        version: What `meta.api_version` of the answer says.

    Raises:
        Problem: If the request is not one of this dialect.
    """
    body = validate(RerankRequest, payload)
    fields = body.rank_fields or [TEXT_FIELD]
    if len(set(fields)) < len(fields):
        raise Problem("invalid", f"rank_fields is {shorten(fields)}, which repeats a name; pass each name once.")
    texts = [_text(document, place, fields) for place, document in enumerate(body.documents)]
    query = read_query(body.query)
    return Call(
        model=body.model,
        pairs=[(query, text) for text in texts],
        render=partial(_render, body, version),
        logits=bool(body.raw_scores),
        max_passage_tokens=body.max_tokens_per_doc,
        max_pair_tokens=read_token_limit(body.truncate_prompt_tokens),
    )


def _text(document: str | dict[str, Any], place: int, fields: list[str]) -> str:
    if isinstance(document, str):
        return document
    values = [document[name] for name in fields if name in document]
    if not values or not all(isinstance(value, str) for value in values):
        raise Problem(
            "invalid",
            f"documents.{place} is {shorten(document)}; pass a string, or an object with text in "
            f"{' or '.join(map(repr, fields))}.",
        )
    return "\n".join(values)


def _render(body: RerankRequest, version: str, scored: Scored) -> dict[str, Any]:
    results = []
    for place in scored.order[: body.top_n]:
        result: dict[str, Any] = {"index": place, "relevance_score": scored.scores[place]}
        if body.return_documents:
            document = body.documents[place]
            result["document"] = {TEXT_FIELD: document} if isinstance(document, str) else document
        results.append(result)
    tokens = scored.tokens or 0
    return {
        "id": scored.id,
        "model": scored.model,
        "results": results,
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
        },
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _error_body(problem: Problem, status: int) -> dict[str, Any]:
    """Cohere's clients read `message`, Jina's and Infinity's `detail`, which is a list for a wrong shape."""
    detail: Any = str(problem)
    if problem.kind == "mistyped":
        detail = [{"loc": ["body"], "msg": str(problem), "type": "value_error"}]
    return {"id": str(uuid.uuid4()), "message": str(problem), "detail": detail, "code": status}


V1 = Dialect("cohere", partial(read_request, version="1"), _error_body)
"""`/v1/rerank`, and `/rerank`, which Jina, Infinity and llama.cpp use, too."""

V2 = Dialect("cohere", read_request, _error_body)
"""`/v2/rerank`."""
