"""Tool selection: before each call, the model is offered only the tools that fit the conversation."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import ensure_config
from langchain_core.tools import BaseTool

from langchain_crossrerank.agents.history import with_history
from langchain_crossrerank.checks import check_whole_numbers
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra, missing_modules
from langchain_crossrerank.reranker import CrossEncoderReranker

if TYPE_CHECKING:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse

    _Middleware = AgentMiddleware[Any, Any, Any]
elif missing_modules("agents", ("langchain",)):
    # The class can be imported without the extra; its constructor says which one it needs.
    _Middleware = object
else:
    from langchain.agents.middleware import AgentMiddleware as _Middleware

_QUERY_TOKENS = 96
_NAME = "tool"


class RerankToolSelector(_Middleware):
    """Offer the model only the tools that a cross-encoder ranks highest for the conversation.

    The interface is that of LangChain's `LLMToolSelectorMiddleware`, without the call to a language model:
    `create_agent(model, tools, middleware=[RerankToolSelector(max_tools=5)])`. Each selection is a run of its own in
    traces, with the scores of all tools. Tools that were called since the last human message stay, and so do tools that
    the provider runs, which are passed as dicts.

    Args:
        model: The cross-encoder; see `CrossEncoderReranker.model`. The default is the one that
            `benchmarks/tool_selection.py` measures.
        max_tools: The most tools to choose.
        always_include: Names of tools to offer in any case; they do not count against `max_tools`.
        min_tools: Choose only if there are at least this many tools to choose from; by default
            `max_tools + 1`.

    Raises:
        MissingExtraError: If langchain, from the `agents` extra, is not installed.
        InvalidInputError: If a number is not valid; during a call, if `always_include` names a tool that is missing.
    """

    def __init__(
        self,
        *,
        model: BaseCrossEncoder | str | os.PathLike[str] = "bundled",
        max_tools: int = 5,
        always_include: Sequence[str] = (),
        min_tools: int | None = None,
    ) -> None:
        check_extra("agents", needed_for="selecting tools", modules=("langchain",))
        super().__init__()
        check_whole_numbers(max_tools=(max_tools, 1))
        if min_tools is not None:
            check_whole_numbers(min_tools=(min_tools, 1))
        self.max_tools = max_tools
        self.always_include = list(always_include)
        self.min_tools = max_tools + 1 if min_tools is None else min_tools
        self.reranker = CrossEncoderReranker(model=model, top_n=max_tools, drop_duplicates=False)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model with the tools that fit."""
        choice = self._choice(request)
        if choice is None:
            return handler(request)
        best = self.reranker.with_config(run_name="select_tools").invoke(choice, ensure_config())
        return handler(self._narrowed(request, best))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Call the model with the tools that fit, without blocking the event loop."""
        choice = self._choice(request)
        if choice is None:
            return await handler(request)
        best = await self.reranker.with_config(run_name="select_tools").ainvoke(choice, ensure_config())
        return await handler(self._narrowed(request, best))

    def _choice(self, request: ModelRequest[Any]) -> Any:
        """The query and the tools to rank, as a reranker's input; `None` if there is nothing to choose."""
        tools = [tool for tool in request.tools if isinstance(tool, BaseTool)]
        missing = set(self.always_include) - {tool.name for tool in tools}
        if missing:
            raise InvalidInputError(
                f"always_include names {sorted(missing)}, but the agent has no such tool; it has "
                f"{sorted(tool.name for tool in tools)}."
            )
        candidates = [tool for tool in tools if tool.name not in self.always_include]
        query = conversation_query(request.messages)
        if len(candidates) < max(self.min_tools, self.max_tools + 1) or not query:
            return None
        documents = [Document(describe_tool(tool), metadata={_NAME: tool.name}) for tool in candidates]
        return {"query": query, "documents": documents}

    def _narrowed(self, request: ModelRequest[Any], best: Sequence[Document]) -> ModelRequest[Any]:
        chosen = {*self.always_include, *_called(request.messages), *(document.metadata[_NAME] for document in best)}
        tools = [tool for tool in request.tools if not isinstance(tool, BaseTool) or tool.name in chosen]
        return request.override(tools=tools)


def describe_tool(tool: BaseTool) -> str:
    """Return what the cross-encoder reads of a tool: the words of its name, and its description."""
    name = " ".join(tool.name.replace("_", " ").replace("-", " ").split())
    return f"{name}: {tool.description}"


def conversation_query(messages: Sequence[AnyMessage]) -> str:
    """Return what the user wants: the last human message, with earlier ones where it refers to them; `""` if none."""
    asked = [message for message in messages if isinstance(message, HumanMessage) and message.text.strip()]
    if not asked:
        return ""
    return with_history(asked[-1].text.strip(), asked[:-1], max_tokens=_QUERY_TOKENS)


def _called(messages: Sequence[AnyMessage]) -> list[str]:
    """Names of the tools that were called since the last human message, which the model may need again."""
    names: list[str] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage):
            names += [call["name"] for call in message.tool_calls]
    return names
