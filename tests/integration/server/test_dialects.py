"""Requests in each dialect, and the shape of their answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from langchain_crossrerank import CrossEncoder, WrapperCrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.cross_encoders.truncation import Spans
from tests.integration.server.conftest import QUERY, TEXTS, Serve

COHERE = {"query": QUERY, "documents": TEXTS}
TEI = {"query": QUERY, "texts": TEXTS}


@pytest.fixture(scope="module")
def logits() -> list[float]:
    """The bundled model's scores of the texts, in this process."""
    return load_cross_encoder("bundled", activation="identity").score([(QUERY, text) for text in TEXTS])


@pytest.fixture(scope="module")
def probabilities(logits: list[float]) -> list[float]:
    """The same as probabilities."""
    return [sigmoid(logit) for logit in logits]


def best_first(scores: list[float]) -> list[int]:
    """Positions in the order of their scores."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(client: httpx.Client, path: str, probabilities: list[float]) -> None:
    """Cohere's and Jina's request gets results best first, with the scores of this process and no document."""
    answer = client.post(path, json={**COHERE, "model": "bundled"}).raise_for_status().json()
    assert [result["index"] for result in answer["results"]] == best_first(probabilities)
    assert all(result.keys() == {"index", "relevance_score"} for result in answer["results"])
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert [scores[place] for place in range(len(TEXTS))] == pytest.approx(probabilities, abs=1e-6)
    assert answer["model"] == "bundled"
    assert answer["id"]
    assert answer["usage"]["total_tokens"] == answer["meta"]["tokens"]["input_tokens"] > len(TEXTS)


@pytest.mark.parametrize(("path", "version"), [("/v1/rerank", "1"), ("/v2/rerank", "2")])
def test_the_api_version_is_named(client: httpx.Client, path: str, version: str) -> None:
    """`meta` says which of Cohere's versions answers."""
    assert client.post(path, json=COHERE).json()["meta"]["api_version"] == {"version": version}


def test_documents_are_returned_when_asked_for(client: httpx.Client) -> None:
    """With `return_documents`, a text comes back as an object and an object as it was sent."""
    documents: list[Any] = [TEXTS[0], {"text": TEXTS[1], "id": 7}]
    body = {"query": QUERY, "documents": documents, "return_documents": True}
    results = client.post("/v1/rerank", json=body).json()["results"]
    assert {result["index"]: result["document"] for result in results} == {0: {"text": TEXTS[0]}, 1: documents[1]}


def test_objects_are_read_by_field(client: httpx.Client, probabilities: list[float]) -> None:
    """`text` is read by default, and `rank_fields` names others, in order."""
    documents = [{"text": "nothing", "title": text[:10], "body": text[10:]} for text in TEXTS]
    plain = client.post("/rerank", json={"query": QUERY, "documents": [{"text": text} for text in TEXTS]}).json()
    assert [result["index"] for result in plain["results"]] == best_first(probabilities)
    body = {"query": QUERY, "documents": documents, "rank_fields": ["title", "body"]}
    joined = [f"{document['title']}\n{document['body']}" for document in documents]
    assert (
        client.post("/v1/rerank", json=body).json()["results"]
        == client.post("/v1/rerank", json={"query": QUERY, "documents": joined}).json()["results"]
    )


@pytest.mark.parametrize("top_n", [1, 2, 50, None])
def test_top_n_cuts_the_results(client: httpx.Client, top_n: int | None) -> None:
    """`top_n` keeps the best, and as many as there are if it is larger or null."""
    every = client.post("/v1/rerank", json=COHERE).json()["results"]
    assert client.post("/v1/rerank", json={**COHERE, "top_n": top_n}).json()["results"] == every[:top_n]


@pytest.mark.parametrize("limit", [{"max_tokens_per_doc": 3}, {"truncate_prompt_tokens": 8}])
def test_documents_are_cut_to_tokens(client: httpx.Client, limit: dict[str, int]) -> None:
    """A limit of tokens hides what comes after it from the model, and a generous one changes nothing."""
    documents = ["one two three " + tail for tail in ("LoRA adapts models", "ferries leave at nine")]
    body = {"query": "q r", "documents": documents}
    free = client.post("/v1/rerank", json=body).json()
    tied = client.post("/v1/rerank", json={**body, **limit}).json()
    assert free["results"][0]["relevance_score"] != free["results"][1]["relevance_score"]
    assert tied["results"][0]["relevance_score"] == tied["results"][1]["relevance_score"]
    assert tied["usage"]["total_tokens"] < free["usage"]["total_tokens"]
    generous = dict.fromkeys(limit, 250)
    assert client.post("/v1/rerank", json={**body, **generous}).json()["results"] == free["results"]


def test_a_cut_that_leaves_nothing_is_refused(client: httpx.Client) -> None:
    """A limit that the query alone reaches gets 400 with both numbers, and one token more works."""
    body = {"query": "q r", "documents": ["a ferry", "a model"]}
    empty = client.post("/v1/rerank", json={**body, "documents": [""]}).json()["usage"]["total_tokens"]
    answer = client.post("/v1/rerank", json={**body, "truncate_prompt_tokens": empty})
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert f"truncate_prompt_tokens is {empty}, and the query alone takes {empty} " in answer.json()["message"]
    score = {"text_1": "q r", "text_2": ["a ferry"], "truncate_prompt_tokens": empty}
    assert client.post("/score", json=score).json()["error"]["type"] == "BadRequestError"
    enough = client.post("/v1/rerank", json={**body, "truncate_prompt_tokens": empty + 1}).raise_for_status()
    assert enough.json()["usage"]["total_tokens"] == 2 * (empty + 1)


def test_an_empty_list_gets_an_empty_list(client: httpx.Client) -> None:
    """No documents get no results."""
    assert client.post("/v2/rerank", json={"query": QUERY, "documents": []}).json()["results"] == []
    assert client.post("/rerank", json={"query": QUERY, "texts": []}).json() == []
    assert client.post("/score", json={"text_1": QUERY, "text_2": []}).json()["data"] == []


def test_tei_gets_a_bare_list(client: httpx.Client, probabilities: list[float], logits: list[float]) -> None:
    """TEI's request gets ranks best first: probabilities, or logits with `raw_scores`; the text only when asked for."""
    ranks = client.post("/rerank", json=TEI).json()
    assert [rank["index"] for rank in ranks] == best_first(probabilities)
    assert all(rank.keys() == {"index", "score"} for rank in ranks)
    assert [rank["score"] for rank in ranks] == pytest.approx(sorted(probabilities, reverse=True), abs=1e-6)
    raw = client.post("/rerank", json={**TEI, "raw_scores": True, "return_text": True}).json()
    assert [rank["score"] for rank in raw] == pytest.approx(sorted(logits, reverse=True), abs=1e-5)
    assert [rank["text"] for rank in raw] == [TEXTS[rank["index"]] for rank in raw]


def test_tei_refuses_long_texts_when_told_to(client: httpx.Client) -> None:
    """`truncate: false` refuses a text beyond what the model reads, by its position; otherwise it is cut."""
    refused = client.post("/rerank", json={**TEI, "truncate": False})
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert refused.json()["error_type"] == "Validation"
    assert "position 4" in refused.json()["error"]
    assert len(client.post("/rerank", json={**TEI, "truncate": True}).json()) == len(TEXTS)
    assert len(client.post("/rerank", json={**TEI, "texts": TEXTS[:2], "truncate": False}).json()) == 2


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(("queries", "texts"), [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")])
def test_vllm_gets_scores_in_input_order(
    client: httpx.Client, path: str, queries: str, texts: str, probabilities: list[float]
) -> None:
    """One text against many, under each pair of names that vLLM knows."""
    answer = client.post(path, json={queries: QUERY, texts: TEXTS, "model": "again"}).raise_for_status().json()
    assert [score["index"] for score in answer["data"]] == list(range(len(TEXTS)))
    assert [score["score"] for score in answer["data"]] == pytest.approx(probabilities, abs=1e-6)
    assert (answer["object"], answer["model"]) == ("list", "again")
    assert answer["usage"]["total_tokens"] > 0


def test_vllm_scores_pair_by_pair(client: httpx.Client, logits: list[float]) -> None:
    """As many texts against as many are scored pair by pair, one string against one as one pair, and raw if wanted."""
    many = client.post("/score", json={"text_1": [QUERY] * 5, "text_2": TEXTS, "use_activation": False}).json()
    assert [score["score"] for score in many["data"]] == pytest.approx(logits, abs=1e-5)
    one = client.post("/score", json={"text_1": QUERY, "text_2": TEXTS[1], "use_activation": False}).json()
    assert [score["score"] for score in one["data"]] == pytest.approx(logits[1:2], abs=1e-5)


def test_half_a_character_does_not_lose_the_request(client: httpx.Client) -> None:
    """A lone surrogate, as Python's encoder writes it, is scored as the replacement character."""
    body = b'{"query": "What is LoRA?", "documents": ["LoRA \\ud83d", "LoRA \xef\xbf\xbd", "a ferry"]}'
    results = client.post("/v1/rerank", content=body).raise_for_status().json()["results"]
    scores = {result["index"]: result["relevance_score"] for result in results}
    assert scores[0] == scores[1] != scores[2]


def test_models_are_listed(client: httpx.Client) -> None:
    """`/v1/models` lists the names that requests may use, the default first."""
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["bundled", "again"]
    assert {model["max_model_len"] for model in listed["data"]} == {load_cross_encoder("bundled").max_length}


def test_the_openapi_document_describes_what_is_sent(client: httpx.Client) -> None:
    """Every route is documented, every reference resolves, and real answers fit their schemas."""
    jsonschema = pytest.importorskip("jsonschema")
    document = client.get("/openapi.json").json()
    bodies = {
        "/rerank": TEI,
        "/v1/rerank": {**COHERE, "return_documents": True},
        "/v2/rerank": COHERE,
        "/score": {"text_1": QUERY, "text_2": TEXTS},
        "/v1/score": {"text_1": QUERY, "text_2": TEXTS},
    }
    assert {*bodies, "/v1/models", "/health", "/metrics"} == document["paths"].keys()
    for path, body in bodies.items():
        operation = document["paths"][path]["post"]
        for value, place in (
            (body, operation["requestBody"]),
            (client.post(path, json=body).json(), operation["responses"]["200"]),
        ):
            schema = {**place["content"]["application/json"]["schema"], "components": document["components"]}
            jsonschema.validate(value, schema)


def test_metrics_count_requests_and_pairs(client: httpx.Client) -> None:
    """Prometheus's text has the requests by dialect and status, and the pairs and tokens of each model."""

    def figures() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}

    client.post("/v1/rerank", json={**COHERE, "model": "again"})
    before = figures()
    client.post("/v1/rerank", json={**COHERE, "model": "again"})
    client.post("/v1/rerank", json={**COHERE, "model": "unknown"})
    after = figures()
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown['crossrerank_requests_total{dialect="cohere",status="200"}'] == 1
    assert grown['crossrerank_requests_total{dialect="cohere",status="404"}'] == 1
    assert grown['crossrerank_pairs_total{model="again"}'] == len(TEXTS)
    assert grown['crossrerank_tokens_total{model="again"}'] > len(TEXTS)
    assert "unknown" not in str(after)


class NotingCrossEncoder(WrapperCrossEncoder):
    """A wrapper that notes what is tokenised to count tokens."""

    def __init__(self, inner: CrossEncoder) -> None:
        super().__init__(inner)
        self.seen: list[str] = []

    def _query_spans(self, query: str) -> Spans:
        self.seen.append(query)
        return super()._query_spans(query)


def test_a_very_long_query_is_cut_before_its_tokens_are_counted(serve_fake: Serve) -> None:
    """Of a query as long as a request may be, only what the model can read is tokenised, once for all passages."""
    model = NotingCrossEncoder(load_cross_encoder("bundled"))
    query = "ferry " * 200_000
    with serve_fake(model) as server, server.client() as client:
        model.seen.clear()
        body = {"text_1": query, "text_2": ["The ferry leaves. " * 200] * 3}
        answer = client.post("/score", json={**body, "truncate_prompt_tokens": model.max_length * 3 // 4})
    assert answer.status_code == httpx.codes.OK
    assert 0 < max(map(len, model.seen)) < len(query) / 10
    assert answer.json()["usage"]["prompt_tokens"] <= 3 * (model.max_length * 3 // 4)
