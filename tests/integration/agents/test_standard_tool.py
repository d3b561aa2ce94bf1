"""The rerank tool under LangChain's standard tests of tools."""

from __future__ import annotations

from typing import Any

import pytest

tools = pytest.importorskip("langchain_tests.unit_tests", reason="needs langchain-tests")

from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402
from langchain_core.tools import BaseTool  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402
from langchain_tests.integration_tests import ToolsIntegrationTests  # noqa: E402
from langchain_tests.unit_tests import ToolsUnitTests  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from langchain_crossrerank import create_rerank_tool  # noqa: E402
from langchain_crossrerank.testing import FakeCrossEncoder  # noqa: E402


class Filters(BaseModel):
    """An argument of the tool."""

    topic: str | None = None


def make_tool() -> BaseTool:
    """A tool over two passages."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_texts(["LoRA trains two small matrices.", "Bread rises."], [{"topic": "models"}, {"topic": "food"}])
    return create_rerank_tool(store, model=FakeCrossEncoder(), min_probability=0.5, filters=Filters)


class _Rerank:
    @property
    def tool_constructor(self) -> BaseTool:
        return make_tool()

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "LoRA matrices", "topic": "models"}


class TestUnit(_Rerank, ToolsUnitTests):
    """Name, schema and arguments."""


class TestIntegration(_Rerank, ToolsIntegrationTests):
    """Calls with and without a tool call, sync and async."""
