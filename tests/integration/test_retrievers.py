"""The reranking retriever over LangChain's own stores and retrievers, and LangChain's standard tests on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_classic.retrievers import EnsembleRetriever, MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import BaseLanguageModel, FakeListChatModel, FakeListLLM
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests

pytest.importorskip("langchain_chroma", reason="needs the rag extra")
pytest.importorskip("rank_bm25", reason="needs the dev extra")

from langchain_chroma import Chroma
from langchain_community.retrievers import BM25Retriever

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.testing import FakeCrossEncoder

EMBEDDINGS = DeterministicFakeEmbedding(size=16)
QUERY = "what is the rank of a LoRA matrix"
BEST = "The rank of a LoRA matrix is what its thin factors span."
TEXTS = [
    "A ferry leaves the harbour at nine.",
    "LoRA trains two thin matrices.",
    "BM25 counts terms of the query.",
    "The rank of a document is its place in a list.",
    BEST,
    "A tokenizer splits text into pieces.",
    "QLoRA stores the frozen model in four bits.",
]


def documents() -> list[Document]:
    """Make the passages, with ids and sources."""
    return [Document(text, id=f"d{i}", metadata={"source": f"s{i}.txt"}) for i, text in enumerate(TEXTS)]


@pytest.fixture
def chroma() -> Iterator[Chroma]:
    """A Chroma collection in memory, of its own."""
    store = Chroma(collection_name=f"test-{uuid4().hex}", embedding_function=EMBEDDINGS)
    store.add_documents(documents())
    yield store
    store.delete_collection()


@pytest.fixture
def in_memory() -> InMemoryVectorStore:
    """LangChain's in-memory store."""
    store = InMemoryVectorStore(EMBEDDINGS)
    store.add_documents(documents())
    return store


def retrieve(retriever: BaseRetriever, asynchronous: bool, **kwargs: Any) -> list[Document]:
    """Run a retriever on the query, in one of the two ways."""
    return asyncio.run(retriever.ainvoke(QUERY, **kwargs)) if asynchronous else list(retriever.invoke(QUERY, **kwargs))


def check(found: list[Document], expected: int) -> None:
    """Check that the passage that answers is first, and that every document is scored, in order, and complete."""
    assert len(found) == expected
    assert found[0].page_content == BEST
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)
    assert {type(score) for score in scores} == {float}
    ranks = [document.metadata["initial_rank"] for document in found]
    assert set(ranks) <= set(range(1, len(TEXTS) + 1))
    assert len(set(ranks)) == expected
    originals = {document.page_content: document for document in documents()}
    assert [document.id for document in found] == [originals[document.page_content].id for document in found]
    assert [document.metadata["source"] for document in found] == [
        originals[document.page_content].metadata["source"] for document in found
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["chroma", "in_memory"])
@pytest.mark.parametrize("as_retriever", [False, True])
def test_vector_stores(request: pytest.FixtureRequest, kind: str, as_retriever: bool, asynchronous: bool) -> None:
    """A vector store and its retriever are searched and reranked, with ids and sources kept."""
    store: VectorStore = request.getfixturevalue(kind)
    base = store.as_retriever() if as_retriever else store
    retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), k=len(TEXTS), top_n=3)
    check(retrieve(retriever, asynchronous), 3)
    assert len(retrieve(retriever, asynchronous, k=2)) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_filter_given_at_run_time_reaches_the_store(chroma: Chroma, asynchronous: bool) -> None:
    """Chroma's own arguments pass through the reranking retriever."""
    retriever = create_rerank_retriever(chroma, model=FakeCrossEncoder(), k=len(TEXTS), top_n=3)
    found = retrieve(retriever, asynchronous, filter={"source": "s2.txt"})
    assert [document.id for document in found] == ["d2"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("search_type", ["similarity", "mmr"])
def test_chromas_search_types(chroma: Chroma, search_type: str, asynchronous: bool) -> None:
    """A retriever with another search type keeps it."""
    base = chroma.as_retriever(search_type=search_type, search_kwargs={"k": len(TEXTS)})
    check(retrieve(create_rerank_retriever(base, model=FakeCrossEncoder(), top_n=3), asynchronous), 3)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_empty_store_gives_no_documents(asynchronous: bool) -> None:
    """An empty index gives an empty list."""
    retriever = create_rerank_retriever(InMemoryVectorStore(EMBEDDINGS), model=FakeCrossEncoder())
    assert retrieve(retriever, asynchronous) == []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("k", "expected"), [(None, 3), (2, 2)])
def test_bm25(k: int | None, expected: int, asynchronous: bool) -> None:
    """BM25's `k` is set from outside, and the caller's retriever keeps its own."""
    base = BM25Retriever.from_documents(documents(), k=5)
    retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), k=k, top_n=None if k else 3)
    check(retrieve(retriever, asynchronous), expected)
    assert base.k == 5


def ensemble(store: VectorStore) -> EnsembleRetriever:
    """Make a hybrid of words and vectors."""
    words = BM25Retriever.from_documents(documents(), k=3)
    return EnsembleRetriever(retrievers=[words, store.as_retriever(search_kwargs={"k": 7})], weights=[0.5, 0.5])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hybrid_ensemble(chroma: Chroma, asynchronous: bool) -> None:
    """BM25 and vectors fused by LangChain's ensemble are reranked as one list without repetitions."""
    retriever = create_rerank_retriever(ensemble(chroma), model=FakeCrossEncoder(), top_n=None)
    check(retrieve(retriever, asynchronous), len(TEXTS))


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [FakeListLLM, FakeListChatModel], ids=["text", "chat"])
def test_multi_query(chroma: Chroma, kind: Callable[..., BaseLanguageModel[Any]], asynchronous: bool) -> None:
    """The union of what an LLM's rephrasings find is reranked by the caller's own query."""
    model = FakeCrossEncoder()
    llm = kind(responses=["what does LoRA train\nwhen does the ferry leave"])
    base = MultiQueryRetriever.from_llm(retriever=chroma.as_retriever(search_kwargs={"k": 7}), llm=llm)
    check(retrieve(create_rerank_retriever(base, model=model, top_n=2), asynchronous), 2)
    assert {query for batch in model.batches for query, _ in batch} == {QUERY}


def test_a_reranking_retriever_can_be_a_first_stage(in_memory: InMemoryVectorStore) -> None:
    """Reranking twice writes the last model's score and the place in the first rerank's list."""
    inner = create_rerank_retriever(in_memory, model=FakeCrossEncoder(), k=7, top_n=4)
    found = create_rerank_retriever(inner, model=FakeCrossEncoder(), top_n=2).invoke(QUERY)
    check(found, 2)
    assert [document.metadata["initial_rank"] for document in found] == [1, 2]


def create(k: int | None = None) -> BaseRetriever:
    """Make the retriever of the standard tests; `k` is theirs to vary."""
    store = InMemoryVectorStore(EMBEDDINGS)
    store.add_documents(documents())
    return create_rerank_retriever(store, model=FakeCrossEncoder(), k=k, top_n=5)


@pytest.mark.filterwarnings("ignore:k=[13] candidates for top_n=5:UserWarning")
class TestStandard(RetrieversIntegrationTests):
    """LangChain's standard tests for retrievers."""

    @property
    def retriever_constructor(self) -> Any:
        """The function under test; LangChain expects a class, and only calls it."""
        return create

    @property
    def retriever_query_example(self) -> str:
        """A query with an answer among the passages."""
        return QUERY
