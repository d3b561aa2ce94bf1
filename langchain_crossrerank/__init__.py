"""Two-stage retrieval for LangChain: a first stage finds candidates, a cross-encoder puts the right ones first.

The public names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_crossrerank.agents.gate import RelevanceGate as RelevanceGate
    from langchain_crossrerank.agents.history import create_history_query as create_history_query
    from langchain_crossrerank.agents.tool import create_rerank_tool as create_rerank_tool
    from langchain_crossrerank.agents.tool_selection import RerankToolSelector as RerankToolSelector
    from langchain_crossrerank.chains import create_rag_chain as create_rag_chain
    from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder as RemoteCrossEncoder
    from langchain_crossrerank.cross_encoders.base import CrossEncoder as CrossEncoder
    from langchain_crossrerank.cross_encoders.loading import load_cross_encoder as load_cross_encoder
    from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder as WrapperCrossEncoder
    from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder as CachedCrossEncoder
    from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder as CascadeCrossEncoder
    from langchain_crossrerank.cross_encoders.wrappers.score_caches import ScoreCache as ScoreCache
    from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder as WindowedCrossEncoder
    from langchain_crossrerank.embeddings import load_embeddings as load_embeddings
    from langchain_crossrerank.errors import (
        AnswerError as AnswerError,
    )
    from langchain_crossrerank.errors import (
        CrossRerankError as CrossRerankError,
    )
    from langchain_crossrerank.errors import (
        IndexingError as IndexingError,
    )
    from langchain_crossrerank.errors import (
        InvalidInputError as InvalidInputError,
    )
    from langchain_crossrerank.errors import (
        MissingExtraError as MissingExtraError,
    )
    from langchain_crossrerank.errors import (
        ModelError as ModelError,
    )
    from langchain_crossrerank.errors import (
        ModelNotFoundError as ModelNotFoundError,
    )
    from langchain_crossrerank.errors import (
        OverloadedError as OverloadedError,
    )
    from langchain_crossrerank.errors import (
        RemoteError as RemoteError,
    )
    from langchain_crossrerank.errors import (
        RerankTimeoutError as RerankTimeoutError,
    )
    from langchain_crossrerank.errors import (
        ScoringError as ScoringError,
    )
    from langchain_crossrerank.errors import (
        TrainingError as TrainingError,
    )
    from langchain_crossrerank.errors import (
        UnsupportedModelError as UnsupportedModelError,
    )
    from langchain_crossrerank.evaluation import (
        Comparison as Comparison,
    )
    from langchain_crossrerank.evaluation import (
        EvaluationResult as EvaluationResult,
    )
    from langchain_crossrerank.evaluation import (
        ProfileResult as ProfileResult,
    )
    from langchain_crossrerank.evaluation import (
        SweepResult as SweepResult,
    )
    from langchain_crossrerank.evaluation import (
        compare as compare,
    )
    from langchain_crossrerank.evaluation import (
        evaluate as evaluate,
    )
    from langchain_crossrerank.evaluation import (
        profile as profile,
    )
    from langchain_crossrerank.evaluation import (
        sweep as sweep,
    )
    from langchain_crossrerank.indexing import index_files as index_files
    from langchain_crossrerank.reranker import CrossEncoderReranker as CrossEncoderReranker
    from langchain_crossrerank.retrievers import (
        create_rerank_retriever as create_rerank_retriever,
    )
    from langchain_crossrerank.retrievers import (
        retrieve_and_rerank as retrieve_and_rerank,
    )

_PUBLIC = {
    "agents.gate": ("RelevanceGate",),
    "agents.history": ("create_history_query",),
    "agents.tool": ("create_rerank_tool",),
    "agents.tool_selection": ("RerankToolSelector",),
    "chains": ("create_rag_chain",),
    "cross_encoders.backends.remote.client": ("RemoteCrossEncoder",),
    "cross_encoders.base": ("CrossEncoder",),
    "cross_encoders.loading": ("load_cross_encoder",),
    "cross_encoders.wrappers.base": ("WrapperCrossEncoder",),
    "cross_encoders.wrappers.cached": ("CachedCrossEncoder",),
    "cross_encoders.wrappers.cascade": ("CascadeCrossEncoder",),
    "cross_encoders.wrappers.score_caches": ("ScoreCache",),
    "cross_encoders.wrappers.windowed": ("WindowedCrossEncoder",),
    "errors": (
        "AnswerError",
        "CrossRerankError",
        "IndexingError",
        "InvalidInputError",
        "MissingExtraError",
        "ModelError",
        "ModelNotFoundError",
        "OverloadedError",
        "RemoteError",
        "RerankTimeoutError",
        "ScoringError",
        "TrainingError",
        "UnsupportedModelError",
    ),
    "evaluation": (
        "Comparison",
        "EvaluationResult",
        "ProfileResult",
        "SweepResult",
        "compare",
        "evaluate",
        "profile",
        "sweep",
    ),
    "embeddings": ("load_embeddings",),
    "indexing": ("index_files",),
    "reranker": ("CrossEncoderReranker",),
    "retrievers": ("create_rerank_retriever", "retrieve_and_rerank"),
}
"""The public names by the module that defines them."""

_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - computed from the one table


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("langchain-crossrerank")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
