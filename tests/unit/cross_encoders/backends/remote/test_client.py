"""The remote cross-encoder with the ways of many servers: keys, units, blanks, lengths, names, failures."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CascadeCrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.remote import transport
from langchain_crossrerank.cross_encoders.backends.remote.client import (
    LONGEST_QUERY,
    QUERY_CHARACTERS_PER_TOKEN,
    RemoteCrossEncoder,
)
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, RemoteError, ScoringError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, SCORES, Connect, Reply, Serve, scored

# --- Keys and headers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"api_key": "sk-1234"}, {"authorization": "Bearer sk-1234", "api-key": None}),
        ({"api_key": "sk-1234", "api_key_header": "api-key"}, {"authorization": None, "api-key": "sk-1234"}),
        ({"headers": {"api-key": "sk-1234"}}, {"authorization": None, "api-key": "sk-1234"}),
        (
            {"api_key": "sk-1234", "headers": {"Authorization": "Key other", "X-Team": "search team"}},
            {"authorization": "Key other", "x-team": "search team"},
        ),
    ],
)
def test_keys_travel_in_any_header(
    settings: dict[str, Any], expected: dict[str, str | None], serve: Serve, connect: Connect
) -> None:
    """A bearer token, a header that carries the key alone, and further headers, which have the last word."""
    server = serve()
    connect(f"{server.url}/rerank", **settings).score(PAIRS)
    headers = server.seen[0][2]
    assert {name: headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"headers": {"bad name": "x"}}, "headers contains the name 'bad name'"),
        ({"headers": {"X": "a\nb"}}, "headers['X'] has U+000A"),
        ({"headers": {"X": "naïve"}}, "headers['X'] has U+00EF"),
        ({"headers": {"X": 5}}, "headers['X'] is of type int"),
        ({"headers": [("X", "a")]}, "headers is of type list"),
        ({"api_key": "k", "api_key_header": "a b"}, "api_key_header contains the name 'a b'"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused(settings: dict[str, Any], words: str) -> None:
    """The error names the header and never shows its value."""
    with pytest.raises(InvalidInputError) as caught:
        RemoteCrossEncoder("http://127.0.0.1/rerank", **settings)
    assert words in str(caught.value)


def test_values_of_headers_and_urls_are_shown_nowhere(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in errors, reprs, names or logs, also when the server repeats them."""
    server = serve(lambda body: (403, {"detail": "no access for hunter2-hunter2 and sesame-sesame"}))
    model = connect(f"{server.url}/rerank?token=sesame-sesame", headers={"X-Api-Key": "hunter2-hunter2"})
    with caplog.at_level(logging.DEBUG), pytest.raises(RemoteError) as caught:
        model.score(PAIRS)
    assert server.seen[0][1] == "/rerank?token=sesame-sesame"
    shown = f"{caught.value}{model!r}{vars(model)!r}{model.name}{model.fingerprint}"
    shown += "".join(f"{record.getMessage()}{record.__dict__!r}" for record in caplog.records)
    assert "403" in shown
    assert "hunter2" not in shown
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://rerank.example/rerank", True),
        ("http://localhost:8000/rerank", True),
        ("http://127.0.0.2/rerank", True),
        ("http://[::1]:8000/rerank", True),
        ("http://rerank.example/rerank", False),
        ("http://10.0.0.7:8000/rerank", False),
        ("http://localhost.example/rerank", False),
        (["https://rerank.example", "http://rerank.example"], False),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [
        {"api_key": "sk-1234"},
        {"headers": {"api-key": "sk-1234"}},
        {"headers": {"Cookie": "sk-1234"}},
        {"headers": {"X-Own": "sk-1234567"}},
    ],
    ids=repr,
)
def test_a_key_does_not_travel_unencrypted_to_another_machine(url: Any, safe: bool, secret: dict[str, Any]) -> None:
    """Plain http to another host needs a word of the caller, and only where there is a key."""
    RemoteCrossEncoder(url, headers={"X-Team": "search", "User-Agent": "ours/1.0"})
    RemoteCrossEncoder(url, **secret, allow_insecure_key=True)
    if safe:
        RemoteCrossEncoder(url, **secret)
    else:
        with pytest.raises(InvalidInputError, match="allow_insecure_key=True") as caught:
            RemoteCrossEncoder(url, **secret)
        assert "sk-1234" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["ftp://proxy.example", "http://[broken"])
def test_a_proxy_that_cannot_be_used_is_an_error_of_this_package(
    proxy: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the environment comes out as a `ScoringError`, sync and async."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    model = connect("https://rerank.example/rerank")
    with pytest.raises(ScoringError):
        model.score(PAIRS)
    with pytest.raises(ScoringError):
        asyncio.run(model.ascore(PAIRS))


# --- Blank passages and units ------------------------------------------------------------------------------------


def refuse_blanks(body: Any) -> Reply:
    """Answer like servers that want no empty text."""
    return scored(body) if all(text.strip() for text in body["documents"]) else (400, {"message": "empty string"})


@pytest.mark.parametrize(
    ("activation", "logits", "blank"),
    [(None, False, 0.0), ("sigmoid", False, 0.0), ("identity", True, math.nextafter(-3, -math.inf))],
)
def test_blank_passages_are_not_sent(
    activation: Any, logits: bool, blank: float, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get 0 among probabilities and a score just below the lowest of the call among logits."""
    if logits:
        monkeypatch.setitem(SCORES, "beta", -3.0)
    server = serve(refuse_blanks)
    model = connect(f"{server.url}/rerank", activation=activation)
    pairs = [("lora", "alpha"), ("lora", ""), ("lora", "beta"), ("lora", " \n")]
    expected = [0.75, blank, SCORES["beta"], blank]
    assert model.score(pairs) == expected
    assert asyncio.run(model.ascore(pairs)) == expected
    assert all(
        body["documents"] == ["alpha", "beta"] or set(body["documents"]) == {"alpha", "beta"} for body in server.bodies
    )


@pytest.mark.parametrize("activation", [None, "identity"])
def test_nothing_but_blank_passages_needs_no_server(activation: Any, connect: Connect) -> None:
    """The score is finite and nobody is asked."""
    model = connect("http://127.0.0.1:9/rerank", activation=activation)
    assert model.score([("lora", ""), ("lora", "  ")]) == [0.0, 0.0]


def test_logits_are_noticed(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score outside 0 to 1 makes all of them logits, with one warning; probabilities are computed from then on."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    monkeypatch.setitem(SCORES, "beta", -2.5)
    model = connect(f"{serve().url}/rerank")
    before = model.fingerprint
    assert model.activation == "sigmoid"
    assert model.score(PAIRS) == model.score(PAIRS) == [7.5, -2.5, 0.25]
    assert model.activation == CachedCrossEncoder(model).activation == "identity"
    assert 0.99 < model.probability(7.5) < 1
    assert model.fingerprint != before
    (record,) = caplog.records
    assert "activation='identity'" in record.getMessage()


def test_a_unit_that_was_given_is_kept(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's word holds, with one warning where the scores contradict it."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    model = connect(f"{serve().url}/rerank", activation="sigmoid")
    model.score(PAIRS)
    model.score(PAIRS)
    assert model.activation == "sigmoid"
    (record,) = caplog.records
    assert "activation='identity'" in record.getMessage()


def test_a_cascade_of_logits_ranks_what_it_ruled_out_last(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the sign of the scores, survivors come first."""
    for text, score in {"alpha": -2.0, "beta": -9.0, "gamma": -5.0}.items():
        monkeypatch.setitem(SCORES, text, score)
    model = connect(f"{serve().url}/rerank")
    first, second, third = CascadeCrossEncoder(model, model, keep=2).score(PAIRS)
    assert first > third > second


def test_scores_found_in_a_cache_belong_to_the_unit(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was scored while the unit turned out to be another is kept under the new unit."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    server = serve()
    cached = CachedCrossEncoder(connect(f"{server.url}/rerank"))
    assert cached.score(PAIRS) == cached.score(PAIRS)
    assert cached.counts.hits == 3
    fresh = CachedCrossEncoder(connect(f"{server.url}/rerank"), cached.cache)
    assert fresh.score(PAIRS[1:]) == [0.5, 0.25]
    assert fresh.counts.hits == 0


# --- Requests and answers of one's own -----------------------------------------------------------------------------


def nim_request(query: str, passages: list[str]) -> Any:
    """The request of NVIDIA NIM."""
    return {
        "model": "nv",
        "query": {"text": query},
        "passages": [{"text": text} for text in passages],
        "truncate": "END",
    }


def dashscope_request(query: str, passages: list[str]) -> Any:
    """The request of DashScope."""
    return {"model": "gte", "input": {"query": query, "documents": passages}, "parameters": {"return_documents": False}}


def read_pairs(answer: Any, expected: int) -> list[float]:
    """Read an answer of no known form."""
    assert len(answer["who"]) == expected
    return [float(score) for _, score in sorted(answer["who"].items())]


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


def test_the_score_endpoint_of_vllm(serve: Serve, connect: Connect) -> None:
    """The address says which shape is meant."""
    server = serve(
        lambda body: (200, {"data": [{"index": i, "score": SCORES[t]} for i, t in enumerate(body["text_2"])]})
    )
    assert connect(f"{server.url}/v1/score", model="m").score(PAIRS) == [0.75, 0.5, 0.25]
    assert server.bodies[0]["text_1"] == "lora"


def test_a_server_that_wants_another_shape_gets_it(serve: Serve, connect: Connect) -> None:
    """A server of Text Embeddings Inference behind the address of a rerank server is understood."""

    def reply(body: Any) -> Reply:
        if "texts" not in body:
            return 422, "Failed to deserialize the JSON body into the target type: missing field `texts`"
        return 200, [{"index": i, "score": SCORES[text]} for i, text in enumerate(body["texts"])]

    server = serve(reply)
    model = connect(f"{server.url}/rerank")
    assert model.score(PAIRS) == model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert ["texts" in body for body in server.bodies] == [False, True, True]


def test_a_field_that_the_server_refuses_is_left_out(serve: Serve, connect: Connect) -> None:
    """A strict server costs one request more, once."""

    def reply(body: Any) -> Reply:
        extra = sorted(body.keys() - {"query", "documents"})
        return (422, {"detail": f"Extra inputs are not permitted: {extra[0]}"}) if extra else scored(body)

    server = serve(reply)
    model = connect(f"{server.url}/rerank")
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
    requests = len(server.seen)
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert len(server.seen) == requests + 1


# --- Long passages -------------------------------------------------------------------------------------------------


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


def test_bodies_are_made_beside_the_loop(serve: Serve, connect: Connect) -> None:
    """All models share the loop that sends requests, so a large body may not hold it up."""
    server = serve()
    threads: list[str] = []

    def make(query: str, passages: list[str]) -> Any:
        threads.append(threading.current_thread().name)
        return {"query": query, "documents": passages}

    connect(f"{server.url}/rerank", make_request=make).score(PAIRS)
    assert threads
    assert "crossrerank-http" not in threads


# --- Names of models, limits on results, several servers ------------------------------------------------------------


def wants_name(models: Any) -> Callable[[Any], Reply]:
    """Make a server that lists `models` and wants a name in every request."""

    def reply(body: Any) -> Reply:
        if body is None:
            return (404, {}) if models is None else (200, {"object": "list", "data": [{"id": name} for name in models]})
        if "model" not in body:
            return 422, {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]}
        return scored(body)

    return reply


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


def test_another_server_takes_over(serve: Serve, connect: Connect) -> None:
    """While the first server fails, the second one is asked, without a pause and without asking the first again."""
    broken, good = serve(lambda body: (503, {"error": "loading"})), serve()
    model = connect([f"{broken.url}/rerank", good.url], max_retries=1)
    assert model.score(PAIRS) == model.score(PAIRS) == [0.75, 0.5, 0.25]
    assert (len(broken.seen), len(good.seen)) == (1, 2)


def test_another_server_takes_over_for_a_reranker(serve: Serve) -> None:
    """`model_kwargs` takes further addresses."""
    broken, good = serve(lambda body: (500, {"error": "out of memory"})), serve()
    reranker = CrossEncoderReranker(model=broken.url, model_kwargs={"fallback_urls": [good.url]})
    result = reranker.compress_documents([Document("beta"), Document("alpha")], "lora")
    assert [document.page_content for document in result] == ["alpha", "beta"]
    assert (len(broken.seen), len(good.seen)) == (1, 1)


def test_a_server_that_is_gone_is_passed_over(serve: Serve, connect: Connect) -> None:
    """An address where nobody listens costs no time limit."""
    model = connect(["http://127.0.0.1:9", serve().url], max_retries=1)
    assert model.score(PAIRS) == [0.75, 0.5, 0.25]


def test_the_health_of_servers(serve: Serve, connect: Connect) -> None:
    """Each address is asked at its `/health`."""
    well, ill = serve(lambda body: (200, {})), serve(lambda body: (503, {}))
    model = connect([f"{well.url}/v1/rerank", ill.url, "http://127.0.0.1:9"])
    assert model.check_health() == {f"{well.url}/v1/rerank": True, ill.url: False, "http://127.0.0.1:9": False}
    assert [path for _, path, _, _ in well.seen] == ["/health"]


def test_the_key_that_would_travel_unencrypted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who passed no key learns where it came from."""
    monkeypatch.setenv("CROSSRERANK_API_KEY", "sk-1234")
    with pytest.raises(InvalidInputError, match="key of CROSSRERANK_API_KEY would travel unencrypted"):
        RemoteCrossEncoder("http://rerank.example/rerank")


def test_an_empty_list_of_servers_is_refused() -> None:
    """There must be somebody to ask."""
    with pytest.raises(InvalidInputError, match="at least one server"):
        RemoteCrossEncoder([])


async def test_opening_a_client_does_not_block_the_event_loop(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the certificates are read before the first request, the loop goes on."""
    loop_went_on = threading.Event()

    def open_client(open_client: Callable[[], Any] = transport._open_client) -> Any:
        assert loop_went_on.wait(30)
        return open_client()

    monkeypatch.setattr(transport, "_open_client", open_client)
    calls = [asyncio.ensure_future(connect(serve().url).ascore(PAIRS)) for _ in range(2)]
    await asyncio.sleep(0)
    loop_went_on.set()
    assert await asyncio.gather(*calls) == [[0.75, 0.5, 0.25]] * 2


async def test_a_synchronous_call_inside_an_event_loop_works(serve: Serve, connect: Connect) -> None:
    """Whoever blocks a loop of his own does not block the one that the requests run on."""
    model = connect(serve().url)
    assert model.score(PAIRS) == await model.ascore(PAIRS) == [0.75, 0.5, 0.25]


# --- Loading, copies, identity -----------------------------------------------------------------------------------


def test_a_url_with_settings_is_enough_for_a_reranker(serve: Serve) -> None:
    """`model_kwargs` takes the settings of the server; equal settings share a model."""
    server = serve(wants_name(None))
    settings = {"model": "bge", "headers": {"api-key": "sk-1234"}, "timeout": 5.0, "extra_body": {"input_type": "x"}}
    reranker = CrossEncoderReranker(model=f"{server.url}/v1", model_kwargs=settings)
    result = reranker.compress_documents([Document("beta"), Document("alpha")], "lora")
    assert [document.page_content for document in result] == ["alpha", "beta"]
    body = server.bodies[-1]
    assert (body["model"], body["input_type"]) == ("bge", "x")
    assert server.seen[-1][2]["api-key"] == "sk-1234"
    named = {"model_name" if name == "model" else name: value for name, value in settings.items()}
    same = load_cross_encoder(f"{server.url}/v1", **named)
    assert same is reranker.cross_encoder
    assert isinstance(same, RemoteCrossEncoder)
    same.close()


def test_copies_work(serve: Serve, connect: Connect) -> None:
    """A deep copy shares the connections, a pickled one opens its own; both have the settings and the key."""
    server = serve()
    model = connect(server.url, api_key="sk-1234", model="m", max_documents=2)
    model.score(PAIRS)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.score(PAIRS) == [0.75, 0.5, 0.25]
        assert (twin.name, twin.max_batch_pairs, twin.fingerprint) == ("m", 2, model.fingerprint)
        assert server.seen[-1][2]["authorization"] == "Bearer sk-1234"
        twin.close()


class Template:
    """Makes requests with a prefix, by a bound method."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def make(self, query: str, passages: list[str]) -> Any:
        """The request, with the prefix before the query."""
        return {"query": f"{self.prefix}: {query}", "documents": passages}


def prefixed(prefix: str) -> Callable[..., Any]:
    """Make a function that differs from others of this kind by the default of a keyword only."""

    def make(query: str, passages: list[str], *, before: str = prefix) -> Any:
        return {"query": before + query, "documents": passages}

    return make


def test_every_ingredient_of_a_score_is_in_the_fingerprint() -> None:
    """Another server, model, request, length or unit never finds the scores of this one; the key does not matter."""
    url = "http://127.0.0.1:8000/rerank"
    changes: list[dict[str, Any]] = [
        {},
        {"url": "http://127.0.0.1:8001/rerank"},
        {"url": f"{url}?deployment=b"},
        {"url": f"{url}?deployment=c"},
        {"url": [url, "http://127.0.0.1:8001/rerank"]},
        {"model": "m"},
        {"request_shape": "texts"},
        {"activation": "identity"},
        {"max_length": 256},
        {"extra_body": {"input_type": "x"}},
        {"make_request": nim_request},
        {"make_request": lambda query, passages: {"q": query, "p": passages}},
        {"make_request": lambda query, passages: {"q": query, "d": passages}},
        {"make_request": lambda query, passages: {"q": query, "u": url}},
        {"make_request": Template("legal").make},
        {"make_request": Template("medical").make},
        {"make_request": prefixed("legal")},
        {"make_request": prefixed("medical")},
        {"read_answer": read_pairs},
    ]
    prints = [RemoteCrossEncoder(**{"url": url, **change}).fingerprint for change in changes]
    assert len(set(prints)) == len(changes)
    assert RemoteCrossEncoder(url, api_key="sk-1234", timeout=5).fingerprint == prints[0]
