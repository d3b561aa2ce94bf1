"""The reranker: a LangChain document compressor and a Runnable over any cross-encoder."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun, Callbacks
from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig, RunnableSerializable, RunnableWithFallbacks, run_in_executor
from langchain_core.runnables.config import ensure_config, merge_configs
from pydantic import ConfigDict, Field, PrivateAttr, field_validator
from typing_extensions import TypedDict

from langchain_crossrerank.blending import Blend, blend_scores
from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL, Backend, load_cross_encoder, without_credentials
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import log_odds
from langchain_crossrerank.errors import InvalidInputError, RerankTimeoutError
from langchain_crossrerank.metadata import (
    BEST_WINDOW,
    INITIAL_RANK,
    INITIAL_SCORE,
    PRUNED,
    RELEVANCE_SCORE,
    RERANK_ERROR,
    RERANKED,
    TRUNCATED,
)
from langchain_crossrerank.passages import check_template, render_passage

_STALE_KEYS = (RELEVANCE_SCORE, BEST_WINDOW, RERANKED, RERANK_ERROR)

_logger = logging.getLogger(__name__)


class RerankInput(TypedDict):
    """What the reranker takes as a Runnable."""

    query: str
    documents: Iterable[Document]


class CrossEncoderReranker(BaseDocumentCompressor, RunnableSerializable[RerankInput, list[Document]]):
    """Order documents by a cross-encoder's score and keep the best.

    Use it as `base_compressor` of a `ContextualCompressionRetriever`, or in an LCEL chain:
    `{"query": RunnablePassthrough(), "documents": retriever} | reranker`.

    Every document kept is a copy of the caller's with two metadata keys more: `relevance_score` (float) and
    `initial_rank` (from 1); `truncated` or `best_window` where the passage was longer than the model reads. Equal
    scores keep the order in which the documents came. Each call is a run of its own in callbacks and traces: inputs and
    documents with their scores, the model's name in the run's metadata, and the scores of all candidates in a custom
    event named `rerank_scores`.
    """

    model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL
    """Any LangChain cross-encoder; or `"bundled"`, a folder, a hub name or a URL, loaded at the first use."""

    top_n: int | None = Field(default=3, ge=1)
    """Documents to keep; `None` keeps all."""

    score_threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Keep documents with `score >= score_threshold`, in the unit of the model's scores; `None` keeps all."""

    min_documents: int = Field(default=0, ge=0)
    """Documents that the threshold leaves at least, the best ones, as far as there are so many and `top_n` allows."""

    blend: Blend | None = None
    """Order by the cross-encoder together with the first stage: `"weighted"` adds the cross-encoder's log-odds and the
    first stage's z-normalised scores, so that the first stage counts where the cross-encoder is unsure; `"rrf"` fuses
    ranks. `None` is the cross-encoder alone. `relevance_score` and the threshold stay the cross-encoder's own."""

    blend_weight: float = Field(default=0.9, ge=0, le=1)
    """Share of the cross-encoder in a blend; the first stage has the rest. The default lets a weak first stage take
    little away; on collections where the first stage is strong, 0.8 may gain more (`sweep` finds out)."""

    initial_score_key: str = INITIAL_SCORE
    """Metadata key of the first stage's score for a weighted blend. Where a candidate lacks it, ranks are used."""

    on_error: Literal["raise", "keep_order"] = "raise"
    """What to do when the model cannot be loaded, fails, gives unusable scores or times out. `"keep_order"` gives the
    first `top_n` candidates in the first stage's order, with `reranked: False` and the reason in metadata, a warning
    in the log and a custom event `rerank_degraded`. A blank query, and what is no document, raise all the same."""

    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that scoring may take, waiting for its turn included; the work then stops at the next batch. Loading
    the model at the first use is not counted. `None` for no limit."""

    passage_template: str | None = None
    """Text that the model reads for a document, for example `"{title}: {page_content}"`, filled from metadata;
    `None` is the page content alone."""

    backend: Backend = "auto"
    """Backend for a model given by name; see `load_cross_encoder`."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `load_cross_encoder` for a model given by name."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), validate_assignment=True
    )

    _loaded: CrossEncoder | None = PrivateAttr(default=None)
    _loaded_for: Any = PrivateAttr(default=None)

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
        if self._loaded is None or not self._is_loaded():
            if isinstance(self.model, BaseCrossEncoder):
                self._loaded = as_cross_encoder(self.model)
            else:
                self._loaded = load_cross_encoder(self.model, backend=self.backend, **self.model_kwargs)
            self._loaded_for = (self.model, self.backend, dict(self.model_kwargs))
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
            ScoringError: If the model fails or gives unusable scores, and `on_error` is `"raise"`.
            RerankTimeoutError: If `timeout` passes, and `on_error` is `"raise"`.
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

    def with_fallbacks(  # type: ignore[override]  # narrower: the result can serve as a compressor too
        self, fallbacks: Sequence[BaseDocumentCompressor], **kwargs: Any
    ) -> RerankerWithFallbacks:
        """Try other rerankers in turn when this one raises; see LangChain's `Runnable.with_fallbacks`.

        Args:
            fallbacks: Rerankers to try, in this order.
            **kwargs: Further arguments of LangChain's method, for example `exceptions_to_handle`.

        Returns:
            A Runnable that is also a document compressor, so that it fits a `ContextualCompressionRetriever`.
        """
        return RerankerWithFallbacks(runnable=self, fallbacks=list(fallbacks), **kwargs)

    def _rerank(self, input: RerankInput, run_manager: CallbackManagerForChainRun) -> list[Document]:
        documents = list(input["documents"])
        if not documents:
            return []
        try:
            scores = self._scores(self.text_pairs(input["query"], documents))
        except Exception as err:
            if self.on_error == "raise":
                raise
            event, result = self._degrade(documents, err)
        else:
            event, result = self._event(scores), self._select(documents, scores)
        if run_manager.handlers:
            dispatch_custom_event(*event, config={"callbacks": run_manager.get_child()})
        return result

    async def _arerank(self, input: RerankInput, run_manager: AsyncCallbackManagerForChainRun) -> list[Document]:
        documents = list(input["documents"])
        if not documents:
            return []
        try:
            scores = await self._ascores(self.text_pairs(input["query"], documents))
        except Exception as err:
            if self.on_error == "raise":
                raise
            event, result = self._degrade(documents, err)
        else:
            event, result = self._event(scores), self._select(documents, scores)
        if run_manager.handlers:
            await adispatch_custom_event(*event, config={"callbacks": run_manager.get_child()})
        return result

    def _is_loaded(self) -> bool:
        """Whether the loaded model is the one that the fields name now."""
        return self._loaded is not None and self._loaded_for == (self.model, self.backend, self.model_kwargs)

    def _scores(self, text_pairs: Sequence[TextPair]) -> list[PairScore]:
        model = self.cross_encoder
        if self.timeout is None:
            return drain(model.score_steps(text_pairs))
        scoring = model.scheduler.submit(model.score_steps(text_pairs))
        try:
            return scoring.result(self.timeout)
        except concurrent.futures.TimeoutError as err:
            if scoring.done():  # the model itself raised a TimeoutError
                raise
            scoring.cancel()
            raise self._timed_out(len(text_pairs)) from err

    async def _ascores(self, text_pairs: Sequence[TextPair]) -> list[PairScore]:
        load_elsewhere = not self._is_loaded()
        model = await run_in_executor(None, lambda: self.cross_encoder) if load_elsewhere else self.cross_encoder
        scoring = asyncio.ensure_future(model.ascore_pairs(text_pairs))
        try:
            done, _ = await asyncio.wait([scoring], timeout=self.timeout)
        finally:
            # Reached with the work unfinished on a timeout, and when the caller's own task is cancelled.
            if not scoring.done():
                scoring.cancel()
        if not done:
            raise self._timed_out(len(text_pairs))
        return scoring.result()

    def _timed_out(self, pairs: int) -> RerankTimeoutError:
        return RerankTimeoutError(
            f"{self.cross_encoder.name!r} did not score {pairs} candidates within timeout={self.timeout} seconds; "
            "rerank fewer candidates, allow more time, or set on_error='keep_order'."
        )

    def text_pairs(self, query: str, documents: Sequence[Document]) -> list[TextPair]:
        """Give the pairs that the model reads for a query and documents, templates filled."""
        return [(query, render_passage(document, self.passage_template)) for document in documents]

    def _select(self, documents: Sequence[Document], scores: Sequence[PairScore]) -> list[Document]:
        sort_by = [scored.score for scored in scores]
        if self.blend is not None:
            logits = [log_odds(score) if self.cross_encoder.activation == "sigmoid" else score for score in sort_by]
            sort_by = blend_scores(
                documents, logits, blend=self.blend, weight=self.blend_weight, score_key=self.initial_score_key
            )
        order = sorted(range(len(documents)), key=lambda position: -sort_by[position])
        if self.score_threshold is not None:
            passed = [position for position in order if scores[position].score >= self.score_threshold]
            spare = [position for position in order if scores[position].score < self.score_threshold]
            kept = {*passed, *spare[: max(0, self.min_documents - len(passed))]}
            order = [position for position in order if position in kept]
        return [_scored(documents[position], scores[position], position + 1) for position in order[: self.top_n]]

    def _degrade(self, documents: Sequence[Document], err: Exception) -> tuple[tuple[str, Any], list[Document]]:
        reason = f"{type(err).__name__}: {err}"
        _logger.warning("Reranking failed, the first stage's order is kept: %s", reason)
        kept = [
            _with_metadata(document, {INITIAL_RANK: rank, RERANKED: False, RERANK_ERROR: reason})
            for rank, document in enumerate(documents[: self.top_n], start=1)
        ]
        return ("rerank_degraded", {"model": self._model_name(), "reason": reason}), kept

    def _event(self, scores: Sequence[PairScore]) -> tuple[str, Any]:
        return "rerank_scores", {"model": self._model_name(), "scores": [scored.score for scored in scores]}

    def _traced(self, config: RunnableConfig | None) -> RunnableConfig:
        return merge_configs(ensure_config(config), {"metadata": {"cross_encoder": self._model_name()}})

    def _model_name(self) -> str:
        if isinstance(self.model, BaseCrossEncoder):
            return as_cross_encoder(self.model).name
        return without_credentials(os.fspath(self.model))


class RerankerWithFallbacks(RunnableWithFallbacks[RerankInput, list[Document]], BaseDocumentCompressor):
    """A reranker with others to try when it raises; made by `CrossEncoderReranker.with_fallbacks`."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents with the first reranker that does not raise."""
        return self.invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rerank documents with the first reranker that does not raise, without blocking the event loop."""
        return await self.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})


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
    added: dict[str, Any] = {RELEVANCE_SCORE: scored.score, INITIAL_RANK: initial_rank}
    if scored.truncated:
        added[TRUNCATED] = True
    if scored.pruned:
        added[PRUNED] = True
    if scored.window is not None:
        added[BEST_WINDOW] = list(scored.window)
    return _with_metadata(document, added)


def _with_metadata(document: Document, added: dict[str, Any]) -> Document:
    """Copy a document with new metadata; what an earlier rerank left there is taken out."""
    # Short words that a caller's own metadata may have too; an earlier rerank's stand beside its score.
    stale = {*_STALE_KEYS, TRUNCATED, PRUNED} if RELEVANCE_SCORE in document.metadata else _STALE_KEYS
    kept = {key: value for key, value in document.metadata.items() if key not in stale}
    return document.model_copy(update={"metadata": {**kept, **added}})
