"""The reranker: a LangChain document compressor and a Runnable over any cross-encoder."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from typing_extensions import TypedDict

from langchain_crossrerank.blending import Blend, blend_scores
from langchain_crossrerank.candidates import Candidates, check_rerank_input, make_candidates
from langchain_crossrerank.checks import check_names, shorten
from langchain_crossrerank.compressors import RerankInput, RunnableCompressor
from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.loading import await_model, wait_for_model
from langchain_crossrerank.cross_encoders.other_objects import adapt_model
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import log_odds
from langchain_crossrerank.cross_encoders.settings import DEFAULT_MODEL, Backend, ModelSettings, check_settings
from langchain_crossrerank.errors import InvalidInputError, MissingExtraError, RerankTimeoutError
from langchain_crossrerank.metadata import INITIAL_SCORE
from langchain_crossrerank.passages import check_template, render_passage
from langchain_crossrerank.redaction import hide, secrets_of_url, show_url
from langchain_crossrerank.telemetry import record_span

_logger = logging.getLogger(__name__)


class RerankerOptions(TypedDict, total=False):
    """The fields of `CrossEncoderReranker`, except `model` and `top_n`, as keyword arguments."""

    score_threshold: float | None
    min_documents: int
    drop_duplicates: bool
    blend: Blend | None
    blend_weight: float
    initial_score_key: str
    on_error: Literal["raise", "keep_order"]
    timeout: float | None
    passage_template: str | None
    backend: Backend
    model_kwargs: dict[str, Any]


class CrossEncoderReranker(RunnableCompressor):
    """Order documents by a cross-encoder's score and keep the best.

    Use it as `base_compressor` of a `ContextualCompressionRetriever`, or in an LCEL chain:
    `{"query": RunnablePassthrough(), "documents": retriever} | reranker`. Fields can also be set for one call:
    `reranker.invoke({"query": ..., "documents": ...}, top_n=1)`.

    The documents returned are copies of the caller's with two extra metadata keys: `relevance_score` (float) and
    `initial_rank` (from 1); and `truncated` or `best_window` if the passage is longer than the model reads,
    `query_truncated` if the query is. Documents with equal scores keep the order in which they came.

    Each call is a run of its own in callbacks and traces, with the inputs, the documents and their scores, and the
    model's name, `top_n` and `score_threshold` in its metadata. The scores of all candidates, and the initial ranks of
    the distinct ones from best to worst, are the output of a child run named `rerank_scores`, and in a custom event of
    the same name.

    What LangChain's `with_config`, `with_retry`, `with_fallbacks`, `configurable_fields` and
    `configurable_alternatives` return is a document compressor, too.
    """

    model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL
    """Any LangChain cross-encoder; or `"bundled"`, a folder, a name on the hub or a URL, loaded at the first use."""

    top_n: int | None = Field(default=3, ge=1)
    """Number of documents to keep; `None` keeps all."""

    score_threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Keep documents with `score >= score_threshold`, in the unit of the model's scores; `None` keeps all.

    A passage that a cascade's cheap model ruled out has no score of the full model, so it never passes.
    """

    min_documents: int = Field(default=0, ge=0)
    """Keep at least this many documents, the best ones, whatever the threshold; `top_n` still applies."""

    drop_duplicates: bool = True
    """Keep one document of those whose passages are equal except for whitespace: the one that the first stage ranks
    highest."""

    blend: Blend | None = None
    """Order by the cross-encoder together with the first stage: `"weighted"` adds the cross-encoder's log-odds and the
    first stage's z-normalised scores, so that the first stage counts where the cross-encoder is unsure; `"rrf"` fuses
    ranks. `None` is the cross-encoder alone. `relevance_score` and the threshold stay the cross-encoder's own."""

    blend_weight: float = Field(default=0.9, ge=0, le=1)
    """Share of the cross-encoder in a blend; the first stage has the rest. At the default a weak first stage does
    little harm; on collections with a strong first stage, 0.8 may be better (`sweep` finds out)."""

    initial_score_key: str = INITIAL_SCORE
    """Metadata key of the first stage's score for a weighted blend. If a candidate lacks it, or the scores neither fall
    nor rise along the list, ranks are used."""

    on_error: Literal["raise", "keep_order"] = "raise"
    """What to do if the model cannot be loaded, fails, returns unusable scores or times out. `"keep_order"` returns
    the first `top_n` candidates in the first stage's order, with `relevance_score: None`, `reranked: False` and the
    reason in their metadata, and reports it by a warning in the log and a child run and custom event named
    `rerank_degraded`. Invalid input, invalid settings and a missing extra always raise."""

    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that loading and scoring may take, including the wait for other callers' work. `None` for no limit."""

    passage_template: str | None = None
    """Text that the model reads for a document, for example `"{title}: {page_content}"`, filled from metadata;
    `None` is the page content alone."""

    backend: Backend = "auto"
    """Backend for a model given by name; see `load_cross_encoder`."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Other arguments of `load_cross_encoder` for a model given by name."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), validate_assignment=True
    )

    _adapted: CrossEncoder | None = PrivateAttr(default=None)
    _adapted_from: BaseCrossEncoder | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:
        # Outside pydantic's validation, which would turn the package's own error into a ValidationError. Hidden from
        # type checkers, which know the arguments from the fields.
        def __init__(self, **fields: Any) -> None:
            if "model" in fields:
                fields["model"] = adapt_model(fields["model"])
            super().__init__(**fields)
            self._source()

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "model":
                value = adapt_model(value)
            if name in ("model", "backend", "model_kwargs"):
                self.model_copy()._assign(name, value)
            super().__setattr__(name, value)

    def _assign(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._source()

    @field_validator("passage_template")
    @classmethod
    def _check_passage_template(cls, template: str | None) -> str | None:
        return template if template is None else check_template(template)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return `False`: a reranker may hold a loaded model, which LangChain's own serialisation cannot write."""
        return False

    @property
    def cross_encoder(self) -> CrossEncoder:
        """The model, loaded first if necessary.

        Raises:
            CrossRerankError: What `load_cross_encoder` raises for a model given by name.
        """
        return self._load()

    async def aload(self) -> CrossEncoder:
        """Return the model, loaded first if necessary, without blocking the event loop; see `cross_encoder`."""
        return await self._aload()

    @property
    def model_name(self) -> str:
        """The model's name, known before it is loaded; a URL without its secrets."""
        return show_url(self._source().name)

    def warm_up(self) -> None:
        """Load the model and do one forward pass, so that the first rerank is as fast as the others.

        Raises:
            CrossRerankError: What `load_cross_encoder` raises for a model given by name.
        """
        self.cross_encoder.warm_up()

    def with_fields(self, **fields: Any) -> Self:
        """Return a copy with other settings; it shares the model.

        Args:
            **fields: Values of fields by name.

        Raises:
            InvalidInputError: If there is no such field, or its value is not valid.
        """
        check_fields(fields)
        changed = self.model_copy()
        for name, value in fields.items():
            try:
                setattr(changed, name, value)
            except ValidationError as err:
                raise InvalidInputError(f"{name} is {shorten(value)}: {err.errors()[0]['msg']}.") from err
        return changed

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Rerank documents.

        Args:
            input: The query, and the candidates in the first stage's order, which are not changed:
                `{"query": ..., "documents": ...}`.
            config: LangChain run configuration; the rerank is a run of its own in its callbacks.
            **kwargs: Fields to set for this call, for example `top_n`.

        Returns:
            Copies of the best documents, best first, with `relevance_score` and `initial_rank` in their metadata.

        Raises:
            InvalidInputError: If the query is blank or not a string, an element is not a `Document`, or there is no
                such field.
            ScoringError: If the model fails or returns unusable scores, and `on_error` is `"raise"`.
            RerankTimeoutError: If `timeout` passes, and `on_error` is `"raise"`.
        """
        query, documents = check_rerank_input(input)
        reranker = self.with_fields(**kwargs) if kwargs else self
        checked: RerankInput = {"query": query, "documents": documents}
        return reranker._call_with_config(reranker._rerank, checked, reranker._traced(config))

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Rerank documents without blocking the event loop; see `invoke`."""
        query, documents = check_rerank_input(input)
        reranker = self.with_fields(**kwargs) if kwargs else self
        checked: RerankInput = {"query": query, "documents": documents}
        return await reranker._acall_with_config(reranker._arerank, checked, reranker._traced(config))

    def text_pairs(self, query: str, documents: Sequence[Document]) -> list[TextPair]:
        """Return the pairs that the model reads for a query and documents, with templates filled."""
        return [(query, render_passage(document, self.passage_template)) for document in documents]

    def _rerank(self, input: RerankInput, run_manager: CallbackManagerForChainRun) -> list[Document]:
        candidates = self._candidates(input)
        if not candidates.documents:
            return []
        model: CrossEncoder | None = None
        started = time.time_ns()
        try:
            deadline = self._deadline()
            model = self._load(self.timeout)
            result, report = self._select(candidates, model, self._scores(model, candidates.text_pairs, deadline))
        except Exception as err:
            if self._must_raise(err, model):
                raise
            result, report = self._degrade(candidates, err)
        record_span("rerank", report.data, started=started)
        if run_manager.handlers:
            callbacks = run_manager.get_child()
            callbacks.on_chain_start(None, {}, name=report.name).on_chain_end(report.data)
            dispatch_custom_event(report.name, report.data, config={"callbacks": callbacks})
        return result

    async def _arerank(self, input: RerankInput, run_manager: AsyncCallbackManagerForChainRun) -> list[Document]:
        candidates = self._candidates(input)
        if not candidates.documents:
            return []
        model: CrossEncoder | None = None
        started = time.time_ns()
        try:
            deadline = self._deadline()
            model = await self._aload(self.timeout)
            scores = await self._ascores(model, candidates.text_pairs, deadline)
            result, report = self._select(candidates, model, scores)
        except Exception as err:
            if self._must_raise(err, model):
                raise
            result, report = self._degrade(candidates, err)
        record_span("rerank", report.data, started=started)
        if run_manager.handlers:
            callbacks = run_manager.get_child()
            await (await callbacks.on_chain_start(None, {}, name=report.name)).on_chain_end(report.data)
            await adispatch_custom_event(report.name, report.data, config={"callbacks": callbacks})
        return result

    def _candidates(self, input: RerankInput) -> Candidates:
        return make_candidates(
            input["query"],
            list(input["documents"]),
            template=self.passage_template,
            drop_duplicates=self.drop_duplicates,
        )

    def _source(self) -> CrossEncoder | ModelSettings:
        """Return the model if it was given as an object, and otherwise its checked settings.

        Raises:
            InvalidInputError: If the settings are not valid.
        """
        if isinstance(self.model, CrossEncoder):
            return self.model
        if not isinstance(self.model, BaseCrossEncoder):
            return check_settings(self.model, self.backend, **self.model_kwargs)
        if self._adapted is None or self._adapted_from is not self.model:
            self._adapted, self._adapted_from = as_cross_encoder(self.model), self.model
        return self._adapted

    def _load(self, timeout: float | None = None) -> CrossEncoder:
        source = self._source()
        return source if isinstance(source, CrossEncoder) else wait_for_model(source, timeout=timeout)

    async def _aload(self, timeout: float | None = None) -> CrossEncoder:  # noqa: ASYNC109 - as for `await_model`
        source = self._source()
        return source if isinstance(source, CrossEncoder) else await await_model(source, timeout=timeout)

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _scores(self, model: CrossEncoder, text_pairs: Sequence[TextPair], deadline: float | None) -> list[PairScore]:
        if deadline is None:
            return drain(model.score_steps(text_pairs))
        scoring = model.submit(text_pairs, deadline=deadline)
        try:
            return scoring.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError as err:
            if scoring.done():  # it has ended since, or the model itself raised a TimeoutError
                return scoring.result()
            scoring.cancel()
            raise self._timed_out(model, len(text_pairs)) from err

    async def _ascores(
        self, model: CrossEncoder, text_pairs: Sequence[TextPair], deadline: float | None
    ) -> list[PairScore]:
        scoring = asyncio.ensure_future(model.ascore_pairs(text_pairs, deadline=deadline))
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            done, _ = await asyncio.wait([scoring], timeout=left)
        finally:
            # The work is unfinished after a timeout, and when the caller's own task is cancelled.
            if not scoring.done():
                scoring.cancel()
        if not done:
            raise self._timed_out(model, len(text_pairs))
        return scoring.result()

    def _timed_out(self, model: CrossEncoder, pairs: int) -> RerankTimeoutError:
        return RerankTimeoutError(
            f"{model.name!r} did not score {pairs} candidates within timeout={self.timeout} seconds; "
            "rerank fewer candidates, allow more time, or set on_error='keep_order'."
        )

    def _select(
        self, candidates: Candidates, model: CrossEncoder, scores: Sequence[PairScore]
    ) -> tuple[list[Document], Report]:
        sort_by = [scored.score for scored in scores]
        if self.blend is not None:
            logits = [log_odds(score) if model.activation == "sigmoid" else score for score in sort_by]
            documents = [candidates.documents[position] for position in candidates.distinct]
            sort_by = blend_scores(
                documents, logits, blend=self.blend, weight=self.blend_weight, score_key=self.initial_score_key
            )
        order = sorted(range(len(scores)), key=lambda index: -sort_by[index])
        data = {
            **self._description(candidates),
            "scores": [scores[index].score for index in candidates.same_as],
            "order": [candidates.distinct[index] + 1 for index in order],
        }
        if self.score_threshold is not None:
            passes = [not scored.pruned and scored.score >= self.score_threshold for scored in scores]
            passed = [index for index in order if passes[index]]
            spare = [index for index in order if not passes[index]]
            kept = {*passed, *spare[: max(0, self.min_documents - len(passed))]}
            order = [index for index in order if index in kept]
        return [candidates.scored(index, scores[index]) for index in order[: self.top_n]], Report("rerank_scores", data)

    def _must_raise(self, err: Exception, model: CrossEncoder | None) -> bool:
        """Whether an error reaches the caller: if he asked for it, or if the settings are wrong."""
        is_misconfigured = model is None and isinstance(err, InvalidInputError | MissingExtraError)
        return self.on_error == "raise" or is_misconfigured

    def _degrade(self, candidates: Candidates, err: Exception) -> tuple[list[Document], Report]:
        reason = f"{type(err).__name__}: {err}"
        if isinstance(self.model, str):
            reason = hide(reason, secrets_of_url(self.model))
        _logger.warning("Reranking failed, the first stage's order is kept: %s", reason)
        kept = range(len(candidates.distinct))[: self.top_n]
        data = {**self._description(candidates), "reason": reason}
        return [candidates.failed(index, reason) for index in kept], Report("rerank_degraded", data)

    def _description(self, candidates: Candidates) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "candidates": len(candidates.documents),
            "duplicates_dropped": candidates.duplicates,
            "top_n": self.top_n,
            "score_threshold": self.score_threshold,
        }

    def _traced(self, config: RunnableConfig | None) -> RunnableConfig:
        metadata = {
            "cross_encoder": self.model_name,
            "top_n": self.top_n,
            "score_threshold": self.score_threshold,
        }
        return merge_configs(ensure_config(config), {"metadata": metadata})

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            yield name, show_url(value) if name == "model" and isinstance(value, str) else value

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # A model object is shared: it may hold gigabytes, threads and locks.
        memo = {} if memo is None else memo
        for shared in (self.model, self._adapted):
            if isinstance(shared, BaseCrossEncoder):
                memo[id(shared)] = shared
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_adapted": None, "_adapted_from": None}}


class Report(NamedTuple):
    """What a rerank tells tracers: the name of the child run and custom event, and their data."""

    name: str
    data: dict[str, Any]


def check_fields(fields: Iterable[str]) -> None:
    """Raise unless every name is a field of the reranker.

    Raises:
        InvalidInputError: Naming the field, and the one that was probably meant.
    """
    check_names("CrossEncoderReranker has no field", fields, CrossEncoderReranker.model_fields)
