"""The retriever tool for agents."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Literal

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever, MergerRetriever
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


def only_the_kitchen(document: Document) -> bool:
    """The application's own filter."""
    return bool(document.metadata["source"] == "/srv/kitchen.pdf")


def search_in_memory(store: InMemoryVectorStore, query: str, filter: Any = None) -> list[Document]:
    """Search by a function of the application's own."""
    return store.similarity_search(query, filter=filter)


def filtered(store: InMemoryVectorStore, model: ScriptedCrossEncoder, how: str) -> Any:
    """A reranking retriever that the application lets see the kitchen's document only."""
    own: dict[str, Any] = {"filter": only_the_kitchen}
    options: dict[str, Any] = {"model": model, "top_n": None}
    retriever = store.as_retriever(search_kwargs=own)
    field = ConfigurableField(id="search_kwargs")
    if how == "argument":
        return create_rerank_retriever(store, **options, **own)
    if how == "store retriever":
        return create_rerank_retriever(retriever, **options)
    if how == "bound first stage":
        return create_rerank_retriever(store.as_retriever().bind(**own), **options)
    if how == "configured first stage":
        base = store.as_retriever().configurable_fields(search_kwargs=field)
        return create_rerank_retriever(base.with_config(configurable={"search_kwargs": own}), **options)
    if how == "part":
        return create_rerank_retriever(MergerRetriever(retrievers=[retriever, retriever]), **options)
    if how == "partial function":
        return create_rerank_retriever(partial(search_in_memory, store, **own), **options)
    if how == "LangChain's own":
        reranker = CrossEncoderReranker(model=model)
        return ContextualCompressionRetriever(base_compressor=reranker, base_retriever=retriever)
    if how == "nested":
        return create_rerank_retriever(create_rerank_retriever(retriever, **options), **options)
    open_retriever = create_rerank_retriever(store, **options)
    if how == "bound":
        return open_retriever.bind(**own)
    if how == "configured":
        base = open_retriever.configurable_fields(search_kwargs=field)
        return base.with_config(configurable={"search_kwargs": own})
    closed = create_rerank_retriever(retriever, **options)
    wrapped: dict[str, Any] = {
        "retrying": closed.with_retry(),
        "fallbacks": open_retriever.bind(**own).with_fallbacks([closed]),
        "sequence": closed | RunnableLambda(list),
    }
    return wrapped[how]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        "argument",
        "store retriever",
        "bound first stage",
        "configured first stage",
        "part",
        "partial function",
        "LangChain's own",
        "nested",
        "bound",
        "configured",
        "retrying",
        "fallbacks",
        "sequence",
    ],
)
async def test_the_models_filter_only_narrows_the_applications(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder, how: str, *, is_async: bool
) -> None:
    """Wherever the application set its filter, what the model fills in never shows what that filter hides."""

    def by_year(given: dict[str, Any]) -> Any:
        return lambda document: document.metadata["year"] == given["year"]

    retriever = filtered(store, model, how)
    tool = create_rerank_tool(retriever, min_probability=None, filters=Filters, make_filter=by_year)
    for year, found in ((2020, {"bread"}), (2021, set()), (None, {"bread"})):
        message = await call(tool, is_async=is_async, query="LoRA", year=year)
        assert {document.id for document in message.artifact} == found


@pytest.mark.parametrize("own", [{"year": 2020}, "year = 2020", {"$or": [{"tenant": "a"}, {"tenant": "b"}]}])
def test_a_filter_that_the_models_cannot_be_added_to_is_refused_at_once(model: ScriptedCrossEncoder, own: Any) -> None:
    """It is neither dropped nor replaced, and the error comes before the first search."""

    def search(query: str, filter: Any = None) -> list[Document]:
        return pytest.fail("searched")

    for retriever in (
        create_rerank_retriever(search, model=model, filter=own),
        create_rerank_retriever(search, model=model).bind(filter=own),
    ):
        with pytest.raises(InvalidInputError, match="cannot be added to the first stage's own filter"):
            create_rerank_tool(retriever, filters=Filters)


def test_a_made_filter_of_another_kind_is_refused_in_the_call(model: ScriptedCrossEncoder) -> None:
    """What `make_filter` returns is known only then; nothing is searched."""

    def search(query: str, filter: Any = None) -> list[Document]:
        return pytest.fail("searched")

    retriever = create_rerank_retriever(search, model=model, filter={"tenant": "a"})
    tool = create_rerank_tool(retriever, filters=Filters, make_filter=lambda given: "year = 2021")
    with pytest.raises(InvalidInputError, match="cannot be added to the first stage's own filter"):
        tool.invoke({"query": "LoRA", "year": 2021})


def test_a_filter_that_would_not_arrive_is_refused_at_once(
    store: InMemoryVectorStore, model: ScriptedCrossEncoder
) -> None:
    """A Runnable that is not a reranking retriever would drop the model's filter in silence."""
    steps = {"query": RunnableLambda(str), "documents": store.as_retriever()} | CrossEncoderReranker(model=model)
    create_rerank_tool(steps, min_probability=None)
    with pytest.raises(InvalidInputError, match="does not reach the first stage through RunnableParallel"):
        create_rerank_tool(steps, min_probability=None, filters=Filters)


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
