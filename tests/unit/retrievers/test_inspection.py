"""A wrapped reranker is found, and so is what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as StockReranker
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_text_splitters import CharacterTextSplitter

pytest.importorskip("ir_measures", reason="needs the eval extra")
pytest.importorskip("sentencex", reason="needs the rag extra")

from langchain_crossrerank import CrossEncoderReranker, compare, create_rag_chain, evaluate, retrieve_and_rerank
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.retrievers import create_rerank_retriever, fetch_candidates, find_reranker
from langchain_crossrerank.testing import FakeCrossEncoder

QUERY = "ferry 3"


def find(query: str) -> list[Document]:
    """Find nine passages."""
    return [Document(f"The passage about ferry {number} is a long one.", id=f"d{number}") for number in range(9)]


def reranker() -> CrossEncoderReranker:
    """Make the reranker to be found."""
    return CrossEncoderReranker(model=FakeCrossEncoder(), top_n=4)


def stock() -> StockReranker:
    """Make a compressor of LangChain's own."""
    return StockReranker(model=FakeCrossEncoder())


def pipeline(*steps: Any) -> DocumentCompressorPipeline:
    """Make a pipeline of compressors and transformers."""
    return DocumentCompressorPipeline(transformers=list(steps))


WRAPPED: dict[str, Callable[[], Any]] = {
    "bare": reranker,
    "with_config": lambda: reranker().with_config(tags=["x"], run_name="mine"),
    "bind": lambda: reranker().bind(top_n=4),
    "with_retry": lambda: reranker().with_retry(stop_after_attempt=2),
    "with_listeners": lambda: reranker().with_listeners(),
    "with_fallbacks": lambda: reranker().with_fallbacks([reranker()]),
    "with another's fallback": lambda: reranker().with_fallbacks([stock()]),
    "configurable_fields": lambda: reranker().configurable_fields(top_n=ConfigurableField(id="top_n")),
    "configurable_alternatives": lambda: reranker().configurable_alternatives(
        ConfigurableField(id="which"), default_key="ours", theirs=stock()
    ),
    "twice": lambda: reranker().with_retry().with_config(tags=["x"]).with_fallbacks([stock()]),
    "pipeline": lambda: pipeline(reranker()),
    "wrapped in a pipeline": lambda: pipeline(reranker().with_retry()),
    "pipeline with another": lambda: pipeline(stock(), reranker()),
}
"""Each way to wrap a reranker."""


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("stock_retriever", [False, True])
def test_a_wrapped_reranker_is_used_and_found(kind: str, stock_retriever: bool) -> None:
    """It reranks in a retriever, and everything that needs a reranker finds the one inside."""
    wrapped = WRAPPED[kind]()
    retriever: Any = (
        ContextualCompressionRetriever(base_compressor=wrapped, base_retriever=RunnableLambda(find))
        if stock_retriever
        else create_rerank_retriever(find, reranker=wrapped)
    )
    found = retriever.invoke(QUERY)
    assert len(found) == (3 if kind == "pipeline with another" else 4)
    assert found[0].page_content == find(QUERY)[3].page_content
    inner = find_reranker(retriever)
    assert inner is not None
    model: Any = inner.cross_encoder
    assert [document for document, _ in retrieve_and_rerank(retriever, QUERY)] == found
    assert len(compare(retriever, QUERY).reranked) == len(found)
    assert evaluate(retriever, {"q": QUERY}, {"q": {"d3": 1}}, show_progress=False).model == "fake"
    model.batches.clear()
    create_rag_chain(retriever, None).invoke(QUERY)
    # One rerank, and the sentences of the answer.
    assert sum(len(batch) for batch in model.batches) > len(find(QUERY)) - 6


@pytest.mark.parametrize("kind", [kind for kind in WRAPPED if kind != "pipeline with another"])
def test_a_wrapped_reranker_takes_fields_for_a_call(kind: str) -> None:
    """`top_n` at call time goes through every wrapper."""
    retriever = create_rerank_retriever(find, reranker=WRAPPED[kind]())
    assert len(retriever.invoke(QUERY, top_n=1)) == 1
    assert len(retriever.invoke(QUERY)) == 4


@pytest.mark.parametrize(
    "wrap",
    [
        lambda retriever: retriever.with_config(tags=["x"]),
        lambda retriever: retriever.with_retry(),
        lambda retriever: retriever.with_fallbacks([retriever]),
        lambda retriever: retriever.bind(top_n=4),
        lambda retriever: retriever.configurable_fields(k=ConfigurableField(id="k")),
    ],
    ids=["with_config", "with_retry", "with_fallbacks", "bind", "configurable_fields"],
)
def test_a_wrapped_retriever_is_a_retriever(wrap: Callable[[Any], Any]) -> None:
    """What LangChain's methods make of a reranking retriever is measured, reranks, and answers like itself."""
    model = FakeCrossEncoder()
    retriever = wrap(create_rerank_retriever(find, model=model, top_n=4))
    assert len(retrieve_and_rerank(retriever, QUERY)) == 4
    assert len(retrieve_and_rerank(retriever, QUERY, top_n=2)) == 2
    assert len(compare(retriever, QUERY).documents) == 9
    model.batches.clear()
    create_rag_chain(retriever, None).invoke(QUERY)
    assert len(model.batches) == 2


def test_alternatives_follow_the_configuration() -> None:
    """The reranker found is the one that the configuration chooses."""
    other = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=1)
    both = reranker().configurable_alternatives(ConfigurableField(id="which"), default_key="ours", other=other)
    chosen = find_reranker(both, {"configurable": {"which": "other"}})
    assert chosen is other
    assert getattr(find_reranker(both), "top_n", None) == 4


def test_a_reranker_at_the_end_of_a_chain_is_found() -> None:
    """`{"query": ..., "documents": retriever} | reranker` holds a reranker as well."""
    inner = reranker()
    assert find_reranker({"query": RunnablePassthrough(), "documents": RunnableLambda(find)} | inner) is inner


@pytest.mark.parametrize("holder", [None, "bundled", find, RunnableLambda(find), stock(), pipeline(stock())])
def test_there_may_be_no_reranker(holder: object) -> None:
    """What holds none gives none."""
    assert find_reranker(holder) is None


def test_candidates_have_been_through_the_pipeline_up_to_the_reranker() -> None:
    """What is measured before reranking is what the reranker reads, with documents split."""
    splitter = CharacterTextSplitter(separator=" ", chunk_size=30, chunk_overlap=0)
    retriever = create_rerank_retriever(find, reranker=pipeline(splitter, reranker()))
    candidates = fetch_candidates(retriever, QUERY)
    assert len(candidates) > len(find(QUERY))
    assert {document.page_content for document in retriever.invoke(QUERY)} <= {d.page_content for d in candidates}


@pytest.mark.parametrize("retriever", [None, RunnableLambda(find), reranker()])
def test_candidates_of_what_does_not_rerank_are_refused(retriever: object) -> None:
    """The error says what to pass."""
    with pytest.raises(InvalidInputError, match="does not rerank; pass what create_rerank_retriever returns"):
        fetch_candidates(retriever, QUERY)
