"""The tool, the gate and the steps in LangChain's agents and in LangGraph, with what these promise of every part."""

from __future__ import annotations

import uuid
from typing import Any, TypedDict

import pytest

pytest.importorskip("langchain.agents", reason="needs the agents extra")

from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from langchain_crossrerank import CrossEncoderReranker, RelevanceGate, create_rerank_retriever, create_rerank_tool
from langchain_crossrerank.agents.tool import NO_RELEVANT_PASSAGE
from langchain_crossrerank.evaluation.langsmith import langsmith_evaluators
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.agents.scripted_model import calls, scripted

TEXTS = ["Bread is baked at night.", "The ferry leaves at seven.", "The ferry carries bread."]


class State(TypedDict, total=False):
    """The state of a corrective graph."""

    question: str
    documents: list[Document]
    relevant: bool
    best_score: float | None
    answer: str


def make_retriever(**options: Any) -> Any:
    """A reranking retriever over three passages; numpy numbers and dates are not in their metadata."""

    def search(query: str) -> list[Document]:
        return [Document(text, id=str(n), metadata={"source": "notes.txt"}) for n, text in enumerate(TEXTS)]

    return create_rerank_retriever(RunnableLambda(search), model=FakeCrossEncoder(), **options)


def make_graph(**settings: Any) -> Any:
    """Retrieve, grade, and answer or rewrite the question once."""
    retriever = make_retriever()
    graph = StateGraph(State)
    graph.add_node("retrieve", lambda state: {"documents": retriever.invoke(state["question"])})
    graph.add_node("grade", RelevanceGate(model=FakeCrossEncoder(), min_probability=0.6))
    graph.add_node("rewrite", lambda state: {"question": "The ferry leaves when?"})
    graph.add_node("answer", lambda state: {"answer": state["documents"][0].page_content})
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "grade")
    graph.add_conditional_edges("grade", RelevanceGate.route, {"relevant": "answer", "irrelevant": "rewrite"})
    graph.add_edge("rewrite", "retrieve")
    graph.add_edge("answer", END)
    return graph.compile(**settings)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_graph_rewrites_what_finds_nothing(*, is_async: bool) -> None:
    """The gate sends a question without an answer to the rewriting node, and what is found then to the answer."""
    graph, state = make_graph(), {"question": "quantum chromodynamics"}
    result = await graph.ainvoke(state) if is_async else graph.invoke(state)
    assert result["answer"] == "The ferry leaves at seven."
    assert result["relevant"]
    assert result["question"] == "The ferry leaves when?"


def test_the_graph_is_drawn_with_its_gate() -> None:
    """Both edges that follow the gate are in the picture, with their names."""
    picture = make_graph().get_graph().draw_mermaid()
    assert "grade -. &nbsp;relevant&nbsp; .-> answer" in picture
    assert "grade -. &nbsp;irrelevant&nbsp; .-> rewrite" in picture


def test_a_checkpoint_keeps_documents_and_scores() -> None:
    """What the gate writes into the state can be serialised and is read back the same."""
    graph = make_graph(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    result = graph.invoke({"question": "The ferry leaves when?"}, config)
    kept = graph.get_state(config).values
    assert kept["documents"] == result["documents"]
    assert type(kept["documents"][0].metadata["relevance_score"]) is float
    assert type(kept["best_score"]) is float


def test_a_checkpoint_keeps_an_agents_passages() -> None:
    """The artifact of the tool's message survives in the agent's checkpoint."""
    tool = create_rerank_tool(make_retriever(), min_probability=0.6)
    model = scripted(calls(tool.name, query="The ferry leaves when?"), "At seven [1].")
    agent = create_agent(model, [tool], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": [("human", "The ferry leaves when?")]}, config)
    (message,) = [m for m in agent.get_state(config).values["messages"] if isinstance(m, ToolMessage)]
    # LangGraph keeps what it finds in a message as plain data.
    assert message.artifact[0]["page_content"] == "The ferry leaves at seven."
    assert "[1] (notes.txt; score" in message.text


async def test_an_agent_streams_the_rerank_with_its_scores() -> None:
    """The events of an agent have the rerank below the tool, and the scores of all candidates."""
    tool = create_rerank_tool(make_retriever(), min_probability=0.99)
    agent = create_agent(scripted(calls(tool.name, query="Who painted the chapel?"), "I do not know."), [tool])
    events = [event async for event in agent.astream_events({"messages": [("human", "Who?")]}, version="v2")]
    (scores,) = [e for e in events if e["name"] == "rerank_scores" and e["event"] == "on_chain_end"]
    assert len(scores["data"]["output"]["scores"]) == len(TEXTS)
    (ended,) = [e for e in events if e["event"] == "on_tool_end"]
    assert ended["data"]["output"].content == NO_RELEVANT_PASSAGE
    assert ended["run_id"] in scores["parent_ids"]


def test_fields_are_configurable_and_calls_are_batched() -> None:
    """`top_n` and `k` come from the run configuration, also by `with_config`, one for each call of a batch."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder()).configurable_fields(top_n=ConfigurableField(id="top_n"))
    base = RunnableLambda(lambda query: [Document(text) for text in TEXTS])
    retriever = create_rerank_retriever(base, reranker=reranker)
    narrow = retriever.with_config(configurable={"top_n": 1})
    assert len(narrow.invoke("ferry")) == 1
    configs: Any = [{"configurable": {"top_n": n}} for n in (1, 2)]
    assert [len(found) for found in retriever.batch(["ferry", "bread"], configs)] == [1, 2]


def test_langsmith_evaluates_offline() -> None:
    """The measures are evaluators of `langsmith.evaluate`, without uploading anything."""
    langsmith = pytest.importorskip("langsmith", reason="needs langsmith")
    pytest.importorskip("ir_measures", reason="needs the eval extra")
    from langsmith.schemas import Example
    from urllib3 import Retry

    retriever = make_retriever(top_n=3)
    example = Example(
        id=uuid.uuid4(), dataset_id=uuid.uuid4(), inputs={"query": "ferry leaves at seven"}, outputs={"relevant": ["1"]}
    )
    with pytest.warns(UserWarning, match="beta"):
        results = langsmith.evaluate(
            lambda inputs: {"documents": retriever.invoke(inputs["query"])},
            data=[example],
            evaluators=langsmith_evaluators(["nDCG@10", "R@1"]),
            upload_runs=False,
            client=langsmith.Client(
                api_key="unused", api_url="http://127.0.0.1:9", auto_batch_tracing=False, retry_config=Retry(0)
            ),
        )
    (row,) = list(results)
    scores = {result.key: result.score for result in row["evaluation_results"]["results"]}
    assert scores == {"nDCG@10": 1.0, "R@1": 1.0}
