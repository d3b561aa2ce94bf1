"""What one call of a reranking retriever does with its input, its configuration and what comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.chains import create_history_aware_retriever
from langchain_classic.retrievers import EnsembleRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import FakeCrossEncoder

TEXTS = [f"passage {number}" for number in range(40)]
HISTORY = [HumanMessage("Which ferries are there?"), AIMessage("Two.")]

Call = Callable[..., list[Document]]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Both ways to invoke a retriever."""
    if request.param == "sync":
        return lambda retriever, *args, **kwargs: list(retriever.invoke(*args, **kwargs))
    return lambda retriever, *args, **kwargs: asyncio.run(retriever.ainvoke(*args, **kwargs))


@pytest.fixture(scope="module")
def store() -> InMemoryVectorStore:
    """A vector store of forty passages."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_texts(TEXTS)
    return store


def finding(count: int) -> RunnableLambda[str, list[Document]]:
    """Make a first stage that finds a fixed number of passages."""
    return RunnableLambda(lambda _: [Document(text) for text in TEXTS[:count]])


def history_aware(base: Any, question: str) -> Any:
    """Make a retriever that puts a conversation into this question; it takes a dict."""
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{chat_history}"), ("human", "{input}")])
    return create_history_aware_retriever(FakeListChatModel(responses=[question]), base, prompt)


def test_a_conversation_is_reranked_by_the_question_that_the_first_stage_made_of_it(
    store: InMemoryVectorStore, call: Call
) -> None:
    """The model reads the standalone question; without a conversation, the question as it was asked."""
    model = FakeCrossEncoder()
    base = history_aware(store.as_retriever(), "when does the second ferry leave")
    retriever = create_rerank_retriever(base, model=model)
    call(retriever, {"input": "and the second?", "chat_history": HISTORY})
    assert {query for batch in model.batches for query, _ in batch} == {"when does the second ferry leave"}
    model.batches.clear()
    call(retriever, "and the first?")
    assert {query for batch in model.batches for query, _ in batch} == {"and the first?"}


def test_a_dict_is_reranked_by_its_query_where_no_retriever_runs(call: Call) -> None:
    """For a Runnable that takes a dict, the query is under one of LangChain's usual keys."""
    model = FakeCrossEncoder()
    base = RunnableLambda(lambda state: [Document(f"{state['topic']} {n}") for n in range(9)])
    retriever = create_rerank_retriever(base, model=model)
    for key in ("query", "question", "input"):
        model.batches.clear()
        call(retriever, {"topic": "ferries", key: f"the {key}"})
        assert {query for batch in model.batches for query, _ in batch} == {f"the {key}"}


@pytest.mark.parametrize("value", [{"topic": "ferries"}, {"query": 7}, {}, None, 7, ["a query"]])
def test_an_input_without_a_query_is_refused(call: Call, value: Any) -> None:
    """Nothing is searched, and the error shows the input."""
    retriever = create_rerank_retriever(RunnableLambda(lambda _: pytest.fail("searched")), model=FakeCrossEncoder())
    with pytest.raises(InvalidInputError) as caught:
        call(retriever, value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("query", ["", " \n"])
def test_a_blank_query_is_refused_before_anything_is_searched(call: Call, query: str) -> None:
    """The first stage is not asked."""
    retriever = create_rerank_retriever(RunnableLambda(lambda _: pytest.fail("searched")), model=FakeCrossEncoder())
    with pytest.raises(InvalidInputError, match="which is blank"):
        call(retriever, query)


def test_configurable_fields_of_both_stages_are_listed_and_set(store: InMemoryVectorStore, call: Call) -> None:
    """`config_specs` shows the fields of the first stage, of its parts and of the reranker; each is set per call."""
    part = store.as_retriever().configurable_fields(search_kwargs=ConfigurableField(id="search"))
    reranker = CrossEncoderReranker(model=FakeCrossEncoder()).configurable_fields(top_n=ConfigurableField(id="keep"))
    base = EnsembleRetriever(retrievers=[part, store.as_retriever()])
    retriever = create_rerank_retriever(base, reranker=reranker, k=30)
    assert {spec.id for spec in retriever.config_specs} == {"search", "keep"}
    assert len(call(retriever, "passage 3")) == 3
    assert len(call(retriever, "passage 3", {"configurable": {"keep": 1}})) == 1
    config: RunnableConfig = {"configurable": {"keep": 40, "search": {"filter": lambda d: d.page_content == TEXTS[3]}}}
    assert len(call(create_rerank_retriever(part, reranker=reranker), "passage 3", config)) == 1


def test_the_graph_shows_both_stages(store: InMemoryVectorStore) -> None:
    """`get_graph` has a node for the first stage and one for the reranker, in a row."""
    graph = create_rerank_retriever(store, model=FakeCrossEncoder()).get_graph()
    names = [graph.nodes[edge.target].name for edge in graph.edges]
    assert names == ["VectorStoreRetriever", "CrossEncoderReranker", "RerankRetrieverOutput"]


def test_a_misspelt_argument_names_the_field_that_was_meant(store: InMemoryVectorStore, call: Call) -> None:
    """An argument that the first stage refuses may be a misspelt field of the reranker."""
    with pytest.raises(InvalidInputError, match=r"topn=1 cannot be set on VectorStoreRetriever.*field 'top_n'"):
        call(create_rerank_retriever(store, model=FakeCrossEncoder()), "passage", topn=1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": "9"}, "k is '9'"),
        ({"top_n": 0}, "top_n is 0"),
        ({"search_kwargs": 3}, "search_kwargs is 3"),
        ({"tags": ["x"]}, r'tags=.*pass config={"tags": ...}'),
    ],
)
def test_a_bad_value_at_call_time_is_refused(
    store: InMemoryVectorStore, call: Call, arguments: dict[str, Any], named: str
) -> None:
    """Values are checked as at construction, before anything is searched."""
    with pytest.raises(InvalidInputError, match=named):
        call(create_rerank_retriever(store, model=FakeCrossEncoder()), "passage", **arguments)


def test_search_arguments_at_call_time_come_before_those_of_the_retriever(
    store: InMemoryVectorStore, call: Call
) -> None:
    """`search_kwargs` and single arguments of a call win over what was set before."""
    model = FakeCrossEncoder()
    retriever = create_rerank_retriever(store, model=model, k=7, top_n=None)
    assert len(call(retriever, "passage", search_kwargs={"k": 9})) == 9
    assert len(call(retriever, "passage", search_kwargs={"k": 9}, k=11)) == 11
    assert len(call(retriever, "passage", search_type="mmr")) == 7
    assert len(call(retriever, "passage")) == 7


@pytest.mark.parametrize(("found", "top_n", "warned"), [(3, 3, 1), (2, 3, 1), (4, 3, 0), (0, 3, 0), (2, None, 0)])
def test_too_few_candidates_are_reported_once(
    call: Call, caplog: pytest.LogCaptureFixture, found: int, top_n: int | None, warned: int
) -> None:
    """If what came back cannot be reduced, reranking does little, and the log says so, once for each retriever."""
    retriever = create_rerank_retriever(finding(found), model=FakeCrossEncoder(), top_n=top_n)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            call(retriever, "passage")
    assert [f"returned {found} candidates for top_n={top_n}" in record.message for record in caplog.records] == [
        True
    ] * warned


def test_a_store_with_few_passages_is_not_reported(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    """Fewer candidates than were asked for are all that there are."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_texts(TEXTS[:2])
    with caplog.at_level(logging.WARNING):
        assert len(call(create_rerank_retriever(store, model=FakeCrossEncoder()), "passage")) == 2
    assert caplog.records == []


def test_the_trace_shows_how_many_candidates_were_asked_for(store: InMemoryVectorStore, call: Call) -> None:
    """The rerank's run has `k`, `top_n` and the threshold in its metadata, next to those of the caller."""
    seen: dict[str, dict[str, Any]] = {}

    class Metadata(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            seen[kwargs["name"]] = kwargs["metadata"]

    retriever = create_rerank_retriever(store, model=FakeCrossEncoder(), k=9, top_n=3)
    call(retriever, "passage", {"callbacks": [Metadata()], "metadata": {"user": "u"}}, top_n=2, k=11)
    shown = seen["CrossEncoderReranker"]
    assert {key: shown[key] for key in ("k", "top_n", "score_threshold", "user")} == {
        "k": 11,
        "top_n": 2,
        "score_threshold": None,
        "user": "u",
    }


def test_the_configuration_reaches_both_stages(call: Call) -> None:
    """Tags, metadata and anything else in `config` are there for the first stage."""
    seen: list[RunnableConfig] = []

    def first(query: str, config: RunnableConfig) -> list[Document]:
        seen.append(config)
        return [Document(text) for text in TEXTS[:9]]

    retriever = create_rerank_retriever(RunnableLambda(first), model=FakeCrossEncoder())
    config: RunnableConfig = {"tags": ["mine"], "metadata": {"user": "u"}, "configurable": {"tenant": "a"}}
    call(retriever, "passage", config)
    assert seen[0]["tags"] == ["mine"]
    assert seen[0]["metadata"]["user"] == "u"
    assert seen[0]["configurable"]["tenant"] == "a"
