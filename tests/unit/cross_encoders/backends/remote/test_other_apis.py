"""Servers with APIs of their own: vLLM's scores, and two functions of the caller for any other."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from langchain_crossrerank.errors import RemoteError
from tests.unit.cross_encoders.backends.remote.conftest import (
    PAIRS,
    SCORES,
    Connect,
    Reply,
    Serve,
    nim_request,
    read_pairs,
)


def dashscope_request(query: str, passages: list[str]) -> Any:
    """The request of DashScope."""
    return {"model": "gte", "input": {"query": query, "documents": passages}, "parameters": {"return_documents": False}}


def test_the_score_endpoint_of_vllm(serve: Serve, connect: Connect) -> None:
    """The address says which shape is meant."""
    server = serve(
        lambda body: (200, {"data": [{"index": i, "score": SCORES[t]} for i, t in enumerate(body["text_2"])]})
    )
    assert connect(f"{server.url}/v1/score", model="m").score(PAIRS) == [0.75, 0.5, 0.25]
    assert server.bodies[0]["text_1"] == "lora"


@pytest.mark.parametrize(
    ("settings", "reply"),
    [
        (
            {"make_request": nim_request, "activation": "identity"},
            lambda body: (
                200,
                {"rankings": [{"index": i, "logit": SCORES[p["text"]]} for i, p in enumerate(body["passages"])]},
            ),
        ),
        (
            {"make_request": dashscope_request},
            lambda body: (
                200,
                {
                    "output": {
                        "results": [
                            {"index": i, "relevance_score": SCORES[t]} for i, t in enumerate(body["input"]["documents"])
                        ]
                    }
                },
            ),
        ),
        (
            {"read_answer": read_pairs},
            lambda body: (200, {"who": {str(i): str(SCORES[t]) for i, t in enumerate(body["documents"])}}),
        ),
    ],
    ids=["NVIDIA NIM", "DashScope", "own answer"],
)
def test_a_request_and_an_answer_of_ones_own(
    settings: dict[str, Any], reply: Callable[[Any], Reply], serve: Serve, connect: Connect
) -> None:
    """Two functions are enough for a server with an API of its own; they survive pickling."""
    model = connect(f"{serve(reply).url}/v1/ranking", **settings)
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
    twin = pickle.loads(pickle.dumps(model))
    assert twin.score(PAIRS) == [0.75, 0.5, 0.25]
    twin.close()


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 4])
def test_a_reader_with_another_number_of_scores_is_an_error(
    scores: list[float], serve: Serve, connect: Connect
) -> None:
    """Scores are never assigned by guess."""
    with pytest.raises(RemoteError, match="scores for 3 passages"):
        connect(f"{serve().url}/rerank", read_answer=lambda answer, expected: scores).score(PAIRS)
