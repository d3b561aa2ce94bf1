"""The ways to call a reranker, what tests give it, and what records its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import numpy as np
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.testing import ScriptedCrossEncoder

Rerank = Callable[..., list[Document]]


CALLS: dict[str, Rerank] = {
    "compress_documents": lambda reranker, documents, query="q", callbacks=None: reranker.compress_documents(
        documents, query, callbacks
    ),
    "acompress_documents": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.acompress_documents(documents, query, callbacks)
    ),
    "invoke": lambda reranker, documents, query="q", callbacks=None: reranker.invoke(
        {"query": query, "documents": documents}, {"callbacks": callbacks}
    ),
    "ainvoke": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})
    ),
    "batch": lambda reranker, documents, query="q", callbacks=None: reranker.batch(
        [{"query": query, "documents": documents}], {"callbacks": callbacks}
    )[0],
    "abatch": lambda reranker, documents, query="q", callbacks=None: asyncio.run(
        reranker.abatch([{"query": query, "documents": documents}], {"callbacks": callbacks})
    )[0],
}


class StockCrossEncoder(BaseCrossEncoder):
    """What LangChain's own wrappers look like: nothing but `score`, and numpy floats out of it."""

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score by the passage's length."""
        return list(np.array([len(passage) for _, passage in text_pairs], dtype=np.float32))


class Recorder(BaseCallbackHandler):
    """Writes down the runs that a tracer would see."""

    raise_error = True

    def __init__(self) -> None:
        self.runs: dict[UUID, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a chain's start."""
        self.runs[run_id] = {"id": run_id, "parent": parent_run_id, "inputs": inputs, **kwargs}

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a retriever's start."""
        self.runs[run_id] = {"id": run_id, "parent": parent_run_id, "inputs": query, **kwargs}

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a chain's result."""
        self.runs[run_id]["outputs"] = outputs

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note a chain's failure."""
        self.runs[run_id]["error"] = error

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note an event."""
        self.events.append({"name": name, "data": data, "run": run_id})

    def named(self, name: str) -> dict[str, Any]:
        """Return the one run of this name."""
        (run,) = [run for run in self.runs.values() if run["name"] == name]
        return run


def make(scores: dict[str, float], **kwargs: Any) -> CrossEncoderReranker:
    """Make a reranker over scripted scores."""
    return CrossEncoderReranker(model=ScriptedCrossEncoder(scores), **kwargs)


def of(*texts: str) -> list[Document]:
    """Make documents of texts."""
    return [Document(text) for text in texts]


def texts(documents: Iterable[Document]) -> list[str]:
    """Return the documents' texts."""
    return [document.page_content for document in documents]
