"""The retriever tool for agents: passages with source and score for the model, documents in the artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Unpack, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.tools import StructuredTool
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field, StringConstraints, create_model

from langchain_crossrerank.agents.context import CountTokens, estimate_tokens, format_passages
from langchain_crossrerank.agents.thresholds import MinProbability, check_min_probability, relevant_documents
from langchain_crossrerank.checks import check_whole_numbers, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.retrievers import create_rerank_retriever, find_reranker
from langchain_crossrerank.retrievers.factory import RetrieverBase, RetrieverOptions, taking_arguments

NO_RELEVANT_PASSAGE = (
    "No relevant passage found. Search again with other words if the documents may still hold the answer; otherwise "
    "say that they do not."
)
"""What the tool returns to the model if no passage is relevant."""

_DESCRIPTION = (
    "Search the documents. Returns numbered passages with their source and a relevance score, best first, or says that "
    "there is no relevant passage."
)


class SearchInput(BaseModel):
    """The arguments of the tool that the model fills in."""

    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="What to look for: a full question, understandable without the conversation."
    )


def create_rerank_tool(
    retriever: RetrieverBase,
    *,
    name: str = "search_documents",
    description: str = _DESCRIPTION,
    min_probability: MinProbability | None = "measured",
    max_tokens: int = 2000,
    count_tokens: CountTokens = estimate_tokens,
    filters: type[BaseModel] | None = None,
    make_filter: Callable[[dict[str, Any]], Any] | None = None,
    history: Runnable[Any, str] | None = None,
    **options: Unpack[RetrieverOptions],
) -> StructuredTool:
    """Make a tool that searches, reranks, and returns only what is relevant.

    The model gets numbered passages with source, page and score, or a text saying that nothing relevant was found; the
    message's artifact holds the documents of those passages in the same order. The search is a child run of the tool's
    run, and the run configuration reaches it.

    Args:
        retriever: A retriever made by `create_rerank_retriever`, which LangChain's Runnable methods may have wrapped,
            or anything else that `create_rerank_retriever` takes.
        name: The tool's name.
        description: The tool's description for the model; say what the documents are about.
        min_probability: Leave out passages whose probability is lower. `"measured"` is the threshold that was measured
            for the model; if there is none, nothing is left out and a warning is logged. `None` leaves nothing out.
        max_tokens: Maximum tokens of the text for the model. Passages that do not fit are also left out of the
            artifact.
        count_tokens: Counts the tokens of a text, for example `llm.get_num_tokens`; estimated by default.
        filters: A pydantic model whose fields become arguments of the tool, for example
            `class Filters(BaseModel): year: int | None = Field(None, description="Year of the report")`. What the model
            fills in is added to a filter that `retriever` already has, and never replaces it.
        make_filter: Turns those arguments, a dict without the ones that are `None`, into the store's filter. The
            default is a dict of the field, or an `$and` of several, as Chroma, PGVector and Pinecone expect, and a
            function for an `InMemoryVectorStore`.
        history: What `create_history_query` returns: it completes the model's query from the conversation, which the
            tool takes from `"messages"` in the agent's state.
        **options: Arguments of `create_rerank_retriever` if `retriever` does not rerank yet.

    Raises:
        InvalidInputError: If an argument is not valid, or the first stage does not take a filter, or not one more; and
            from the tool, if that shows only in a search.
        MissingExtraError: If there is a `history`, and langgraph, from the `agents` extra, is not installed.
    """
    check_whole_numbers(max_tokens=(max_tokens, 1))
    searching = _reranking(retriever, options)
    if filters is not None:
        _check_fields(filters)
        # What a function of the caller's own returns is known only in a call.
        example: Any = {}
        if make_filter is None:
            make_filter = _filter_maker(searching)
            example = make_filter(dict.fromkeys(filters.model_fields))
        _check_added_filter(searching, example)
    check_min_probability(find_reranker(searching), min_probability)

    def content(documents: Sequence[Document], config: RunnableConfig) -> tuple[str, list[Document]]:
        # The configuration may choose another reranker.
        relevant = relevant_documents(documents, find_reranker(searching, config), min_probability)
        if not relevant:
            return NO_RELEVANT_PASSAGE, []
        return format_passages(relevant, max_tokens=max_tokens, count_tokens=count_tokens)

    def arguments(given: Mapping[str, Any], config: RunnableConfig) -> dict[str, Any]:
        filled = {key: value for key, value in given.items() if value is not None}
        if make_filter is None or not filled:
            return {}
        # As `filter`, it would replace the application's own.
        added = make_filter(filled)
        _check_added_filter(searching, added, config)
        return {"added_filter": added}

    def search(query: str, messages: Sequence[AnyMessage] | None = None, **given: Any) -> tuple[str, list[Document]]:
        # The configuration in the context is that of the tool's run; as an argument, a tool gets its caller's.
        config = ensure_config()
        if history is not None:
            query = history.invoke(_follow_up(query, messages), config)
        return content(searching.invoke(query, config, **arguments(given, config)), config)

    async def asearch(
        query: str, messages: Sequence[AnyMessage] | None = None, **given: Any
    ) -> tuple[str, list[Document]]:
        # The configuration in the context is that of the tool's run; as an argument, a tool gets its caller's.
        config = ensure_config()
        if history is not None:
            query = await history.ainvoke(_follow_up(query, messages), config)
        return content(await searching.ainvoke(query, config, **arguments(given, config)), config)

    return StructuredTool(
        name=name,
        description=description,
        func=search,
        coroutine=asearch,
        args_schema=_arguments_model(filters, takes_messages=history is not None),
        response_format="content_and_artifact",
    )


def _arguments_model(filters: type[BaseModel] | None, *, takes_messages: bool) -> type[BaseModel]:
    """The tool's arguments; the query comes first, because a tool also takes its first argument as a bare string."""
    parts = [] if filters is None else [filters]
    if takes_messages:
        check_extra("agents", needed_for="the conversation in a tool", modules=("langgraph",))
        from langgraph.prebuilt import InjectedState

        messages: Any = (Annotated[list[Any] | None, InjectedState("messages")], None)
        parts.append(create_model("Conversation", messages=messages))
    return create_model("SearchInput", __base__=(*parts, SearchInput)) if parts else SearchInput


def _follow_up(query: str, messages: Sequence[AnyMessage] | None) -> dict[str, Any]:
    """The query and what people and the model said to each other."""
    return {"question": query, "history": [message for message in messages or () if _is_said(message)]}


def _is_said(message: AnyMessage) -> bool:
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        # Whatever else it says: language models refuse a conversation with a call that has no result.
        return False
    return isinstance(message, HumanMessage | AIMessage) and bool(message.text)


def _reranking(retriever: RetrieverBase, options: RetrieverOptions) -> Runnable[Any, list[Document]]:
    if find_reranker(retriever) is None:
        return create_rerank_retriever(retriever, **options)
    if options:
        raise InvalidInputError(
            f"the retriever reranks already, so {', '.join(sorted(options))} cannot be set here; set them on it."
        )
    return taking_arguments(cast("Runnable[Any, list[Document]]", retriever))


def _check_fields(filters: type[BaseModel]) -> None:
    if not isinstance(filters, type) or not issubclass(filters, BaseModel):
        raise InvalidInputError(f"filters is {shorten(filters)}; pass a pydantic model class.")
    taken = sorted({"query", "config", "messages"} & filters.model_fields.keys())
    if taken:
        raise InvalidInputError(f"filters has a field {taken[0]!r}, which is the tool's own; give it another name.")


def _filter_maker(retriever: Runnable[Any, Any]) -> Callable[[dict[str, Any]], Any]:
    bases = [getattr(receiver, "base_retriever", None) for receiver, _ in _receivers(retriever, {})]
    is_in_memory = any(isinstance(getattr(base, "vectorstore", None), InMemoryVectorStore) for base in bases)
    return _function_filter if is_in_memory else _dict_filter


def _check_added_filter(retriever: Runnable[Any, Any], added: Any, config: RunnableConfig | None = None) -> None:
    for receiver, bound in _receivers(retriever, {}, config):
        receiver.check_arguments(**bound, added_filter=added)


def _receivers(
    retriever: Any, bound: dict[str, Any], config: RunnableConfig | None = None
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The reranking retrievers that are given the arguments of a call, each with those that are bound to it."""
    if isinstance(retriever, DynamicRunnable):
        prepared, merged = retriever.prepare(config)
        yield from _receivers(prepared, bound, merged)
    elif isinstance(retriever, RunnableBindingBase):
        yield from _receivers(retriever.bound, {**retriever.kwargs, **bound}, merge_configs(retriever.config, config))
    elif isinstance(retriever, RunnableWithFallbacks):
        for part in (retriever.runnable, *retriever.fallbacks):
            yield from _receivers(part, bound, config)
    elif isinstance(retriever, RunnableSequence):
        yield from _receivers(retriever.first, bound, config)
    elif hasattr(retriever, "check_arguments"):
        yield retriever, bound
    else:
        raise InvalidInputError(
            f"a filter does not reach the first stage through {type(retriever).__name__}; pass what "
            "create_rerank_retriever returns, or leave out filters."
        )


def _function_filter(given: dict[str, Any]) -> Callable[[Document], bool]:
    return lambda document: all(document.metadata.get(key) == value for key, value in given.items())


def _dict_filter(given: dict[str, Any]) -> dict[str, Any]:
    conditions = [{key: value} for key, value in given.items()]
    return conditions[0] if len(conditions) == 1 else {"$and": conditions}
