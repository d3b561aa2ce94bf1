"""The reranker: a LangChain document compressor and a Runnable over any cross-encoder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun, Callbacks
from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config, merge_configs
from pydantic import ConfigDict, Field, PrivateAttr, field_validator
from typing_extensions import TypedDict

from langchain_crossrerank.cross_encoders import (
    DEFAULT_MODEL,
    Backend,
    CrossEncoder,
    PairScore,
    TextPair,
    as_cross_encoder,
    load_cross_encoder,
)
from langchain_crossrerank.cross_encoders.base import check_query, shorten
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.passages import check_template, render_passage

RELEVANCE_SCORE = "relevance_score"
"""Metadata key of the cross-encoder's score, a plain float."""

INITIAL_RANK = "initial_rank"
"""Metadata key of the place, counted from 1, that the first stage gave."""


class RerankInput(TypedDict):
    """What the reranker takes as a Runnable."""

    query: str
    documents: Iterable[Document]


class CrossEncoderReranker(BaseDocumentCompressor, RunnableSerializable[RerankInput, list[Document]]):
    """Order documents by a cross-encoder's score and keep the best.

    Use it as `base_compressor` of a `ContextualCompressionRetriever`, or in an LCEL chain:
    `{"query": RunnablePassthrough(), "documents": retriever} | reranker`.

    Every document kept is a copy of the caller's with two metadata keys more: `relevance_score` (float) and
    `initial_rank` (from 1). Equal scores keep the order in which the documents came. Each call is a run of its own
    in callbacks and traces: inputs and documents with their scores, the model's name in the run's metadata, and the
    scores of all candidates in a custom event named `rerank_scores`.
    """

    model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL
    """Any LangChain cross-encoder; or `"bundled"`, a folder or a hub name, loaded at the first use."""

    top_n: int | None = Field(default=3, ge=1)
    """Documents to keep; `None` keeps all."""

    score_threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Keep documents with `score >= score_threshold`, in the unit of the model's scores; `None` keeps all."""

    passage_template: str | None = None
    """Text that the model reads for a document, for example `"{title}: {page_content}"`, filled from metadata;
    `None` is the page content alone."""

    backend: Backend = "auto"
    """Backend for a model given by name; see `load_cross_encoder`."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `load_cross_encoder` for a model given by name."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    _loaded: CrossEncoder | None = PrivateAttr(default=None)

    @field_validator("passage_template")
    @classmethod
    def _check_passage_template(cls, template: str | None) -> str | None:
        return template if template is None else check_template(template)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """A reranker may hold a loaded model, which LangChain's own serialisation cannot write."""
        return False

    @property
    def cross_encoder(self) -> CrossEncoder:
        """The model, loaded now if it was not.

        Raises:
            CrossRerankError: What `load_cross_encoder` raises for a model given by name.
        """
        if self._loaded is None:
            if isinstance(self.model, BaseCrossEncoder):
                self._loaded = as_cross_encoder(self.model)
            else:
                self._loaded = load_cross_encoder(self.model, backend=self.backend, **self.model_kwargs)
        return self._loaded

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents.

        Args:
            documents: The candidates, in the first stage's order; left as they are.
            query: The search text.
            callbacks: LangChain callbacks; the rerank is a child run in them.

        Returns:
            Copies of the best documents, best first, with `relevance_score` and `initial_rank` in their metadata.

        Raises:
            InvalidInputError: If the query is blank or no string, or an element is no `Document`.
            ScoringError: If the model fails or gives unusable scores.
        """
        return self.invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents without blocking the event loop; see `compress_documents`."""
        return await self.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Rerank `input["documents"]` for `input["query"]`; see `compress_documents`."""
        return self._call_with_config(self._rerank, _materialised(input), self._traced(config), **kwargs)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Rerank without blocking the event loop; see `compress_documents`."""
        return await self._acall_with_config(self._arerank, _materialised(input), self._traced(config), **kwargs)

    def _rerank(self, input: RerankInput, run_manager: CallbackManagerForChainRun) -> list[Document]:
        documents = list(input["documents"])
        if not documents:
            return []
        scores = drain(self.cross_encoder.score_steps(self._text_pairs(input["query"], documents)))
        if run_manager.handlers:
            dispatch_custom_event("rerank_scores", self._event(scores), config={"callbacks": run_manager.get_child()})
        return self._select(documents, scores)

    async def _arerank(self, input: RerankInput, run_manager: AsyncCallbackManagerForChainRun) -> list[Document]:
        documents = list(input["documents"])
        if not documents:
            return []
        if self._loaded is None:
            from langchain_core.runnables import run_in_executor

            await run_in_executor(None, lambda: self.cross_encoder)
        scores = await self.cross_encoder.ascore_pairs(self._text_pairs(input["query"], documents))
        if run_manager.handlers:
            event = self._event(scores)
            await adispatch_custom_event("rerank_scores", event, config={"callbacks": run_manager.get_child()})
        return self._select(documents, scores)

    def _text_pairs(self, query: str, documents: Sequence[Document]) -> list[TextPair]:
        return [(query, render_passage(document, self.passage_template)) for document in documents]

    def _select(self, documents: Sequence[Document], scores: Sequence[PairScore]) -> list[Document]:
        order = sorted(range(len(documents)), key=lambda position: -scores[position].score)
        if self.score_threshold is not None:
            order = [position for position in order if scores[position].score >= self.score_threshold]
        return [_scored(documents[position], scores[position], position + 1) for position in order[: self.top_n]]

    def _traced(self, config: RunnableConfig | None) -> RunnableConfig:
        model = self._loaded.name if self._loaded is not None else self.model
        if isinstance(model, BaseCrossEncoder):
            model = as_cross_encoder(model).name
        return merge_configs(ensure_config(config), {"metadata": {"cross_encoder": os.fspath(model)}})

    def _event(self, scores: Sequence[PairScore]) -> dict[str, Any]:
        return {"model": self.cross_encoder.name, "scores": [scored.score for scored in scores]}


def _materialised(input: Any) -> RerankInput:
    """Check a Runnable's input and make a list of its documents, once."""
    if not isinstance(input, dict) or not {"query", "documents"} <= input.keys():
        raise InvalidInputError(f'the reranker got {shorten(input)}; pass {{"query": ..., "documents": [...]}}.')
    query = check_query(input["query"])
    documents = input["documents"]
    if isinstance(documents, str | bytes | Document) or not isinstance(documents, Iterable):
        raise InvalidInputError(f"documents is {shorten(documents)}; pass a list of LangChain Document objects.")
    documents = list(documents)
    for position, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InvalidInputError(
                f"documents[{position}] is {shorten(document)} of type {type(document).__name__}; "
                "pass langchain_core.documents.Document objects."
            )
    return {"query": query, "documents": documents}


def _scored(document: Document, scored: PairScore, initial_rank: int) -> Document:
    metadata = {**document.metadata, RELEVANCE_SCORE: scored.score, INITIAL_RANK: initial_rank}
    return document.model_copy(update={"metadata": metadata})
