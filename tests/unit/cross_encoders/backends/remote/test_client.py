"""The remote cross-encoder as a model: loaded by its URL, copied, and known by what its scores depend on."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from tests.unit.cross_encoders.backends.remote.conftest import (
    PAIRS,
    Connect,
    Serve,
    nim_request,
    read_pairs,
    wants_name,
)


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
