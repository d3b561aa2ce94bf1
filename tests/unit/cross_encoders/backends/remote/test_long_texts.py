"""Passages and queries that are too long: what is cut before they are sent, and after a server refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.client import LONGEST_QUERY, QUERY_CHARACTERS_PER_TOKEN
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.errors import RemoteError
from tests.unit.cross_encoders.backends.remote.conftest import Connect, Reply, Serve, scored


@pytest.mark.parametrize(
    ("settings", "most"), [({"max_length": 64}, 64 * QUERY_CHARACTERS_PER_TOKEN), ({}, LONGEST_QUERY)]
)
def test_what_no_model_reads_of_a_query_is_not_sent(
    settings: dict[str, Any], most: int, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A long query loses its middle, so that a request for each few passages does not multiply it; scores say so."""
    server = serve()
    model = connect(f"{server.url}/rerank", max_documents=1, **settings)
    fits, long = "q" * most, "a" * most + "b" * most
    scores = drain(model.score_steps([(fits, "alpha"), (long, "alpha"), (long, "beta")]))
    assert [scored.query_truncated for scored in scores] == [False, True, True]
    assert sorted(body["query"] for body in server.bodies) == [*[most // 2 * "a" + most // 2 * "b"] * 2, fits]
    assert any("its middle was cut out" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "This model's maximum context length is 64 tokens. However, you requested 873 tokens."),
        (500, "input is too large to process. increase the physical batch size"),
    ],
    ids=["vLLM", "llama.cpp"],
)
def test_a_passage_that_the_server_finds_too_long_is_cut_here(
    status: int, words: str, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is sent again with shorter passages, the one that was cut is marked, and a warning says so."""

    def reply(body: Any) -> Reply:
        too_long = any(len(text) > 4 * 64 for text in body["documents"])
        return (status, {"error": {"message": words}}) if too_long else scored(body)

    server = serve(reply)
    model = connect(f"{server.url}/rerank", max_length=64)
    first, second = drain(model.score_steps([("lora", "alpha"), ("lora", "word " * 500)]))
    assert (first.score, first.truncated) == (0.75, False)
    assert second.truncated
    assert len(server.seen) == 2
    assert "truncate_prompt_tokens" in server.bodies[0]
    assert any("64 tokens" in record.getMessage() for record in caplog.records)


def test_a_request_that_is_still_too_long_is_cut_further(serve: Serve, connect: Connect) -> None:
    """The server's model may read less than is assumed; passages are cut until it takes them."""

    def reply(body: Any) -> Reply:
        too_long = any(len(text) > 300 for text in body["documents"])
        return (413, "`inputs` must have less than 100 tokens") if too_long else scored(body)

    server = serve(reply)
    first, second = drain(connect(f"{server.url}/rerank").score_steps([("lora", "alpha"), ("lora", "word " * 2000)]))
    assert (first.score, first.truncated, second.truncated) == (0.75, False, True)
    assert [max(map(len, body["documents"])) for body in server.bodies] == [10_000, 1506, 738, 354, 162]


def test_a_query_that_the_server_finds_too_long_is_cut(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It loses its middle, the score says so, and short passages stay whole."""

    def reply(body: Any) -> Reply:
        return (500, "input is too large to process") if len(body["query"]) > 1000 else scored(body)

    server = serve(reply)
    (score,) = drain(connect(f"{server.url}/rerank").score_steps([("q" * 3000, "alpha")]))
    assert (score.score, score.truncated, score.query_truncated) == (0.75, False, True)
    assert len(server.bodies[-1]["query"]) == 768
    assert any("its middle was cut out" in record.getMessage() for record in caplog.records)


def test_what_no_cut_helps_ends_in_the_servers_words(serve: Serve, connect: Connect) -> None:
    """After a few requests, the refusal is the error."""
    server = serve(lambda body: (400, {"message": "this is too long"}))
    with pytest.raises(RemoteError, match="this is too long"):
        connect(f"{server.url}/rerank").score([("lora", "word " * 2000)])
    assert len(server.seen) < 10
