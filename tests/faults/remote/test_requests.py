"""What a rerank server is sent, and how its answers are joined."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fault_tally import Tally
from tests.faults.remote.rerank_server import (
    EXPECTED,
    KEY,
    Connect,
    Handler,
    Score,
    Server,
    answer,
    relevance,
    results_for,
)

BODIES = {
    "documents": (
        {"model": "m1"},
        {"model": "m1", "query": "lora", "documents": ["alpha"], "top_n": 1, "return_documents": False},
    ),
    "documents without a model": (
        {},
        {"query": "lora", "documents": ["alpha"], "top_n": 1, "return_documents": False},
    ),
    "text_2": ({"model": "m1"}, {"model": "m1", "text_1": "lora", "text_2": ["alpha"]}),
    "texts": ({"model": "m1"}, {"query": "lora", "texts": ["alpha"], "raw_scores": False, "truncate": True}),
    "texts with raw scores": (
        {"activation": "identity"},
        {"query": "lora", "texts": ["alpha"], "raw_scores": True, "truncate": True},
    ),
}


@pytest.mark.parametrize("what", BODIES)
def test_the_request_is_exactly_what_the_shape_says(
    what: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """The body has the fields of the shape and no others, and goes to the given path."""
    tally("request bodies")
    settings, body = BODIES[what]
    score(connect(request_shape=what.split(maxsplit=1)[0], **settings), [("lora", "alpha")])
    (request,) = server.requests
    assert request.body == body
    assert request.path == "/rerank"
    assert request.headers["content-type"] == "application/json"


KEYS: dict[str, tuple[Any, str | None, str | None]] = {
    "given": (KEY, None, f"Bearer {KEY}"),
    "given as a secret": (SecretStr(KEY), None, f"Bearer {KEY}"),
    "from the environment": (None, KEY, f"Bearer {KEY}"),
    "given, and another in the environment": (KEY, "other", f"Bearer {KEY}"),
    "none": (None, None, None),
    "none, whatever the environment says": (False, "other", None),
    "an empty environment": (None, "", None),
}


@pytest.mark.parametrize("what", KEYS)
def test_the_key_travels_as_a_bearer_token(
    what: str, server: Server, connect: Connect, score: Score, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """The header contains the given key, else that of the environment; without a key there is no header."""
    tally("keys")
    given, environment, header = KEYS[what]
    if environment is not None:
        monkeypatch.setenv("CROSSRERANK_API_KEY", environment)
    assert score(connect(api_key=given)) == EXPECTED
    assert server.requests[0].headers.get("authorization") == header


def test_both_shapes_give_the_scores_in_input_order(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """The server answers best first; the scores are returned in the order of the passages."""
    tally("answers out of order")
    assert score(connect(request_shape=shape)) == EXPECTED
    assert sorted(EXPECTED, reverse=True) != EXPECTED


@pytest.mark.parametrize("name", ["relevance_score", "score"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["object", "list"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_results_are_matched_by_index(
    order: tuple[int, ...], wrapped: bool, name: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """Whatever the order, the name of the score and the wrapping; whole numbers are scores too."""
    tally("answers out of order")
    results = [{"index": index, name: [0.25, 1, -2.5][index]} for index in order]
    server.script(answer({"results": results} if wrapped else results))
    scores = score(connect(), [("lora", passage) for passage in "abc"])
    assert scores == [0.25, 1.0, -2.5]
    assert {type(value) for value in scores} == {float}


def test_more_passages_than_a_request_holds_are_divided_and_merged(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """One query per request, never more than `max_documents` passages, and every score in its place."""
    tally("divided requests")
    pairs = [(query, f"passage {'x' * (7 * place % 40)} {place}") for place in range(50) for query in ("lora", "bm25")]
    scores = score(connect(request_shape=shape, max_documents=8), [*pairs, *pairs[:5]])
    assert scores == [relevance(*pair) for pair in [*pairs, *pairs[:5]]]
    assert max(len(request.passages) for request in server.requests) <= 8
    assert sum(len(request.passages) for request in server.requests) == len(pairs)
    asked = sorted((request.body["query"], passage) for request in server.requests for passage in request.passages)
    assert asked == sorted(pairs)


def test_a_request_is_filled_to_max_documents_and_no_further(
    server: Server, connect: Connect, score: Score, shape: Any, tally: Tally
) -> None:
    """Twenty passages of one query are two requests of eight and one of four."""
    tally("divided requests")
    pairs = [("lora", f"passage {place:02}") for place in range(20)]
    assert score(connect(request_shape=shape, max_documents=8), pairs) == [relevance(*pair) for pair in pairs]
    assert sorted(len(request.passages) for request in server.requests) == [4, 8, 8]


def test_no_pairs_need_no_server(server: Server, connect: Connect, score: Score, tally: Tally) -> None:
    """Without pairs, the result is an empty list and no request is sent."""
    tally("no pairs")
    assert score(connect(), []) == []
    assert server.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity"])
def test_a_compressed_answer_is_read(
    encoding: str, server: Server, connect: Connect, score: Score, tally: Tally
) -> None:
    """A server may compress its answer."""
    tally("content encodings")

    def reply(handler: Handler) -> None:
        content = json.dumps(results_for(handler.request_seen)).encode()
        handler.send(gzip.compress(content) if "gzip" in encoding else content, content_encoding=encoding)

    server.script(reply)
    assert score(connect()) == EXPECTED
