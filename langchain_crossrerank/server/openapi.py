"""The OpenAPI document of the server, made from the models of the dialects."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from langchain_crossrerank import __version__
from langchain_crossrerank.server.dialects.cohere import RerankRequest, RerankResponse
from langchain_crossrerank.server.dialects.tei import Rank, TeiRerankRequest
from langchain_crossrerank.server.dialects.vllm import ScoreRequest, ScoreResponse

_SCHEMA = "#/components/schemas/"
_ERRORS = {
    "400": "An invalid value, or an unknown field.",
    "401": "No API key, or a wrong one.",
    "404": "No such model.",
    "413": "Too many bytes, documents or tokens.",
    "422": "The request body has the wrong shape.",
    "429": "Too many requests are in progress; see `Retry-After`.",
    "503": "The model is still loading; see `Retry-After`.",
}


def openapi_document(*, needs_key: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        needs_key: Whether clients must send a key.
    """
    bodies = (RerankRequest, TeiRerankRequest, ScoreRequest)
    answers = (RerankResponse, Rank, ScoreResponse)
    _, schemas = models_json_schema(
        [*((body, "validation") for body in bodies), *((answer, "serialization") for answer in answers)],
        ref_template=_SCHEMA + "{model}",
    )
    cohere = _operation("Rank documents (Cohere, Jina, Infinity)", ["RerankRequest"], [_ref("RerankResponse")])
    ranks = {"type": "array", "items": _ref("Rank")}
    either = _operation(
        "Rank documents (Cohere, Jina, Infinity) or texts (Text Embeddings Inference)",
        ["RerankRequest", "TeiRerankRequest"],
        [_ref("RerankResponse"), ranks],
    )
    score = _operation("Score pairs of texts (vLLM)", ["ScoreRequest"], [_ref("ScoreResponse")])
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "crossrerank",
            "version": __version__,
            "description": "Cross-encoder reranking. Scores are probabilities from 0 to 1 unless logits are asked for.",
        },
        "paths": {
            "/rerank": {"post": either},
            "/v1/rerank": {"post": cohere},
            "/v2/rerank": {"post": cohere},
            "/score": {"post": score},
            "/v1/score": {"post": score},
            "/v1/models": {"get": _reading("List the models", "application/json")},
            "/health": {"get": _reading("Whether all models are loaded", "application/json")},
            "/metrics": {"get": _reading("Figures for Prometheus", "text/plain")},
        },
        "components": {"schemas": schemas["$defs"]},
    }
    if needs_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _SCHEMA + name}


def _operation(summary: str, bodies: list[str], answers: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"anyOf": [_ref(name) for name in bodies]} if len(bodies) > 1 else _ref(bodies[0])
    answer = {"anyOf": answers} if len(answers) > 1 else answers[0]
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The result.", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": meaning} for status, meaning in _ERRORS.items()},
        },
    }


def _reading(summary: str, media_type: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": "The state.", "content": {media_type: {}}}}}
