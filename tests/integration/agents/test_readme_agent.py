"""The README's agent answers from the PDF with sources, and says when the PDF has no answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain.agents", reason="needs the agents extra")
pytest.importorskip("langchain_chroma", reason="needs the rag extra")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_crossrerank import create_rerank_retriever, index_files
from langchain_crossrerank.agents.tool import NO_RELEVANT_PASSAGE

ROOT = Path(__file__).parents[3]
PDF = ROOT / "notebooks" / "data" / "llm_fundamentals.pdf"


class SearchingModel(BaseChatModel):
    """Searches for the question as it was asked, and then repeats what it found, or says that there is nothing."""

    @property
    def _llm_type(self) -> str:
        return "searching"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Any tools will do."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if not isinstance(last, ToolMessage):
            call = {"name": "search_documents", "args": {"query": last.text}, "id": "1", "type": "tool_call"}
            message = AIMessage("", tool_calls=[call])
        elif last.text == NO_RELEVANT_PASSAGE:
            message = AIMessage("The documents do not say.")
        else:
            message = AIMessage(last.text)
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.fixture(scope="module")
def agent() -> Any:
    """The agent of the README's block, with a scripted chat model."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.+?)```", readme, re.DOTALL) if "create_agent" in block]
    assert len(block.strip().splitlines()) <= 10
    report = index_files(PDF, embeddings="bundled")
    namespace: dict[str, Any] = {
        "retriever": create_rerank_retriever(report.vector_store, model="bundled", top_n=5),
        "ChatOpenAI": lambda **settings: SearchingModel(),
    }
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace["agent"]


@pytest.mark.parametrize(
    ("question", "wording"),
    [
        ("How does QLoRA reduce memory?", "from 16 bits to 4 bits"),
        ("Why is a cross-encoder slower?", "requires its own complete pass"),
        ("What does the k1 parameter of BM25 control?", "how quickly the score saturates"),
    ],
)
def test_the_agent_answers_with_sources(agent: Any, question: str, wording: str) -> None:
    """The answer has the right passage, with the file and the page."""
    answer = agent.invoke({"messages": [("human", question)]})["messages"][-1].text
    assert wording in " ".join(answer.split())
    assert re.match(r"\[1\] \(llm_fundamentals\.pdf, page \d+; score 0\.\d\d\)", answer)


def test_the_agent_refuses_what_is_off_topic(agent: Any) -> None:
    """A question that the document does not answer reaches the model as that, and not as passages."""
    answer = agent.invoke({"messages": [("human", "What is the capital of Australia?")]})["messages"][-1].text
    assert answer == "The documents do not say."
