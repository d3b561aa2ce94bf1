"""The retriever tool for agents."""

from __future__ import annotations

import logging
from typing import Any, Literal

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import BaseTool
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field, ValidationError

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever, create_rerank_tool
from langchain_crossrerank.agents.tool import NO_RELEVANT_PASSAGE
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import ScriptedCrossEncoder


class Filters(BaseModel):
    """Arguments that narrow the search."""

    year: int | None = Field(None, description="Year of the document")
    source: Literal["/srv/course.pdf", "/srv/kitchen.pdf"] | None = Field(None, description="File to search")


async def call(tool: BaseTool, *, is_async: bool, **arguments: Any) -> ToolMessage:
    """Call a tool as an agent does."""
    tool_call = {"name": tool.name, "args": arguments, "id": "1", "type": "tool_call"}
    message = await tool.ainvoke(tool_call) if is_async else tool.invoke(tool_call)
    assert isinstance(message, ToolMessage)
    return message


@pytest.mark.parametrize("is_async", [False, True])
async def test_text_and_documents_match(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, *, is_async: bool
) -> None:
    """The model reads numbered passages, and the artifact has their documents in the same order."""
    tool = create_rerank_tool(store, model=model, min_probability=0.5)
    message = await call(tool, is_async=is_async, query="What is LoRA?")
    assert str(message.content).startswith("[1] (course.pdf, page 6; score 3.00)\nLoRA freezes")
    assert "[2] (course.pdf, page 7; score 1.00)" in message.content
    assert [document.id for document in message.artifact] == ["lora", "memory"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_nothing_relevant_is_said_in_words(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, *, is_async: bool
) -> None:
    """Below the threshold the model gets a sentence instead of noise."""
    tool = create_rerank_tool(store, model=model, min_probability=0.99)
    message = await call(tool, is_async=is_async, query="Who won?")
    assert message.content == NO_RELEVANT_PASSAGE
    assert message.artifact == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_filters_are_arguments(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, *, is_async: bool
) -> None:
    """What the model fills in reaches the store, several arguments together, and what it leaves out does not."""
    tool = create_rerank_tool(store, model=model, min_probability=None, filters=Filters)
    assert list(tool.args) == ["query", "year", "source"]
    narrow = await call(tool, is_async=is_async, query="LoRA", year=2020, source="/srv/kitchen.pdf")
    assert [document.id for document in narrow.artifact] == ["bread"]
    neither = await call(tool, is_async=is_async, query="LoRA", year=2020, source="/srv/course.pdf")
    assert neither.artifact == []
    assert len((await call(tool, is_async=is_async, query="LoRA")).artifact) == 3


def test_the_default_filter_is_a_dict_for_other_stores(model: ScriptedCrossEncoder) -> None:
    """One field is a dict, and several are joined by `$and`, as most stores write it."""
    seen: list[Any] = []

    def search(query: str, filter: Any = None) -> list[Document]:
        seen.append(filter)
        return []

    tool = create_rerank_tool(search, model=model, filters=Filters)
    tool.invoke({"query": "LoRA", "year": 2021})
    tool.invoke({"query": "LoRA", "year": 2021, "source": "/srv/course.pdf"})
    tool.invoke({"query": "LoRA"})
    assert seen == [{"year": 2021}, {"$and": [{"year": 2021}, {"source": "/srv/course.pdf"}]}, None]


def test_make_filter_writes_the_stores_own_filter(model: ScriptedCrossEncoder) -> None:
    """A store with another way of filtering gets what `make_filter` returns."""
    seen: list[Any] = []

    def search(query: str, filter: Any = None) -> list[Document]:
        seen.append(filter)
        return []

    tool = create_rerank_tool(search, model=model, filters=Filters, make_filter=lambda given: f"year = {given['year']}")
    tool.invoke({"query": "LoRA", "year": 2021})
    assert seen == ["year = 2021"]


def test_a_first_stage_without_filters_is_refused_at_once(model: ScriptedCrossEncoder) -> None:
    """A filter that would be dropped is an error when the tool is made."""
    with pytest.raises(InvalidInputError, match="filter"):
        create_rerank_tool(RunnableLambda(lambda query: []), model=model, filters=Filters)


def test_langchains_own_retriever_gets_the_filter(store: InMemoryVectorStore, model: ScriptedCrossEncoder) -> None:
    """LangChain's compression retriever would drop a filter, so its parts are used by ours."""
    retriever = ContextualCompressionRetriever(
        base_compressor=CrossEncoderReranker(model=model), base_retriever=store.as_retriever()
    )
    tool = create_rerank_tool(retriever, min_probability=None, filters=Filters)
    message = tool.invoke({"name": tool.name, "args": {"query": "LoRA", "year": 2020}, "id": "1", "type": "tool_call"})
    assert [document.id for document in message.artifact] == ["bread"]


def test_the_budget_limits_text_and_artifact(store: InMemoryVectorStore, model: ScriptedCrossEncoder) -> None:
    """Documents that did not fit into the text are not in the artifact, so that numbers name documents."""
    tool = create_rerank_tool(store, model=model, min_probability=None, max_tokens=30)
    message = tool.invoke({"name": tool.name, "args": {"query": "LoRA"}, "id": "1", "type": "tool_call"})
    assert [document.id for document in message.artifact] == ["lora"]


def test_configuration_reaches_the_retriever(store: InMemoryVectorStore, model: ScriptedCrossEncoder) -> None:
    """A configurable `top_n` and `k` hold inside the tool."""
    reranker = CrossEncoderReranker(model=model).configurable_fields(top_n=ConfigurableField(id="top_n"))
    retriever = create_rerank_retriever(store, reranker=reranker).configurable_fields(k=ConfigurableField(id="k"))
    tool = create_rerank_tool(retriever, min_probability=None)
    tool_call = {"name": tool.name, "args": {"query": "LoRA"}, "id": "1", "type": "tool_call"}
    assert len(tool.invoke(tool_call, {"configurable": {"top_n": 2}}).artifact) == 2
    assert len(tool.invoke(tool_call, {"configurable": {"k": 1}}).artifact) == 1
    assert len(tool.invoke(tool_call).artifact) == 3


def test_a_failed_model_is_no_reason_to_hide_passages(store: InMemoryVectorStore) -> None:
    """With `on_error="keep_order"` the passages are shown without a score."""
    failing = ScriptedCrossEncoder({}, default=float("nan"))
    tool = create_rerank_tool(store, model=failing, on_error="keep_order", min_probability=0.5)
    text = tool.invoke({"query": "LoRA"})
    assert text.startswith("[1] (")
    assert "score" not in text


def test_a_model_without_a_measured_threshold_is_reported(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """The default threshold is never guessed: everything is returned, and a warning says so."""
    with caplog.at_level(logging.WARNING):
        tool = create_rerank_tool(store, model=model)
    assert "No threshold was measured for the model 'scripted'" in caplog.text
    message = tool.invoke({"name": tool.name, "args": {"query": "LoRA"}, "id": "1", "type": "tool_call"})
    assert len(message.artifact) == 3


@pytest.mark.parametrize("query", ["", "  \n"])
def test_a_blank_query_is_an_error_of_the_arguments(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, query: str
) -> None:
    """An agent's tool node hands such an error back to the model, which can then correct it."""
    tool = create_rerank_tool(store, model=model, min_probability=None)
    with pytest.raises(ValidationError, match="query"):
        tool.invoke({"query": query})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_probability": 1.5}, "min_probability is 1.5"),
        ({"min_probability": "high"}, "min_probability is 'high'"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"filters": {"year": int}}, "pass a pydantic model class"),
        ({"tpo_n": 3}, "no argument 'tpo_n'; pass top_n instead"),
    ],
)
def test_wrong_arguments_are_named(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, arguments: dict[str, Any], message: str
) -> None:
    """A wrong argument is an error when the tool is made."""
    with pytest.raises(InvalidInputError, match=message):
        create_rerank_tool(store, model=model, **arguments)


def test_options_of_a_reranking_retriever_are_refused(store: InMemoryVectorStore, model: ScriptedCrossEncoder) -> None:
    """An option that would have no effect is an error."""
    retriever = create_rerank_retriever(store, model=model)
    with pytest.raises(InvalidInputError, match="so top_n cannot be set here"):
        create_rerank_tool(retriever, top_n=2)


def test_a_filter_cannot_take_the_tools_own_name(store: InMemoryVectorStore, model: ScriptedCrossEncoder) -> None:
    """A field called `query` would replace the query."""

    class Clashing(BaseModel):
        query: str

    with pytest.raises(InvalidInputError, match="a field 'query'"):
        create_rerank_tool(store, model=model, filters=Clashing)
