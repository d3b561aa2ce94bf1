"""What is done about refusals and odd answers: learned once, cut, divided, rounded, or shown in the server's words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.errors import RemoteError, ScoringError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, SCORES, Connect, Reply, Serve, scored

WATCHDOG = 30
"""Seconds after which a test that hangs fails."""


def strict(body: Any) -> Reply:
    """Refuse every field beyond query and documents, one after the other."""
    extra = sorted(body.keys() - {"query", "documents"})
    return (422, {"detail": f"Extra inputs are not permitted: {extra[0]}"}) if extra else scored(body)


def only_texts(body: Any) -> Reply:
    """Answer like Text Embeddings Inference."""
    if "texts" not in body:
        return 422, "Failed to deserialize the JSON body into the target type: missing field `texts`"
    return 200, [{"index": place, "score": SCORES.get(text, 0.1)} for place, text in enumerate(body["texts"])]


def named(body: Any) -> Reply:
    """Want the name of a model."""
    if body is None:
        return 200, {"data": [{"id": "bge"}]}
    return scored(body) if "model" in body else (422, {"loc": ["body", "model"], "msg": "Field required"})


@pytest.mark.parametrize("reply", [strict, only_texts, named])
def test_requests_under_way_at_once_learn_together(
    reply: Callable[[Any], Reply], serve: Serve, connect: Connect
) -> None:
    """Of four requests that are all refused before anything is learned, none fails."""
    together = threading.Barrier(4, timeout=WATCHDOG)
    counting, arrived = threading.Lock(), 0

    def answer(body: Any) -> Reply:
        nonlocal arrived
        if body is not None:
            with counting:
                arrived += 1
                is_early = arrived <= 4
            if is_early:
                together.wait()
        return reply(body)

    model = connect(f"{serve(answer).url}/rerank", max_documents=1)
    pairs = [*PAIRS, ("lora", "delta")]
    assert model.score(pairs) == model.score(pairs) == [0.75, 0.5, 0.25, 0.1]


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


def test_a_server_that_takes_fewer_passages_gets_fewer(serve: Serve, connect: Connect) -> None:
    """No passage is lost to the limit, and later requests stay below it."""

    def reply(body: Any) -> Reply:
        number = len(body["documents"])
        too_many = f"batch size {number} > maximum allowed batch size 16"
        return (413, {"error": too_many}) if number > 16 else scored(body)

    server = serve(reply)
    model = connect(f"{server.url}/rerank")
    pairs = [("lora", f"passage {place}") for place in range(40)]
    assert model.score(pairs) == [0.1] * 40
    asked = len(server.seen)
    assert model.score(pairs) == [0.1] * 40
    assert [len(body["documents"]) for body in server.bodies[asked:]] == [16, 16, 8]


def test_follow_ups_share_the_time_limit(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passages that a server leaves out are asked for before the deadline of the first request."""
    from langchain_crossrerank.cross_encoders.backends.remote.exchange import Exchange

    deadlines = []
    run = Exchange.run

    async def noted(self: Exchange, query: str, passages: list[str], deadline: float) -> Any:
        deadlines.append(deadline)
        return await run(self, query, passages, deadline)

    monkeypatch.setattr(Exchange, "run", noted)
    server = serve(lambda body: (200, {"results": scored(body)[1]["results"][:5]}))
    assert connect(f"{server.url}/rerank").score([("lora", f"passage {place}") for place in range(12)]) == [0.1] * 12
    assert len(deadlines) == 3
    assert len(set(deadlines)) == 1


@pytest.mark.parametrize("activation", [None, "sigmoid", "identity"])
@pytest.mark.parametrize("score", [0.75, 0.0, -3.0])
def test_a_blank_passage_never_comes_first(
    activation: Any, score: float, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is below every other, whatever the unit and whatever its place among the candidates."""
    monkeypatch.setitem(SCORES, "alpha", score)
    reranker = CrossEncoderReranker(model=connect(f"{serve().url}/rerank", activation=activation), top_n=None)
    result = reranker.compress_documents([Document(""), Document("alpha")], "lora")
    assert [document.page_content for document in result] == ["alpha", ""]


def test_an_error_of_rounding_is_no_logit(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score a little outside 0 to 1 is rounded, without a word."""
    monkeypatch.setitem(SCORES, "alpha", 1.0000001)
    monkeypatch.setitem(SCORES, "beta", -1e-7)
    model = connect(f"{serve().url}/rerank")
    assert model.score(PAIRS) == [1.0, 0.0, 0.25]
    assert model.activation == "sigmoid"
    assert caplog.records == []


def test_a_score_that_is_no_number_changes_no_unit(serve: Serve, connect: Connect) -> None:
    """The call fails, and the unit is still that of probabilities."""
    model = connect(f"{serve().url}/rerank", read_answer=lambda answer, expected: [float("nan")] * expected)
    with pytest.raises(ScoringError, match="not finite"):
        model.score(PAIRS)
    assert model.activation == "sigmoid"


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [], "error": {"message": "bge is not loaded"}},
        {"code": 500, "data": [], "msg": "bge is not loaded"},
        {"id": "r" * 200, "error": {"message": "bge is not loaded"}},
    ],
)
def test_an_error_within_200_is_shown(answer: Any, serve: Serve, connect: Connect) -> None:
    """Wherever in the answer the server's words are."""
    with pytest.raises(RemoteError, match="bge is not loaded"):
        connect(f"{serve(lambda body: (200, answer)).url}/rerank").score(PAIRS)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"headers": {"CONTENT-type": "application/vnd.api+json"}}, "content-type", "application/vnd.api+json"),
        ({"headers": {"API-KEY": "sk-5678"}, "api_key": "sk-1234", "api_key_header": "api-key"}, "api-key", "sk-5678"),
        ({"headers": {"X-Team": "a", "x-team": "b"}}, "x-team", "b"),
    ],
)
def test_a_header_is_sent_once(settings: dict[str, Any], name: str, value: str, serve: Serve, connect: Connect) -> None:
    """Names of headers have no case; the caller's own header replaces ours, and the last one the others."""
    model = connect(f"{serve().url}/rerank", **settings)
    sent = [(key, found) for key, found in model._credentials.headers.items() if key.lower() == name]
    assert [found for _, found in sent] == [value]
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
