"""Real clients of other rerank servers get the order and the scores of this process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker, RemoteCrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.server.config import Limits
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.server.conftest import QUERY, TEXTS, Serve
from tests.integration.server.running_server import RunningServer, local_config, running, wait_for

KEY = "the-key-of-the-clients"
TOLERANCE = 1e-6

pytestmark = pytest.mark.filterwarnings(
    # Clients warn their own developers.
    "ignore::DeprecationWarning",
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:.*Pydantic.*:UserWarning",
    # Some have no way to close their connections.
    "ignore:unclosed:ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Collect what clients leave behind here, where its warnings are expected."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that needs a key."""
    with running(local_config("bundled", api_keys=(KEY,))) as server:
        yield server.url


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """The scores of this process."""
    return load_cross_encoder("bundled", activation="sigmoid").score([(QUERY, text) for text in TEXTS])


def check(results: Sequence[tuple[int, float]], expected: Sequence[float]) -> None:
    """Compare ranked indexes and scores with those of this process."""
    order = sorted(range(len(expected)), key=lambda place: -expected[place])[: len(results)]
    assert [index for index, _ in results] == order
    assert [score for _, score in results] == pytest.approx([expected[place] for place in order], abs=TOLERANCE)


def in_order(results: Sequence[Any]) -> list[tuple[int, float]]:
    """Results of objects with `index` and `relevance_score`."""
    return [(result.index, result.relevance_score) for result in results]


def test_cohere_v1(url: str, expected: list[float]) -> None:
    """Cohere's first client, with and without documents in the answer."""
    cohere = pytest.importorskip("cohere", reason="needs the cohere SDK")
    client = cohere.Client(KEY, base_url=url)
    answer = client.rerank(model="bundled", query=QUERY, documents=TEXTS, top_n=3)
    check(in_order(answer.results), expected)
    assert all(result.document is None for result in answer.results)
    objects = client.rerank(query=QUERY, documents=[{"text": text} for text in TEXTS], return_documents=True)
    check(in_order(objects.results), expected)
    assert [result.document.text for result in objects.results] == [TEXTS[result.index] for result in objects.results]
    assert objects.meta.billed_units.search_units == 1


def test_cohere_v2(url: str, expected: list[float]) -> None:
    """Cohere's second client, synchronous and asynchronous."""
    cohere = pytest.importorskip("cohere", reason="needs the cohere SDK")
    arguments = {"model": "bundled", "query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 4096}
    answer = cohere.ClientV2(KEY, base_url=url).rerank(**arguments)
    check(in_order(answer.results), expected)
    assert answer.id
    assert answer.meta.tokens.input_tokens > 0

    async def ask() -> Any:
        return await cohere.AsyncClientV2(KEY, base_url=url).rerank(**arguments, top_n=2)

    check(in_order(asyncio.run(ask()).results), expected)


@pytest.mark.parametrize(
    ("arguments", "key", "name"),
    [
        ({"top_n": 0}, KEY, "BadRequestError"),
        ({"model": "rerank-v3.5"}, KEY, "NotFoundError"),
        ({}, "wrong", "UnauthorizedError"),
        ({"documents": [7]}, KEY, "UnprocessableEntityError"),
    ],
)
def test_cohere_errors(url: str, arguments: dict[str, Any], key: str, name: str) -> None:
    """Cohere's client raises the class of each error, with the server's words in the body."""
    cohere = pytest.importorskip("cohere", reason="needs the cohere SDK")
    everything = {"model": "bundled", "query": QUERY, "documents": TEXTS, **arguments}
    with pytest.raises(getattr(cohere, name)) as raised:
        cohere.ClientV2(key, base_url=url).rerank(**everything)
    assert raised.value.body["message"]


def test_cohere_in_langchain(url: str, expected: list[float]) -> None:
    """`CohereRerank` of langchain-cohere compresses documents."""
    langchain_cohere = pytest.importorskip("langchain_cohere", reason="needs langchain-cohere")
    reranker = langchain_cohere.CohereRerank(model="bundled", cohere_api_key=KEY, base_url=url, top_n=4)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = reranker.compress_documents(documents, QUERY)
    check([(document.metadata["place"], document.metadata["relevance_score"]) for document in found], expected)


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "infinity", "hosted_vllm", "huggingface"])
def test_litellm(url: str, provider: str, expected: list[float]) -> None:
    """`litellm.rerank` through each provider whose servers have these shapes."""
    litellm = pytest.importorskip("litellm", reason="needs litellm")
    # For TEI it asks to refuse texts that are too long.
    texts = TEXTS[:4] if provider == "huggingface" else TEXTS
    answer = litellm.rerank(
        model=f"{provider}/bundled",
        query=QUERY,
        documents=texts,
        top_n=3,
        return_documents=False,
        api_base=url,
        api_key=KEY,
    )
    check([(result["index"], result["relevance_score"]) for result in answer.results], expected[: len(texts)])


def test_litellm_errors(url: str) -> None:
    """litellm raises its own error for a wrong key, and shows the words for an unknown model."""
    litellm = pytest.importorskip("litellm", reason="needs litellm")
    with pytest.raises(litellm.APIConnectionError, match="invalid api token"):
        litellm.rerank(model="cohere/bundled", query=QUERY, documents=TEXTS, api_base=url, api_key="wrong")
    with pytest.raises(litellm.APIConnectionError, match="not served here"):
        litellm.rerank(model="cohere/other", query=QUERY, documents=TEXTS, api_base=url, api_key=KEY)


def test_infinity_in_langchain(url: str, expected: list[float]) -> None:
    """`InfinityRerank` of langchain-community, on Infinity's own client."""
    infinity_client = pytest.importorskip("infinity_client", reason="needs infinity_client")
    compressors = pytest.importorskip("langchain_community.document_compressors.infinity_rerank")
    client = infinity_client.AuthenticatedClient(base_url=url, token=KEY)
    reranker = compressors.InfinityRerank.model_construct(client=client, model="bundled", top_n=3)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = reranker.compress_documents(documents, QUERY)
    check([(document.metadata["place"], document.metadata["relevance_score"]) for document in found], expected)


def test_jina_in_langchain(url: str, expected: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """`JinaRerank` of langchain-community, pointed here instead of to Jina."""
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")
    reranker = jina.JinaRerank(model="bundled", jina_api_key=KEY, top_n=3)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = reranker.compress_documents(documents, QUERY)
    check([(document.metadata["place"], document.metadata["relevance_score"]) for document in found], expected)
    wrong = jina.JinaRerank(model="other", jina_api_key=KEY)
    with pytest.raises(RuntimeError, match="not served here"):
        wrong.compress_documents(documents, QUERY)


def test_tei_by_hand(url: str, expected: list[float]) -> None:
    """The request of TEI's documentation."""
    answer = httpx.post(
        f"{url}/rerank",
        json={"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True},
        headers={"authorization": f"Bearer {KEY}"},
    )
    check([(rank["index"], rank["score"]) for rank in answer.raise_for_status().json()], expected)


@pytest.mark.parametrize("route", ["", "/rerank", "/v1/rerank", "/v2/rerank", "/v1/score"])
@pytest.mark.parametrize("shape", ["documents", "texts", "text_2"])
def test_our_own_client(url: str, route: str, shape: Any, expected: list[float]) -> None:
    """`RemoteCrossEncoder` finds the route and the shape, blank and long texts included."""
    model = RemoteCrossEncoder(url + route, model="bundled", api_key=KEY, request_shape=shape, max_length=256)
    pairs: list[TextPair] = [(QUERY, text) for text in TEXTS]
    scores = model.score(pairs)
    # The client gives blank passages a score of its own.
    solid = [place for place, text in enumerate(TEXTS) if text]
    assert [scores[place] for place in solid] == pytest.approx([expected[place] for place in solid], abs=TOLERANCE)


def test_our_reranker(url: str, expected: list[float]) -> None:
    """`CrossEncoderReranker` takes the server's address as its model."""
    reranker = CrossEncoderReranker(model=url, model_kwargs={"api_key": KEY, "model": "bundled"}, top_n=3)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = reranker.compress_documents(documents, QUERY)
    check([(document.metadata["place"], document.metadata["relevance_score"]) for document in found], expected)


def test_a_server_of_a_server(url: str, expected: list[float]) -> None:
    """A server whose model is another server passes requests on."""
    with running(local_config(f"far={url}/rerank", loading={"api_key": KEY, "model_name": "bundled"})) as front:
        answer = httpx.post(f"{front.url}/v1/rerank", json={"query": QUERY, "documents": TEXTS[:2]}, timeout=60)
    check([(result["index"], result["relevance_score"]) for result in answer.json()["results"]], expected[:2])


def test_the_keys_of_clients_are_not_sent_on(url: str, expected: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose model is another server sends it the key that is meant for it, and no other."""
    monkeypatch.setenv("CROSSRERANK_API_KEY", KEY)
    config = local_config(f"far={url}/rerank", loading={"model_name": "bundled"})
    with running(config, wait=False) as front:
        wait_for(lambda: front.failures)
    assert "401" in str(front.failures[0])
    monkeypatch.setenv("CROSSRERANK_UPSTREAM_API_KEY", KEY)
    with running(config) as front:
        answer = httpx.post(f"{front.url}/v1/rerank", json={"query": QUERY, "documents": TEXTS[:2]}, timeout=60)
    check([(result["index"], result["relevance_score"]) for result in answer.json()["results"]], expected[:2])


def test_our_client_waits_while_the_server_is_busy(serve_fake: Serve) -> None:
    """Requests beyond the queue are sent again after `Retry-After`, so that all of them get scores."""
    with serve_fake(FakeCrossEncoder(), limits=Limits(queue=1)) as server:
        scores = asyncio.run(_many(server))
    assert len(scores) == 6


async def _many(server: RunningServer) -> list[list[float]]:
    model = RemoteCrossEncoder(server.url, max_retries=8, timeout=60)
    return await asyncio.gather(*(model.ascore([("q", f"text {number}")]) for number in range(6)))
