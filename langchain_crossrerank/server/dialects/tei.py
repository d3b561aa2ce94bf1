"""The dialect of Text Embeddings Inference (TEI): `query` and `texts` to a bare list of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field

from langchain_crossrerank.server.dialects.base import Call, Dialect, ListOf, RequestBody, Scored, read_query, validate
from langchain_crossrerank.server.problems import Kind, Problem


class TeiRerankRequest(RequestBody):
    """Rank texts by how well they answer a query."""

    query: str = Field(description="The search text; not blank.")
    texts: ListOf[str] = Field(description="The texts to rank.")
    raw_scores: bool | None = Field(default=None, description="Return logits instead of probabilities.")
    return_text: bool | None = Field(default=None, description="Whether ranks contain the text.")
    truncate: bool | None = Field(
        default=None, description="`false` refuses texts that are longer than the model reads; otherwise they are cut."
    )
    truncation_direction: str | None = Field(default=None, pattern="^[Rr]ight$", description="Texts lose their end.")
    model: str | None = Field(default=None, description="A name from `/v1/models`; the first one if left out.")
    top_n: int | None = Field(default=None, ge=1, description="Number of ranks; all if left out.")


class Rank(RequestBody):
    """One text's place and score."""

    index: int = Field(description="Position of the text in the request, from 0.")
    score: float = Field(description="Probability, or a logit if `raw_scores` is true.")
    text: str | None = Field(default=None, description="Left out unless `return_text` is true.")


def read_request(payload: Mapping[str, Any]) -> Call:
    """Read a request.

    Raises:
        Problem: If the request is not one of this dialect.
    """
    body = validate(TeiRerankRequest, payload)
    query = read_query(body.query)
    return Call(
        model=body.model,
        pairs=[(query, text) for text in body.texts],
        render=partial(_render, body),
        logits=bool(body.raw_scores),
        may_truncate=body.truncate is not False,
    )


def _render(body: TeiRerankRequest, scored: Scored) -> list[dict[str, Any]]:
    ranks = []
    for place in scored.order[: body.top_n]:
        rank: dict[str, Any] = {"index": place, "score": scored.scores[place]}
        if body.return_text:
            rank["text"] = body.texts[place]
        ranks.append(rank)
    return ranks


_TYPES: dict[Kind, str] = {
    "loading": "Unhealthy",
    "failed": "Backend",
    "upstream": "Backend",
    "timeout": "Backend",
    "busy": "Overloaded",
    "mistyped": "Tokenizer",
}


def _error_body(problem: Problem, status: int) -> dict[str, Any]:  # noqa: ARG001 - the status is not in the body
    return {"error": str(problem), "error_type": _TYPES.get(problem.kind, "Validation")}


DIALECT = Dialect("tei", read_request, _error_body, {"failed": 424, "upstream": 424})
