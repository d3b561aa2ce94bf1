"""Follow-up questions in the chain and in the tool of an agent."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import create_history_query, create_rag_chain, create_rerank_retriever, create_rerank_tool
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.agents.scripted_model import calls, scripted

TEXTS = ["LoRA saves memory for optimiser state.", "A garage saves memory of cars.", "Bread saves money."]
HISTORY = [HumanMessage("What is LoRA?"), AIMessage("A way to adapt models.")]
FOLLOW_UP = "And how much memory does it save?"


@pytest.fixture
def queries() -> list[str]:
    """What the first stage was asked."""
    return []


@pytest.fixture
def retriever(queries: list[str]) -> Any:
    """A reranking retriever that keeps the best passage."""

    def search(query: str) -> list[Document]:
        queries.append(query)
        return [Document(text) for text in TEXTS]

    return create_rerank_retriever(RunnableLambda(search), model=FakeCrossEncoder(), top_n=1)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("llm", "query"),
    [
        (None, f"What is LoRA? {FOLLOW_UP}"),
        (FakeListChatModel(responses=["How much memory does LoRA save?"]), "How much memory does LoRA save?"),
    ],
)
async def test_the_chain_searches_with_the_whole_question(
    retriever: Any, queries: list[str], llm: Any, query: str, *, is_async: bool
) -> None:
    """Search, context and answer use the question as it is understood by itself, and the chain returns both."""
    chain = create_rag_chain(retriever, FakeListChatModel(responses=["Much."]), history=create_history_query(llm))
    state: Any = {"question": FOLLOW_UP, "history": HISTORY}
    answer = await chain.ainvoke(state) if is_async else chain.invoke(state)
    assert queries == [query]
    assert (answer["question"], answer["query"], answer["answer"]) == (FOLLOW_UP, query, "Much.")
    assert [document.page_content for document in answer["context"]] == TEXTS[:1]


def test_the_chain_takes_a_first_question_as_text(retriever: Any, queries: list[str]) -> None:
    """Without a conversation the chain is as before."""
    chain = create_rag_chain(retriever, FakeListChatModel(responses=["Yes."]), history=create_history_query())
    assert chain.invoke("What is LoRA?")["query"] == "What is LoRA?"
    assert queries == ["What is LoRA?"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_tool_reads_the_conversation_of_the_agent(
    retriever: Any, queries: list[str], *, is_async: bool
) -> None:
    """A model that repeats the follow-up as its query still finds what it is about, and does not see the argument."""
    agents = pytest.importorskip("langchain.agents", reason="needs the agents extra")
    tool = create_rerank_tool(retriever, min_probability=None, history=create_history_query())
    assert list(tool.tool_call_schema.model_json_schema()["properties"]) == ["query"]
    agent = agents.create_agent(scripted(calls(tool.name, query="how much memory does it save"), "Much."), [tool])
    state = {"messages": [*HISTORY, HumanMessage(FOLLOW_UP)]}
    result = await agent.ainvoke(state) if is_async else agent.invoke(state)
    assert queries == [f"What is LoRA? {FOLLOW_UP} how much memory does it save"]
    assert result["messages"][-2].artifact[0].page_content == TEXTS[0]


def test_the_tool_works_without_an_agent(retriever: Any, queries: list[str]) -> None:
    """Called by itself, the tool has no conversation."""
    pytest.importorskip("langgraph", reason="needs the agents extra")
    tool = create_rerank_tool(retriever, min_probability=None, history=create_history_query())
    assert "LoRA saves memory" in tool.invoke("How much memory does LoRA save?")
    assert queries == ["How much memory does LoRA save?"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_rewriting_model_sees_no_call_without_its_result(retriever: Any, *, is_async: bool) -> None:
    """A message that says something beside its call is left out: providers refuse a conversation with such a call."""
    agents = pytest.importorskip("langchain.agents", reason="needs the agents extra")
    rewriting = scripted("What memory does LoRA save?", "How much memory does LoRA save?")
    tool = create_rerank_tool(retriever, min_probability=None, history=create_history_query(rewriting))

    def search(query: str) -> AIMessage:
        return calls(tool.name, query=query).model_copy(update={"content": "Let me search."})

    model = scripted(search("memory"), "That of the optimiser.", search("how much"), "Much.")
    agent = agents.create_agent(model, [tool])
    state: Any = {"messages": [*HISTORY, HumanMessage("Which memory does it save?")]}
    for _ in range(2):
        state = await agent.ainvoke(state) if is_async else agent.invoke(state)
        state = {"messages": [*state["messages"], HumanMessage(FOLLOW_UP)]}
    *_, seen = rewriting.seen
    assert not any(isinstance(message, AIMessage) and message.tool_calls for message in seen)
    assert [message.text for message in seen if isinstance(message, AIMessage)] == [
        "A way to adapt models.",
        "That of the optimiser.",
    ]
