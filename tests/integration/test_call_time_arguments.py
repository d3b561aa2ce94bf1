"""Each argument at call time, on each first stage: honoured, as the documents show, or refused by name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
from langchain_classic.chains import create_history_aware_retriever
from langchain_classic.chains.query_constructor.base import StructuredQuery
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MergerRetriever,
    MultiQueryRetriever,
    MultiVectorRetriever,
    ParentDocumentRetriever,
    RePhraseQueryRetriever,
    SelfQueryRetriever,
    TimeWeightedVectorStoreRetriever,
)
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_classic.storage import InMemoryStore
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.structured_query import Visitor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_text_splitters import CharacterTextSplitter
from pydantic import BaseModel

from langchain_crossrerank import create_rerank_retriever, create_rerank_tool
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.retrievers import fetch_candidates
from langchain_crossrerank.testing import FakeCrossEncoder

pytest.importorskip("langchain_chroma", reason="needs the rag extra")
pytest.importorskip("rank_bm25", reason="needs the dev extra")

from langchain_chroma import Chroma
from langchain_community.retrievers import BM25Retriever

EMBEDDINGS = DeterministicFakeEmbedding(size=16)
QUERY = "ferry 3"
COUNT = 120
TEXTS = [f"passage {number} about ferry {number % 7} of many" for number in range(COUNT)]
HISTORY = {"input": QUERY, "chat_history": [HumanMessage("Which ferries are there?"), AIMessage("Seven.")]}


def documents() -> list[Document]:
    """Make passages of two tenants."""
    return [
        Document(text, id=f"d{number}", metadata={"number": number, "tenant": "ab"[number % 2]})
        for number, text in enumerate(TEXTS)
    ]


@cache
def chroma() -> Chroma:
    """Make a Chroma collection of all passages, once: nothing here changes it."""
    store = Chroma(collection_name=f"test-{uuid4().hex}", embedding_function=EMBEDDINGS)
    store.add_documents(documents())
    return store


def bm25(**settings: Any) -> BM25Retriever:
    """Make a retriever by words, which has no filter."""
    return BM25Retriever.from_documents(documents(), **settings)


class Deaf(VectorStore):
    """A store that ignores all arguments but `k`, as LangChain's signature lets it."""

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the first passages, whatever the filter."""
        return documents()[:k]

    @classmethod
    def from_texts(cls, *args: Any, **kwargs: Any) -> Deaf:
        """Make an empty store."""
        return cls()


class Ignoring(BaseRetriever):
    """A retriever whose `**kwargs` are there for the signature only."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return documents()[:9]


class Passing(BaseRetriever):
    """A retriever of a caller's own that hands its arguments to a store."""

    store: Any

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int = 20, filter: Any = None
    ) -> list[Document]:
        found: list[Document] = self.store.similarity_search(query, k=k, filter=filter)
        return found

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: Any, k: int = 20, filter: Any = None
    ) -> list[Document]:
        found: list[Document] = await self.store.asimilarity_search(query, k=k, filter=filter)
        return found


@cache
def parent() -> ParentDocumentRetriever:
    """Make a retriever of whole documents by their parts."""
    retriever = ParentDocumentRetriever(
        vectorstore=Chroma(collection_name=f"test-{uuid4().hex}", embedding_function=EMBEDDINGS),
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(chunk_size=200, chunk_overlap=0),
    )
    retriever.add_documents(documents())
    return retriever


@cache
def multi_vector() -> MultiVectorRetriever:
    """Make a retriever of documents by other vectors."""
    store: InMemoryStore[Any] = InMemoryStore()
    store.mset([(str(document.metadata["number"]), document) for document in documents()])
    parts = [
        Document(d.page_content, metadata={**d.metadata, "doc_id": str(d.metadata["number"])}) for d in documents()
    ]
    return MultiVectorRetriever(
        vectorstore=Chroma.from_documents(parts, EMBEDDINGS, collection_name=f"test-{uuid4().hex}"), docstore=store
    )


class Translator(Visitor):
    """A translator that gives Chroma the filter of a language model."""

    def visit_operation(self, operation: Any) -> Any:
        """Not needed here."""

    def visit_comparison(self, comparison: Any) -> Any:
        """Not needed here."""

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """Return a filter that would replace the caller's."""
        return structured_query.query, {"filter": {"tenant": "b"}}


def self_query() -> SelfQueryRetriever:
    """Make a retriever whose filter a language model writes."""
    constructor = RunnableLambda(lambda _: StructuredQuery(query=QUERY, filter=None, limit=None))
    return SelfQueryRetriever(
        query_constructor=constructor, vectorstore=chroma(), structured_query_translator=Translator()
    )


class Relevant(InMemoryVectorStore):
    """LangChain's in-memory store, with its similarity as relevance."""

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return abs


def time_weighted() -> TimeWeightedVectorStoreRetriever:
    """Make a retriever that prefers what was read lately."""
    retriever = TimeWeightedVectorStoreRetriever(vectorstore=Relevant(EMBEDDINGS))
    retriever.add_documents(documents())
    return retriever


def history_aware(retriever: Any) -> Any:
    """Make a retriever that puts a conversation into a question first; it takes a dict."""
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{chat_history}"), ("human", "{input}")])
    return create_history_aware_retriever(FakeListChatModel(responses=[QUERY]), retriever, prompt)


def find(query: str) -> list[Document]:
    """Find the first passages."""
    return documents()[:20]


def find_some(query: str, k: int = 20) -> list[Document]:
    """Find as many passages as are asked for."""
    return documents()[:k]


def fielded(retriever: Any) -> Any:
    """Make a vector store retriever configurable."""
    return retriever.configurable_fields(search_kwargs=ConfigurableField(id="search_kwargs"))


LLM = FakeListLLM(responses=["ferry 1\nferry 2"] * 50)
TAKES_ALL, ONLY_K, NOTHING = {"k", "filter"}, {"k"}, set[str]()

FIRST_STAGES: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "chroma": (chroma, TAKES_ALL),
    "chroma retriever": (lambda: chroma().as_retriever(), TAKES_ALL),
    "mmr": (lambda: chroma().as_retriever(search_type="mmr"), TAKES_ALL),
    "a store that ignores": (Deaf, ONLY_K),
    "bm25": (bm25, ONLY_K),
    "ensemble": (lambda: EnsembleRetriever(retrievers=[chroma().as_retriever(), chroma().as_retriever()]), TAKES_ALL),
    "hybrid ensemble": (lambda: EnsembleRetriever(retrievers=[bm25(), chroma().as_retriever()]), ONLY_K),
    "merger": (lambda: MergerRetriever(retrievers=[chroma().as_retriever(), chroma().as_retriever()]), TAKES_ALL),
    "hybrid merger": (lambda: MergerRetriever(retrievers=[bm25(), chroma().as_retriever()]), ONLY_K),
    "multi query": (lambda: MultiQueryRetriever.from_llm(retriever=chroma().as_retriever(), llm=LLM), TAKES_ALL),
    "rephrasing": (lambda: RePhraseQueryRetriever.from_llm(retriever=chroma().as_retriever(), llm=LLM), TAKES_ALL),
    "parent": (parent, TAKES_ALL),
    "multi vector": (multi_vector, TAKES_ALL),
    "self query": (self_query, ONLY_K),
    "time weighted": (time_weighted, ONLY_K),
    "history aware": (lambda: history_aware(chroma().as_retriever()), TAKES_ALL),
    "history aware of a hybrid": (
        lambda: history_aware(EnsembleRetriever(retrievers=[bm25(), chroma().as_retriever()])),
        ONLY_K,
    ),
    "compression": (
        lambda: ContextualCompressionRetriever(
            base_compressor=DocumentCompressorPipeline(transformers=[]), base_retriever=chroma().as_retriever()
        ),
        TAKES_ALL,
    ),
    "reranking": (lambda: create_rerank_retriever(chroma(), model=FakeCrossEncoder(), top_n=5), TAKES_ALL),
    "configured": (lambda: chroma().as_retriever().with_config(tags=["x"]), TAKES_ALL),
    "bound": (lambda: chroma().as_retriever().bind(k=3, filter={"tenant": "b"}), TAKES_ALL),
    "retrying": (lambda: chroma().as_retriever().with_retry(), TAKES_ALL),
    "with fallbacks": (lambda: chroma().as_retriever().with_fallbacks([chroma().as_retriever()]), TAKES_ALL),
    "with other fallbacks": (lambda: chroma().as_retriever().with_fallbacks([bm25()]), ONLY_K),
    "configurable": (lambda: fielded(chroma().as_retriever()), TAKES_ALL),
    "sequence": (lambda: RunnableLambda(str.lower) | chroma().as_retriever() | RunnableLambda(list), TAKES_ALL),
    "runnable": (lambda: RunnableLambda(find), NOTHING),
    "function with k": (lambda: find_some, ONLY_K),
    "own retriever": (lambda: Passing(store=chroma()), TAKES_ALL),
    "own retriever that ignores": (Ignoring, NOTHING),
}
"""Each first stage, and which arguments of it there are; what is not here must be refused."""

ARGUMENTS: dict[str, Any] = {
    "k": 41,
    "filter": {"tenant": "a"},
    "top_n": 2,
    "score_threshold": 0.5,
    "lambda_mul": 0.5,
}
"""Each argument with a value that shows in the documents; the last one does not exist."""

Call = Callable[..., list[Document]]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Both ways to invoke a retriever."""
    if request.param == "async" and request.node.callspec.params.get("kind") == "rephrasing":
        pytest.skip("LangChain's RePhraseQueryRetriever has no asynchronous side")
    if request.param == "sync":
        return lambda retriever, *args, **kwargs: list(retriever.invoke(*args, **kwargs))
    return lambda retriever, *args, **kwargs: asyncio.run(retriever.ainvoke(*args, **kwargs))


def check_honoured(argument: str, found: list[Document], model: FakeCrossEncoder) -> None:
    """Check on the documents, and on what the model read, that an argument was honoured."""
    assert found or argument == "score_threshold"
    if argument == "k":
        assert sum(len(batch) for batch in model.batches) >= ARGUMENTS["k"]
    elif argument == "filter":
        assert {document.metadata["tenant"] for document in found} == {"a"}
    elif argument == "top_n":
        assert len(found) == ARGUMENTS["top_n"]
    elif argument == "score_threshold":
        assert all(document.metadata["relevance_score"] >= ARGUMENTS["score_threshold"] for document in found)


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("kind", FIRST_STAGES)
def test_an_argument_is_honoured_or_refused_by_name(kind: str, argument: str, call: Call) -> None:
    """No first stage drops an argument in silence, and none keeps it for the next call."""
    make, takes = FIRST_STAGES[kind]
    model = FakeCrossEncoder()
    retriever = create_rerank_retriever(make(), model=model, top_n=None)
    query: Any = HISTORY if kind.startswith("history") else QUERY
    usual = {document.page_content for document in call(retriever, query)}
    model.batches.clear()
    arguments = {argument: ARGUMENTS[argument]}
    if argument in takes or argument in ("top_n", "score_threshold"):
        check_honoured(argument, call(retriever, query, **arguments), model)
    else:
        with pytest.raises(InvalidInputError, match=f"^{argument}={re.escape(repr(ARGUMENTS[argument]))} cannot be"):
            call(retriever, query, **arguments)
    assert {document.page_content for document in call(retriever, query)} == usual


@pytest.mark.parametrize("argument", ["k", "filter"])
@pytest.mark.parametrize("kind", [kind for kind, (_, takes) in FIRST_STAGES.items() if takes == TAKES_ALL])
def test_what_is_set_at_construction_holds_for_every_call(kind: str, argument: str, call: Call) -> None:
    """An argument given to the function holds until a call gives another."""
    model = FakeCrossEncoder()
    options: dict[str, Any] = {argument: ARGUMENTS[argument]}
    retriever = create_rerank_retriever(FIRST_STAGES[kind][0](), model=model, top_n=None, **options)
    query: Any = HISTORY if kind.startswith("history") else QUERY
    for _ in range(2):
        model.batches.clear()
        check_honoured(argument, call(retriever, query), model)
    other = call(retriever, query, filter={"tenant": "b"}) if argument == "filter" else []
    assert {document.metadata["tenant"] for document in other} <= {"b"}


@pytest.mark.parametrize("kind", FIRST_STAGES)
def test_candidates_can_be_fetched_alone(kind: str) -> None:
    """What measures the first stage gets the candidates that the reranker reads, by the same rules."""
    make, takes = FIRST_STAGES[kind]
    model = FakeCrossEncoder()
    retriever = create_rerank_retriever(make(), model=model, top_n=None, drop_duplicates=False)
    arguments = {"k": 41} if "k" in takes else {}
    query: Any = HISTORY if kind.startswith("history") else QUERY
    candidates = fetch_candidates(retriever, query, **arguments)
    reranked = retriever.invoke(query, **arguments)
    assert model.batches
    assert {d.page_content for d in candidates} == {d.page_content for d in reranked}


def state(stage: Any) -> str:
    """Return all that a first stage shows of itself, but for the place of a fake language model in its answers."""
    return re.sub(r"\bi=\d+", "", repr(stage))


@pytest.mark.parametrize("kind", FIRST_STAGES)
def test_the_first_stage_is_not_changed(kind: str, call: Call) -> None:
    """Neither construction nor a call with arguments touches the caller's object."""
    make, takes = FIRST_STAGES[kind]
    base = make()
    before = state(base)
    retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), top_n=None)
    query: Any = HISTORY if kind.startswith("history") else QUERY
    call(retriever, query, **{name: ARGUMENTS[name] for name in takes})
    if kind != "time weighted":  # which notes in its documents when they were read
        assert state(base) == before
    if not isinstance(base, VectorStore) and not callable(base):
        assert retriever.base_retriever is base


def test_a_filter_in_the_configuration_reaches_the_store(call: Call) -> None:
    """A configurable field of the first stage is listed, and set per call, through an ensemble as well."""
    for base in (
        fielded(chroma().as_retriever()),
        EnsembleRetriever(retrievers=[fielded(chroma().as_retriever()), fielded(chroma().as_retriever())]),
        RunnableLambda(str.lower) | fielded(chroma().as_retriever()),
        fielded(chroma().as_retriever()).with_retry(),
        MergerRetriever(retrievers=[EnsembleRetriever(retrievers=[fielded(chroma().as_retriever())])]),
    ):
        retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), top_n=None)
        assert [spec.id for spec in retriever.config_specs] == ["search_kwargs"], type(base)
        config = {"configurable": {"search_kwargs": {"filter": {"tenant": "a"}}}}
        assert {document.metadata["tenant"] for document in call(retriever, QUERY, config)} == {"a"}
        assert {document.metadata["tenant"] for document in call(retriever, QUERY)} == {"a", "b"}


# Nothing shows that the own retriever's store is a Chroma, which needs an operator to join two filters.
ADDING = {kind for kind, (_, takes) in FIRST_STAGES.items() if takes == TAKES_ALL} - {"own retriever"}


class Numbers(BaseModel):
    """What a model may narrow a search by."""

    number: int


@pytest.mark.parametrize("kind", sorted(ADDING))
def test_a_models_filter_is_added_to_the_applications(kind: str) -> None:
    """The filter of a tool's call narrows each first stage's own one, and never replaces it."""
    retriever = create_rerank_retriever(
        FIRST_STAGES[kind][0](), model=FakeCrossEncoder(), top_n=None, filter={"tenant": "a"}
    )
    tool = create_rerank_tool(retriever, min_probability=None, filters=Numbers)
    for number, found in ((2, {2}), (3, set())):
        tool_call = {"name": tool.name, "args": {"query": QUERY, "number": number}, "id": "1", "type": "tool_call"}
        assert {document.metadata["number"] for document in tool.invoke(tool_call).artifact} == found
