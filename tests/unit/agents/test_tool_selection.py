"""The middleware that selects tools."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("langchain.agents", reason="needs the agents extra")

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tracers.event_stream import StreamEvent

from langchain_crossrerank import RerankToolSelector
from langchain_crossrerank.agents.tool_selection import conversation_query, describe_tool
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.integration.agents.scripted_model import calls, scripted

DESCRIPTIONS = {
    "get_weather": "Weather forecast for a city: rain and temperature.",
    "book_flight": "Book a flight between two cities.",
    "send_email": "Send an email to a person.",
    "play_music": "Play a song.",
    "set_alarm": "Ring at a time of day.",
}
PROVIDER_TOOL = {"type": "web_search"}


def tools() -> list[BaseTool]:
    """Five tools that return their name."""

    def make(name: str, description: str) -> BaseTool:
        def run(text: str = "") -> str:
            return name

        return StructuredTool.from_function(run, name=name, description=description)

    return [make(name, description) for name, description in DESCRIPTIONS.items()]


def offered(selector: RerankToolSelector, *messages: Any, extra: Any = ()) -> list[str]:
    """The names of the tools that the model is offered, dicts by their type."""
    seen: list[Any] = []

    def handler(request: ModelRequest[Any]) -> Any:
        seen.extend(request.tools)
        return SimpleNamespace()

    request = ModelRequest(model=scripted(), messages=list(messages), tools=[*tools(), *extra])
    selector.wrap_model_call(request, handler)
    return [tool["type"] if isinstance(tool, dict) else tool.name for tool in seen]


def selector(**settings: Any) -> RerankToolSelector:
    """A selector whose model counts common words."""
    return RerankToolSelector(model=FakeCrossEncoder(), **settings)


def test_the_best_tools_are_offered_in_their_order() -> None:
    """Only `max_tools` remain, in the order in which the agent has them."""
    message = HumanMessage("Send an email about the weather forecast for the city")
    assert offered(selector(max_tools=2), message) == ["get_weather", "send_email"]


def test_tools_to_include_come_on_top() -> None:
    """Tools that are always included do not count, and neither do those of the provider."""
    message = HumanMessage("What is the weather forecast for the city?")
    chosen = offered(selector(max_tools=1, always_include=["set_alarm"]), message, extra=[PROVIDER_TOOL])
    assert chosen == ["get_weather", "set_alarm", "web_search"]


@pytest.mark.parametrize("settings", [{"max_tools": 5}, {"max_tools": 2, "min_tools": 6}])
def test_few_tools_are_all_offered(settings: dict[str, Any]) -> None:
    """Nothing is chosen if there are no more tools than wanted, or fewer than `min_tools`."""
    assert offered(selector(**settings), HumanMessage("Play a song")) == list(DESCRIPTIONS)


def test_a_tool_in_use_stays() -> None:
    """A tool that was called since the last human message may be needed again."""
    messages = [
        HumanMessage("Play a song"),
        calls("book_flight"),
        ToolMessage("booked", tool_call_id="call-book_flight"),
    ]
    assert offered(selector(max_tools=1), *messages) == ["book_flight", "play_music"]
    assert offered(selector(max_tools=1), *messages, HumanMessage("Play a song")) == ["play_music"]


def test_a_follow_up_is_ranked_with_what_it_refers_to() -> None:
    """The query is the last human message, with the one before it where it refers to that."""
    messages = [HumanMessage("Play the song Blue."), AIMessage("Playing."), HumanMessage("Play it again.")]
    assert conversation_query(messages) == "Play the song Blue. Play it again."
    assert conversation_query([AIMessage("Hello")]) == ""
    assert offered(selector(max_tools=1), AIMessage("Hello")) == list(DESCRIPTIONS)


def test_a_tool_is_described_by_name_and_description() -> None:
    """The words of the name count, because descriptions are often short."""
    assert describe_tool(tools()[0]) == "get weather: Weather forecast for a city: rain and temperature."


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_agent_is_offered_the_selection(*, is_async: bool) -> None:
    """In `create_agent` the model is called with the chosen tools, and those that it calls run."""
    model = scripted(calls("get_weather", text="Oslo"), "Sunny.")
    agent = create_agent(model, tools(), middleware=[selector(max_tools=1)])
    state = {"messages": [("human", "What is the weather forecast for the city?")]}
    result = await agent.ainvoke(state) if is_async else agent.invoke(state)
    assert model.offered == [["get_weather"]] * 2
    assert [message.text for message in result["messages"]][2:] == ["get_weather", "Sunny."]


async def test_the_selection_is_traced() -> None:
    """Each selection is a run with the scores of the tools."""
    agent = create_agent(scripted("Hello."), tools(), middleware=[selector(max_tools=1)])
    state = {"messages": [("human", "What is the weather forecast for the city?")]}
    events: list[StreamEvent] = [event async for event in agent.astream_events(state, version="v2")]
    (scores,) = [event for event in events if event["name"] == "rerank_scores" and event["event"] == "on_chain_end"]
    assert len(scores["data"]["output"]["scores"]) == len(DESCRIPTIONS)
    assert [event for event in events if event["name"] == "select_tools" and event["event"] == "on_chain_end"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_tools": 0}, "max_tools is 0"), ({"min_tools": "all"}, "min_tools is 'all'")],
)
def test_wrong_settings_are_errors(settings: dict[str, Any], message: str) -> None:
    """The message names the setting."""
    with pytest.raises(InvalidInputError, match=message):
        selector(**settings)


def test_an_unknown_tool_to_include_is_an_error() -> None:
    """A misspelt name would otherwise be dropped in silence."""
    with pytest.raises(InvalidInputError, match="always_include names \\['sent_email'\\]"):
        offered(selector(max_tools=1, always_include=["sent_email"]), HumanMessage("Play a song"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without langchain the class is there, and its constructor names the extra."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"langchain-crossrerank\[agents\]"):
        RerankToolSelector()
