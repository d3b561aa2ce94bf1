"""Requests that cannot be answered: the status and shape that each client expects, and words that help."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.errors import ModelNotFoundError
from langchain_crossrerank.server.application import _DIALECTS, UNDECIDED
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.server.dialects import cohere, vllm
from langchain_crossrerank.server.dialects.base import Call, Dialect
from langchain_crossrerank.server.problems import Problem
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.conftest import GatedCrossEncoder, Serve
from tests.integration.server.running_server import wait_for

COHERE = {"query": "q", "documents": ["a", "b"]}
TEI = {"query": "q", "texts": ["a", "b"]}
VLLM = {"text_1": "q", "text_2": ["a", "b"]}
PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")


def words(answer: httpx.Response, path: str) -> str:
    """The message of an error, checked to be in every shape that clients of this path read."""
    body = answer.json()
    if path.endswith("/score"):
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["code"] == answer.status_code
        return str(body["error"]["message"])
    if "error_type" in body and "message" not in body:
        assert body.keys() == {"error", "error_type"}
        return str(body["error"])
    assert body["message"] == (body["detail"][0]["msg"] if answer.status_code == 422 else body["detail"])
    return str(body["message"])


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/rerank", {**COHERE, "top_n": 0}, 400, "top_n is 0"),
        ("/v1/rerank", {**COHERE, "rank_fields": []}, 400, "rank_fields"),
        ("/v1/rerank", {**COHERE, "rank_fields": ["text", "title", "text"]}, 400, "rank_fields .*repeats a name"),
        ("/v1/rerank", {**COHERE, "rank_fields": list(map(str, range(33)))}, 400, "rank_fields .*at most 32"),
        ("/v2/rerank", {**COHERE, "colour": "red"}, 400, "'colour' is not a field"),
        ("/v2/rerank", {**COHERE, "query": " "}, 400, "query is ' ', which is blank"),
        ("/v2/rerank", {**COHERE, "documents": [{"title": "x"}]}, 400, r"documents\.0 .*'text'"),
        ("/v2/rerank", {**COHERE, "documents": [{"text": 3}]}, 400, r"documents\.0"),
        ("/v2/rerank", {**COHERE, "truncate_prompt_tokens": 0}, 400, "truncate_prompt_tokens is 0"),
        ("/v2/rerank", {**COHERE, "model": "gpt"}, 404, "model is 'gpt'.*'fake'"),
        ("/v1/rerank", {"query": "q"}, 422, "missing: 'documents'"),
        ("/v1/rerank", {}, 422, "missing: 'query', 'documents'"),
        ("/v1/rerank", {**COHERE, "query": 7}, 422, "query is 7"),
        ("/v1/rerank", {**COHERE, "top_n": "3"}, 422, "top_n is '3'"),
        ("/v1/rerank", {**COHERE, "top_n": True}, 422, "top_n is True"),
        ("/v1/rerank", {**COHERE, "documents": "abc"}, 422, "documents is 'abc'"),
        ("/v1/rerank", {**COHERE, "documents": [None]}, 422, r"documents\.0"),
        ("/rerank", {**TEI, "truncation_direction": "Left"}, 422, "truncation_direction is 'Left'"),
        ("/rerank", {**TEI, "query": ""}, 400, "blank"),
        ("/rerank", {**TEI, "texts": [3]}, 422, r"texts\.0 is 3"),
        ("/rerank", {**TEI, "model": "gpt"}, 404, "'gpt'"),
        ("/rerank", {"query": "q"}, 422, "missing: 'documents'"),
        ("/score", {**VLLM, "text_1": ["q", "r", "s"]}, 400, "text_1 has 3 texts and text_2 has 2"),
        ("/score", {**VLLM, "text_1": "\t"}, 400, "text_1 is"),
        ("/score", {"text_1": "q"}, 400, "text_2"),
        ("/score", {**VLLM, "model": "gpt"}, 404, "'gpt'"),
        ("/score", {**VLLM, "use_activation": False}, 400, "probabilities only"),
    ],
)
def test_a_wrong_value_is_named(fake_client: httpx.Client, path: str, body: Any, status: int, message: str) -> None:
    """Each wrong request gets the status that clients of its dialect expect, and a message with the field."""
    answer = fake_client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert re.search(message, words(answer, path)), answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b'{"query": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(fake_client: httpx.Client, path: str, body: bytes) -> None:
    """A body that is not JSON gets 400, however broken."""
    answer = fake_client.post(path, content=body)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "not JSON" in words(answer, path)
    assert fake_client.post(path, content=b"[]").status_code == (400 if path.endswith("/score") else 422)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_too_large_is_refused(serve_fake: Serve, path: str) -> None:
    """Bodies, documents and tokens beyond the limits get 413, with a declared length and without one."""
    limits = Limits(documents=3, tokens=100, body_bytes=2000)
    texts, queries = ("text_2", "text_1") if path.endswith("/score") else ("documents", "query")
    with serve_fake(FakeCrossEncoder(), limits=limits) as server, server.client() as client:
        cases = {
            "4 documents": ["a"] * 4,
            "about 200 tokens": ["a" * 400] * 2,
            "2000 bytes": ["a" * 3000],
        }
        for message, documents in cases.items():
            body = json.dumps({queries: "q", texts: documents}).encode()
            for content in (body, (body[place : place + 500] for place in range(0, len(body), 500))):
                answer = client.post(path, content=content)
                assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
                assert message in words(answer, path)
        assert client.post(path, json={queries: "q", texts: ["a"]}).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", PATHS)
def test_a_long_query_counts_as_a_whole(serve_fake: Serve, path: str) -> None:
    """Once, and not only for what the model reads of it."""
    texts, queries = ("text_2", "text_1") if path.endswith("/score") else ("documents", "query")
    with serve_fake(FakeCrossEncoder(), limits=Limits(tokens=1600)) as server, server.client() as client:
        for length, status in ((6000, httpx.codes.OK), (8000, httpx.codes.REQUEST_ENTITY_TOO_LARGE)):
            answer = client.post(path, json={queries: "q" * length, texts: ["a"]})
            assert answer.status_code == status
        assert "about 2000 tokens" in words(answer, path)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_is_counted_before_it_is_read(serve_fake: Serve, path: str) -> None:
    """Of too many documents or fields nothing is looked at, whatever they are."""
    texts, queries = ("text_2", "text_1") if path.endswith("/score") else ("documents", "query")
    with serve_fake(FakeCrossEncoder(), limits=Limits(documents=3)) as server, server.client() as client:
        many = client.post(path, json={queries: "q", texts: [7] * 4})
        assert many.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        assert "4 documents" in words(many, path)
        wide = client.post(path, json=dict.fromkeys(map(str, range(100)), 7))
        assert wide.status_code == httpx.codes.BAD_REQUEST
        assert "100 fields" in words(wide, path)


@pytest.mark.parametrize("path", PATHS)
def test_of_many_wrong_documents_the_first_is_named(path: str) -> None:
    """The others are not collected."""
    dialect = vllm.DIALECT if path.endswith("/score") else cohere.V1
    texts, queries = ("text_2", "text_1") if path.endswith("/score") else ("documents", "query")
    with pytest.raises(Problem, match=texts) as raised:
        dialect.read({queries: "q", texts: [7] * 1000})
    assert isinstance(raised.value.__context__, ValidationError)
    assert raised.value.__context__.error_count() < 4


def test_a_long_body_is_checked_beside_the_loop(serve_fake: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding and checking a long body holds up no other request; a short one is worth no thread."""
    loops: list[int] = []
    readers: list[int] = []

    def choose(_: Mapping[str, Any]) -> Dialect[Call]:
        loops.append(threading.get_ident())
        return replace(cohere.V1, read=read)

    def read(payload: Mapping[str, Any]) -> Call:
        readers.append(threading.get_ident())
        return cohere.read_request(payload)

    monkeypatch.setitem(_DIALECTS, "/v1/rerank", (UNDECIDED, choose))
    with serve_fake(FakeCrossEncoder()) as server, server.client() as client:
        for length in (10, 300_000):
            answer = client.post("/v1/rerank", json={"query": "q", "documents": ["a" * length]})
            assert answer.status_code == httpx.codes.OK
    assert [reader == loop for reader, loop in zip(readers, loops, strict=True)] == [True, False]


def test_a_compressed_body_is_refused_by_name(fake_client: httpx.Client) -> None:
    """A body that would have to be unpacked is not read."""
    answer = fake_client.post("/v1/rerank", content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, "'gzip'" in answer.text) == (400, True)


def test_a_body_that_does_not_arrive_is_given_up(serve_fake: Serve) -> None:
    """A client that is too slow gets 408 and leaves its place in the queue."""

    def dribble() -> Any:
        yield b'{"query":'
        wait_for(lambda: server.metric('crossrerank_requests_total{dialect="cohere",status="408"}') == 1)
        yield b"1}"

    with serve_fake(FakeCrossEncoder(), limits=Limits(body_seconds=0.2)) as server, server.client() as client:
        answer = client.post("/v1/rerank", content=dribble())
        assert answer.status_code == httpx.codes.REQUEST_TIMEOUT


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/v1/rerank", COHERE, 500), ("/rerank", TEI, 424), ("/score", VLLM, 500)]
)
def test_a_failing_model_is_said_to_fail(serve_fake: Serve, path: str, body: Any, status: int) -> None:
    """An error of the model gets the status of a server's fault, and the next request works."""
    model = GatedCrossEncoder()
    model.gate.set()
    with serve_fake(model) as server, server.client() as client:
        texts = next(name for name in ("texts", "documents", "text_2") if name in body)
        answer = client.post(path, json={**body, texts: ["broken"]})
        assert answer.status_code == status
        assert "the model broke" in words(answer, path)
        assert client.post(path, json=body).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", PATHS)
def test_requests_wait_for_the_model_outside(serve_fake: Serve, path: str) -> None:
    """While a model loads, health and requests get 503 with `Retry-After`; afterwards both work."""
    loading: Future[CrossEncoder] = Future()
    body = VLLM if path.endswith("/score") else COHERE
    with serve_fake(loading) as server, server.client() as client:
        for answer in (client.get("/health"), client.post(path, json=body)):
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert int(answer.headers["retry-after"]) >= 1
        assert "loading" in words(answer, path)
        assert client.get("/v1/models").json()["data"][0]["id"] == "fake"
        loading.set_result(FakeCrossEncoder())
        server.wait_until_ready()
        assert client.post(path, json=body).status_code == httpx.codes.OK


def test_a_model_that_cannot_be_loaded_is_reported(serve_fake: Serve) -> None:
    """A failed load is handed to whoever runs the server, and the server never says that it is ready."""
    loading: Future[CrossEncoder] = Future()
    with serve_fake(loading) as server, server.client() as client:
        loading.set_exception(ModelNotFoundError("no such folder"))
        wait_for(lambda: server.failures)
        assert str(server.failures[0]) == "no such folder"
        assert client.get("/health").status_code == httpx.codes.SERVICE_UNAVAILABLE


def test_a_load_that_fails_in_an_unforeseen_way_is_logged(serve_fake: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Any exception ends the load: it is in the log with its traceback, and whoever runs the server gets it."""
    loading: Future[CrossEncoder] = Future()
    with serve_fake(loading) as server:
        loading.set_exception(MemoryError("out of memory"))
        wait_for(lambda: server.failures)
        assert isinstance(server.failures[0], MemoryError)
    (record,) = [record for record in caplog.records if "cannot be loaded" in record.getMessage()]
    assert record.exc_info


def test_what_is_not_there_is_said_in_every_shape(client: httpx.Client) -> None:
    """An unknown path and a wrong method get JSON."""
    assert "'/v9/rerank'" in words(client.post("/v9/rerank", json=COHERE), "/v9/rerank")
    answer = client.get("/v1/rerank")
    assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED
    assert "GET" in words(answer, "/v1/rerank")


def test_a_fault_of_the_server_is_logged_and_not_shown(
    serve_fake: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen error gets 500 without its details, which are in the log, and is counted."""
    model = FakeCrossEncoder()
    with serve_fake(model) as server, server.client() as client:
        monkeypatch.setattr(FakeCrossEncoder, "max_length", "not a number")
        answer = client.post("/v1/rerank", json=COHERE)
        assert answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR
        assert "not a number" not in answer.text
        assert "log" in words(answer, "/v1/rerank")
        # The server closes the connection of a request that fails like this.
        with server.client() as other:
            assert 'crossrerank_requests_total{dialect="cohere",status="500"} 1.0' in other.get("/metrics").text
    assert "TypeError" in caplog.text


def test_a_wrong_method_is_answered_with_the_right_ones(fake_client: httpx.Client) -> None:
    """`Allow` names them, as HTTP demands."""
    answer = fake_client.get("/v1/rerank")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_a_number_that_cannot_be_sent_back_is_the_clients_fault(fake_client: httpx.Client, path: str) -> None:
    """A document with a number beyond all floats is refused where it would be returned, and else scored."""
    body = '{"query": "q", "documents": [{"text": "t", "price": 1e999}], "return_documents": %s}'
    answer = fake_client.post(path, content=body % "true", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "number too large for JSON" in words(answer, path)
    answer = fake_client.post(path, content=body % "false", headers={"content-type": "application/json"})
    assert answer.status_code == 200
