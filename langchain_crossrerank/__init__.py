"""Two-stage retrieval for LangChain: a first stage finds candidates, a cross-encoder puts the right ones first.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_crossrerank.chains import create_rag_chain
    from langchain_crossrerank.cross_encoders import CrossEncoder, load_cross_encoder
    from langchain_crossrerank.errors import CrossRerankError
    from langchain_crossrerank.evaluation import Comparison, compare, evaluate, profile, sweep
    from langchain_crossrerank.indexing import index_files, load_embeddings
    from langchain_crossrerank.reranker import CrossEncoderReranker
    from langchain_crossrerank.retrievers import create_rerank_retriever, retrieve_and_rerank

__all__ = [
    "Comparison",
    "CrossEncoder",
    "CrossEncoderReranker",
    "CrossRerankError",
    "compare",
    "create_rag_chain",
    "create_rerank_retriever",
    "evaluate",
    "index_files",
    "load_cross_encoder",
    "load_embeddings",
    "profile",
    "retrieve_and_rerank",
    "sweep",
]

_HOME = {
    "Comparison": "evaluation",
    "CrossEncoder": "cross_encoders",
    "CrossEncoderReranker": "reranker",
    "CrossRerankError": "errors",
    "compare": "evaluation",
    "create_rag_chain": "chains",
    "create_rerank_retriever": "retrievers",
    "evaluate": "evaluation",
    "index_files": "indexing",
    "load_cross_encoder": "cross_encoders",
    "load_embeddings": "indexing",
    "profile": "evaluation",
    "retrieve_and_rerank": "retrievers",
    "sweep": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("langchain-crossrerank")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
