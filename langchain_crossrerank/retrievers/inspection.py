"""Finds the reranker and the candidates inside a reranking retriever, however it is wrapped."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase, RunnableSequence
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.compressors import AdaptedCompressor
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.reranker import CrossEncoderReranker
from langchain_crossrerank.retrievers.first_stages import CallArguments, prepare


def find_reranker(holder: object, config: RunnableConfig | None = None) -> CrossEncoderReranker | None:
    """Return the reranker inside a retriever, a document compressor or a Runnable.

    Bindings, retries, fallbacks (the first with a reranker), configurable fields and alternatives (as `config` sets
    them), compressor pipelines and sequences (the last reranker) are looked through.

    Args:
        holder: What to look into.
        config: LangChain run configuration.

    Returns:
        The reranker, with the fields that are bound to it; `None` if there is none.
    """
    if isinstance(holder, CrossEncoderReranker):
        return holder
    if isinstance(holder, DynamicRunnable):
        prepared, merged = holder.prepare(config)
        return find_reranker(prepared, merged)
    if isinstance(holder, RunnableBindingBase):
        reranker = find_reranker(holder.bound, merge_configs(holder.config, config))
        fields = {name: value for name, value in holder.kwargs.items() if name in CrossEncoderReranker.model_fields}
        return reranker if reranker is None or not fields else reranker.with_fields(**fields)
    for part in _holders_in(holder):
        reranker = find_reranker(part, config)
        if reranker is not None:
            return reranker
    return None


def fetch_candidates(
    retriever: object, query: str, config: RunnableConfig | None = None, **kwargs: Any
) -> list[Document]:
    """Return the candidates that a reranking retriever gives its reranker.

    Args:
        retriever: A `ContextualCompressionRetriever` with a reranker inside, or a Runnable around one.
        query: The search text.
        config: LangChain run configuration.
        **kwargs: Arguments of the first stage for this call, for example `k`.

    Raises:
        InvalidInputError: If `retriever` is not such a retriever, or its first stage does not take an argument.
    """
    if isinstance(retriever, DynamicRunnable):
        prepared, merged = retriever.prepare(config)
        return fetch_candidates(prepared, query, merged, **kwargs)
    if isinstance(retriever, RunnableBindingBase):
        merged = merge_configs(retriever.config, config)
        return fetch_candidates(retriever.bound, query, merged, **{**retriever.kwargs, **kwargs})
    if isinstance(retriever, RunnableWithFallbacks):
        return fetch_candidates(retriever.runnable, query, config, **kwargs)
    base, compressor = getattr(retriever, "base_retriever", None), getattr(retriever, "base_compressor", None)
    if not isinstance(base, Runnable):
        raise InvalidInputError(
            f"retriever is {shorten(retriever)}, which does not rerank; pass what create_rerank_retriever returns."
        )
    fetch = getattr(retriever, "fetch", None)
    if callable(fetch):
        documents: list[Document] = fetch(query, config, **kwargs)
    else:
        stage = prepare(base, CallArguments(default_k=None).over(kwargs), ensure_config(config))
        documents = list(stage.runnable.invoke(query, config))
    return _transformed(documents, query, compressor)


def _holders_in(holder: object) -> list[object]:
    """Return what may hold the reranker, the likeliest first."""
    if isinstance(holder, RunnableWithFallbacks):
        return [holder.runnable, *holder.fallbacks]
    if isinstance(holder, RunnableSequence):
        return list(reversed(holder.steps))
    if isinstance(holder, AdaptedCompressor):
        return [holder.adapted]
    if hasattr(holder, "base_compressor"):
        return [holder.base_compressor, getattr(holder, "base_retriever", None)]
    transformers = getattr(holder, "transformers", None)
    return list(reversed(transformers)) if isinstance(transformers, list) else []


def _transformed(documents: list[Document], query: str, compressor: object) -> list[Document]:
    """Apply the steps of a compressor pipeline that come before its reranker."""
    transformers = getattr(compressor, "transformers", None)
    if not isinstance(transformers, list):
        return documents
    last = max((place for place, step in enumerate(transformers) if find_reranker(step) is not None), default=0)
    for step in transformers[:last]:
        if isinstance(step, BaseDocumentCompressor):
            documents = list(step.compress_documents(documents, query))
        elif isinstance(step, BaseDocumentTransformer):
            documents = list(step.transform_documents(documents))
    return documents
