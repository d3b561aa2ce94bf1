"""LangGraph checkpointers: documents in the state come back as they were, whichever way they were reranked."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

graph = pytest.importorskip("langgraph.graph", reason="needs langgraph")
memory = pytest.importorskip("langgraph.checkpoint.memory", reason="needs langgraph")
sqlite = pytest.importorskip("langgraph.checkpoint.sqlite", reason="needs langgraph-checkpoint-sqlite")
classic = pytest.importorskip("langchain_classic.retrievers", reason="needs langchain-classic")

from langchain_classic.retrievers.document_compressors import (  # noqa: E402
    DocumentCompressorPipeline,
    EmbeddingsFilter,
)

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever, load_cross_encoder  # noqa: E402
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder  # noqa: E402

EMBEDDINGS = DeterministicFakeEmbedding(size=16)


class State(TypedDict):
    """A question, and the documents found for it."""

    question: str
    documents: list[Document]


def store() -> VectorStore:
    """A store of a few documents, of which one is long."""
    texts = [f"ferry number {number} leaves at nine" for number in range(9)]
    documents = [Document(text, id=str(place), metadata={"n": place}) for place, text in enumerate(texts)]
    filled = InMemoryVectorStore(EMBEDDINGS)
    filled.add_documents([*documents, Document("the ferry " * 700, id="long", metadata={"n": 9})])
    return filled


def windowed(tmp_path: Path) -> Any:
    """A retriever that reads passages in windows."""
    return create_rerank_retriever(store(), model=WindowedCrossEncoder(load_cross_encoder("bundled")), top_n=None)


def failing(tmp_path: Path) -> Any:
    """A retriever whose model cannot be loaded, so that documents keep their order."""
    return create_rerank_retriever(store(), model=str(tmp_path / "missing"), on_error="keep_order", top_n=3)


def filtered(tmp_path: Path) -> Any:
    """A retriever with a filter of LangChain's first, which returns documents of a class of its own."""
    steps = [EmbeddingsFilter(embeddings=EMBEDDINGS, k=5, similarity_threshold=None)]
    pipeline = DocumentCompressorPipeline(transformers=[*steps, CrossEncoderReranker(model="bundled", top_n=3)])
    return classic.ContextualCompressionRetriever(base_compressor=pipeline, base_retriever=store().as_retriever())


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
@pytest.mark.parametrize("make", [windowed, failing, filtered])
def test_documents_come_back_from_a_checkpoint(make: Any, saver: str, tmp_path: Path) -> None:
    """What a node found is read back from the checkpoint as plain documents with the same metadata."""
    retriever = make(tmp_path)
    flow = graph.StateGraph(State)
    flow.add_node("find", lambda state: {"documents": retriever.invoke(state["question"])})
    flow.add_edge(graph.START, "find")
    flow.add_edge("find", graph.END)
    kept = (
        memory.InMemorySaver()
        if saver == "memory"
        else sqlite.SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))
    )
    app = flow.compile(checkpointer=kept)
    settings: Any = {"configurable": {"thread_id": "1"}}
    found = app.invoke({"question": "when does the ferry leave"}, settings)["documents"]
    back = app.get_state(settings).values["documents"]
    assert {type(document) for document in back} == {Document}
    assert [(one.id, one.page_content, one.metadata) for one in back] == [
        (one.id, one.page_content, one.metadata) for one in found
    ]
    assert "relevance_score" in back[0].metadata
