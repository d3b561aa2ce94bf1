"""What is done about refusals and odd answers: learned once, asked for the rest, or shown in the server's words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from langchain_crossrerank.errors import RemoteError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, SCORES, Connect, Reply, Serve, scored, wants_name

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


def test_a_server_that_wants_another_shape_gets_it(serve: Serve, connect: Connect) -> None:
    """A server of Text Embeddings Inference behind the address of a rerank server is understood."""
    server = serve(only_texts)
    model = connect(f"{server.url}/rerank")
    assert model.score(PAIRS) == model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert ["texts" in body for body in server.bodies] == [False, True, True]


def test_a_field_that_the_server_refuses_is_left_out(serve: Serve, connect: Connect) -> None:
    """A strict server costs one request more, once."""
    server = serve(strict)
    model = connect(f"{server.url}/rerank")
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
    requests = len(server.seen)
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert len(server.seen) == requests + 1


@pytest.mark.parametrize(("models", "name"), [(["bge"], "bge"), (None, "default"), ([], "default")])
def test_a_server_that_wants_a_name_is_asked_for_its_model(
    models: Any, name: str, serve: Serve, connect: Connect
) -> None:
    """The only model is taken; a server without a list gets a placeholder."""
    server = serve(wants_name(models))
    assert connect(f"{server.url}/v1/rerank").score(PAIRS) == [0.75, 0.5, 0.25]
    assert server.bodies[-1]["model"] == name
    assert [path for method, path, _, _ in server.seen if method == "GET"] == ["/v1/models"]


def test_one_of_several_models_must_be_named(serve: Serve, connect: Connect) -> None:
    """The error lists them and says how."""
    with pytest.raises(RemoteError, match=r"RemoteCrossEncoder\(url, model=\.\.\.\): 'bge', 'jina'"):
        connect(f"{serve(wants_name(['bge', 'jina'])).url}/v1/rerank").score(PAIRS)


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


def test_a_server_that_limits_its_results_is_asked_for_the_rest(serve: Serve, connect: Connect) -> None:
    """No passage is lost to a limit, and later requests stay below it."""

    def reply(body: Any) -> Reply:
        best = sorted(enumerate(body["documents"]), key=lambda item: -len(item[1]))[:10]
        return 200, {"results": [{"index": i, "relevance_score": 1 / len(text)} for i, text in best]}

    server = serve(reply)
    model = connect(f"{server.url}/rerank")
    pairs = [("lora", "x" * (place + 1)) for place in range(27)]
    assert model.score(pairs) == [1 / (place + 1) for place in range(27)]
    assert model.score(pairs) == [1 / (place + 1) for place in range(27)]
    assert max(len(body["documents"]) for body in server.bodies[3:]) <= 10


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
