"""The MCP server under the SDK's own client, and as a tool of an agent."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the mcp extra")

from langchain_core.documents import Document
from mcp.shared.memory import create_connected_server_and_client_session as connected

from langchain_crossrerank import CrossEncoderReranker, cli, create_rerank_retriever
from langchain_crossrerank.agents.mcp_server import NOTHING_RELEVANT, create_mcp_server
from langchain_crossrerank.cli.mcp import http_app
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.integration.agents.scripted_model import calls, scripted

FERRY = "The ferry to Gotland leaves at seven in the morning."
BREAD = "Bread is baked at night."


def make_server(*, with_files: bool = True, min_probability: float = 0.3) -> Any:
    """A server whose model counts common words."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder())
    found = [
        Document(text, metadata={"source": "/srv/island.pdf", "page": page}) for page, text in enumerate((BREAD, FERRY))
    ]
    retriever = create_rerank_retriever(lambda query: found, model=FakeCrossEncoder(), top_n=None)
    return create_mcp_server(reranker, retriever if with_files else None, min_probability=min_probability)


async def test_rerank_orders_passages() -> None:
    """`rerank` returns the relevant passages with their place and score, as structured content."""
    async with connected(make_server()) as session:
        result = await session.call_tool("rerank", {"query": "When leaves the ferry?", "passages": [BREAD, FERRY]})
    assert not result.isError
    ((passage,), message) = result.structuredContent["passages"], result.structuredContent["message"]
    assert (passage["index"], passage["text"], message) == (1, FERRY, "")
    assert passage["score"] > 0.3


async def test_search_names_source_page_and_score() -> None:
    """`search` returns where each passage is from."""
    async with connected(make_server()) as session:
        result = await session.call_tool("search", {"query": "When leaves the ferry?", "top_n": 1})
    (passage,) = result.structuredContent["passages"]
    assert (passage["text"], passage["source"], passage["page"]) == (FERRY, "island.pdf, page 2", 2)


@pytest.mark.parametrize(
    ("tool", "arguments"), [("rerank", {"passages": [BREAD, FERRY]}), ("rerank", {"passages": []}), ("search", {})]
)
async def test_nothing_relevant_is_said(tool: str, arguments: dict[str, Any]) -> None:
    """Below the threshold there is no passage, and a message says so."""
    async with connected(make_server()) as session:
        result = await session.call_tool(tool, {"query": "quantum chromodynamics lattice", **arguments})
    assert result.structuredContent == {"passages": [], "message": NOTHING_RELEVANT}


async def test_a_failed_model_keeps_the_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `on_error="keep_order"`, both tools return the passages in their order, without a score."""

    def fail(self: FakeCrossEncoder, batch: object) -> list[float]:
        raise ValueError("the model broke")

    monkeypatch.setattr(FakeCrossEncoder, "_score_batch", fail)
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), on_error="keep_order")
    retriever = create_rerank_retriever(
        lambda query: [Document(BREAD), Document(FERRY)], model=FakeCrossEncoder(), on_error="keep_order"
    )
    async with connected(create_mcp_server(reranker, retriever, min_probability=0.3)) as session:
        for tool, arguments in (("rerank", {"passages": [BREAD, FERRY]}), ("search", {})):
            result = await session.call_tool(tool, {"query": "When leaves the ferry?", **arguments})
            passages = result.structuredContent["passages"]
            assert [(passage["text"], passage["score"]) for passage in passages] == [(BREAD, None), (FERRY, None)]


async def test_tools_say_what_they_take() -> None:
    """There is no `search` without files, and both tools have schemas for input and output."""
    async with connected(make_server(with_files=False)) as session:
        (only,) = (await session.list_tools()).tools
        assert only.name == "rerank"
        assert set(only.inputSchema["properties"]) == {"query", "passages", "top_n"}
        assert set(only.outputSchema["properties"]) == {"passages", "message"}
        assert only.annotations.readOnlyHint


@pytest.mark.parametrize("arguments", [{"query": " "}, {"query": ""}, {"query": "ferry", "top_n": 0}])
async def test_wrong_arguments_are_an_error_of_the_call(arguments: dict[str, Any]) -> None:
    """The host is told what was wrong, and the server goes on."""
    async with connected(make_server()) as session:
        assert (await session.call_tool("search", arguments)).isError
        assert not (await session.call_tool("search", {"query": "ferry"})).isError


async def test_a_model_without_a_measured_threshold_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The default threshold is never guessed: everything is returned, and a warning says so."""
    reranker = CrossEncoderReranker(model=ScriptedCrossEncoder({}, default=-9.0))
    with caplog.at_level(logging.WARNING):
        server = create_mcp_server(reranker)
    assert "No threshold was measured for the model 'scripted'" in caplog.text
    async with connected(server) as session:
        result = await session.call_tool("rerank", {"query": "ferry", "passages": [BREAD, FERRY]})
    assert len(result.structuredContent["passages"]) == 2


def test_a_threshold_that_is_not_a_probability_is_refused() -> None:
    """It is an error when the server is made."""
    with pytest.raises(InvalidInputError, match="min_probability is 2"):
        make_server(min_probability=2)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with a file, next to a secret one."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "island.txt").write_text(f"{FERRY}\n\n{BREAD}\n")
    (tmp_path / "secret.txt").write_text("The ferry's password is swordfish.")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


def command(*words: str) -> list[str]:
    """The command that starts the server."""
    return [sys.executable, "-m", "langchain_crossrerank.cli", "mcp", *words]


@pytest.mark.slow
async def test_an_agent_searches_through_the_command(notes: Path) -> None:
    """One command on standard input and output is all an agent needs, and only the given folder is searched."""
    adapters = pytest.importorskip("langchain_mcp_adapters.client", reason="needs langchain-mcp-adapters")
    agents = pytest.importorskip("langchain.agents", reason="needs the agents extra")
    program, *words = command(str(notes), "--offline")
    connection = {"transport": "stdio", "command": program, "args": words, "env": dict(os.environ)}
    tools = await adapters.MultiServerMCPClient({"crossrerank": connection}).get_tools()
    assert {tool.name for tool in tools} == {"rerank", "search"}
    model = scripted(calls("search", query="When does the ferry to Gotland leave?"), "At seven. (island.txt)")
    agent = agents.create_agent(model, tools)
    state = await agent.ainvoke({"messages": [("human", "When does the ferry leave?")]})
    result = state["messages"][2]
    found = result.artifact["structured_content"]["passages"]
    assert FERRY in found[0]["text"]
    assert found[0]["source"] == "island.txt"
    assert "swordfish" not in str(result.content)


@pytest.fixture
def http_server() -> Iterator[str]:
    """The command with `--http` on a free port: the address of its protocol."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command("--offline", "--http", "--port", str(port)), stderr=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        for _ in range(600):
            assert process.poll() is None
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
async def test_the_command_listens_on_loopback_http(http_server: str) -> None:
    """`--http` serves the same tools over streamable HTTP."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    arguments = {"query": "When does the ferry to Gotland leave?", "passages": [BREAD, FERRY]}
    async with streamable_http_client(http_server) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        result = await session.call_tool("rerank", arguments)
    assert result.structuredContent["passages"][0]["text"] == FERRY


def test_over_http_a_key_is_needed_where_there_is_one() -> None:
    """Without it, other users of the machine cannot search the files."""
    testclient = pytest.importorskip("starlette.testclient", reason="needs httpx")
    key = "a-key-that-is-long-enough"
    with testclient.TestClient(http_app(make_server(), (key,)), base_url="http://127.0.0.1:8765") as client:
        for headers, refused in (({}, True), ({"authorization": "Bearer wrong"}, True), ({"x-api-key": key}, False)):
            assert (client.post("/mcp", json={}, headers=headers).status_code == 401) == refused
    with testclient.TestClient(http_app(make_server(), ()), base_url="http://127.0.0.1:8765") as client:
        assert client.post("/mcp", json={}).status_code != 401


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-probability", "2"], "--min-probability is 2"),
        (["--persist", "index"], "name files"),
        (["missing.pdf", "--offline"], "missing.pdf"),
    ],
)
def test_wrong_calls_are_errors(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call ends before anything is served, and nothing is on standard output."""
    assert cli.main(["mcp", *words]) != 0
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
