"""What callbacks and traces see of a rerank."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.cross_encoders.settings import ModelSettings
from langchain_crossrerank.errors import ScoringError
from tests.unit.reranker.calls import Recorder, Rerank, StockCrossEncoder, make, of, texts


def test_a_rerank_is_a_run_of_its_own(rerank: Rerank) -> None:
    """A tracer sees inputs, documents with scores, the model's name, and scores and order of all candidates."""
    recorder = Recorder()
    result = rerank(make({"a": 1.0, "b": 2.0}, top_n=1), of("a", "b", "c"), callbacks=[recorder])
    run = recorder.named("CrossEncoderReranker")
    assert run["inputs"] == {"query": "q", "documents": of("a", "b", "c")}
    assert run["outputs"] == result
    assert result[0].metadata["relevance_score"] == 2.0
    assert run["metadata"]["cross_encoder"] == "scripted"
    assert (run["metadata"]["top_n"], run["metadata"]["score_threshold"]) == (1, None)
    data = {
        "model": "scripted",
        "candidates": 3,
        "duplicates_dropped": 0,
        "top_n": 1,
        "score_threshold": None,
        "scores": [1.0, 2.0, 0.0],
        "order": [2, 1, 3],
    }
    assert recorder.events == [{"name": "rerank_scores", "data": data, "run": run["id"]}]
    child = recorder.named("rerank_scores")
    assert (child["parent"], child["outputs"]) == (run["id"], data)


@pytest.mark.parametrize(
    ("model", "name"),
    [(StockCrossEncoder(), "StockCrossEncoder"), ("bundled", "bundled"), (Path("x/y"), str(Path("x/y")))],
)
def test_the_run_names_the_model_before_it_is_loaded(model: Any, name: str) -> None:
    """The run's metadata has the model's name as a string, whatever it was given as."""
    recorder = Recorder()
    CrossEncoderReranker(model=model).invoke({"query": "q", "documents": []}, {"callbacks": [recorder]})
    assert recorder.named("CrossEncoderReranker")["metadata"]["cross_encoder"] == name


def test_a_failed_rerank_shows_in_the_trace(rerank: Rerank) -> None:
    """A model that fails leaves its error on the run."""
    recorder = Recorder()
    with pytest.raises(ScoringError) as caught:
        rerank(make({"a": float("nan")}), of("a"), callbacks=[recorder])
    assert recorder.named("CrossEncoderReranker")["error"] is caught.value
    assert recorder.events == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_in_a_retriever_the_rerank_is_its_child(asynchronous: bool) -> None:
    """Under a compression retriever the rerank and the first stage are children of the retriever's run."""
    recorder = Recorder()
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: of("a", "b"), name="first")
    retriever = create_rerank_retriever(first_stage, reranker=make({"b": 1.0}))
    config: RunnableConfig = {"callbacks": [recorder], "tags": ["mine"]}
    result = asyncio.run(retriever.ainvoke("q", config)) if asynchronous else retriever.invoke("q", config)
    assert texts(result) == ["b", "a"]
    parent = recorder.named("RerankRetriever")
    child = recorder.named("CrossEncoderReranker")
    assert parent["parent"] is None
    assert child["parent"] == recorder.named("first")["parent"] == parent["id"]
    assert child["outputs"] == result
    assert "mine" in child["tags"]
    assert [event["run"] for event in recorder.events] == [child["id"]]


@pytest.mark.parametrize(
    "url", ["http://user:seret-key@127.0.0.1:9/rerank", "http://127.0.0.1:9/rerank?token=seret-key"]
)
def test_a_servers_key_is_not_shown(url: str, rerank: Rerank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in a URL is neither in the repr, nor in a degraded document, nor in what goes to tracers."""

    def load(settings: ModelSettings) -> CrossEncoder:
        raise ScoringError(f"cannot reach {settings.model}")

    monkeypatch.setattr(loading, "_load", load)
    recorder = Recorder()
    reranker = CrossEncoderReranker(model=url, on_error="keep_order")
    result = rerank(reranker, of("a"), callbacks=[recorder])
    assert "cannot reach" in result[0].metadata["rerank_error"]
    shown = repr((reranker, result, recorder.runs, recorder.events))
    assert "seret-key" not in shown
