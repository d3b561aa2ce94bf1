"""A chat model whose messages follow a script, and that notes the tools it was offered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field


class ScriptedChatModel(GenericFakeChatModel):
    """Says one message after the other.

    Attributes:
        offered: The names of the tools of each call.
        seen: The messages of each call.
    """

    disable_streaming: bool = True
    offered: list[list[str]] = Field(default_factory=list)
    seen: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Sequence[BaseTool], **kwargs: Any) -> Any:
        """Note the tools."""
        self.offered.append([tool.name for tool in tools])
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.append(messages)
        return super()._generate(messages, *args, **kwargs)


def scripted(*messages: AIMessage | str) -> ScriptedChatModel:
    """Make a model of the messages that it says."""
    script: Iterator[AIMessage | str] = iter(messages)
    return ScriptedChatModel(messages=script)


def calls(tool: str, **arguments: Any) -> AIMessage:
    """Make the message that calls a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{tool}", "type": "tool_call"}])
