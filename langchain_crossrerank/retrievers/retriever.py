"""The reranking retriever: LangChain's `ContextualCompressionRetriever` that drops nothing on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import Context
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config, set_config_context
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import ConfigurableFieldSpec, coro_with_context, get_unique_config_specs
from pydantic import Field, PrivateAttr, field_validator

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.compressors import RerankInput, RunnableCompressor, as_runnable_compressor, with_settings
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.reranker import CrossEncoderReranker
from langchain_crossrerank.retrievers.first_stages import CallArguments, FirstStage, parts_of, prepare, takes_dict
from langchain_crossrerank.retrievers.inspection import find_reranker
from langchain_crossrerank.retrievers.scoring import with_scores

_QUERY_KEYS = ("query", "question", "input")
"""Keys of the query in a dict, as LangChain's chains call it."""

_Callbacks = TypeVar("_Callbacks", bound=BaseCallbackManager)

_logger = logging.getLogger(__name__)


class RerankRetriever(ContextualCompressionRetriever):
    """A retriever that fetches `k` candidates and keeps the best by a cross-encoder.

    Arguments of `invoke` and its siblings hold for that call: fields of the reranker, such as `top_n` and
    `score_threshold`, go to the reranker, and everything else (`k`, `filter`, `search_type` and a store's own
    arguments) to the first stage. LangChain's ensembles, mergers, multi-query, parent document, multi-vector and
    history-aware retrievers, and Runnables made of retrievers, are given them part by part. An argument that a part
    does not take raises `InvalidInputError`. The run configuration reaches both stages, with configurable fields.

    Neither the first stage nor the reranker is changed, or copied when the retriever is made.
    """

    k: int | None = Field(default=None, ge=1)
    """Number of candidates to fetch, from each part of a first stage that is made of others. `None` leaves the first
    stage its own number, or 20 if it has none."""

    search_type: str | None = None
    """A vector store's search type, such as `"mmr"`; `None` leaves the first stage its own."""

    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Other arguments for the first stage, for example `{"filter": {"tenant": "a"}}`."""

    _warned: bool = PrivateAttr(default=False)

    @field_validator("base_compressor", mode="before")
    @classmethod
    def _accept_runnables(cls, compressor: Any) -> Any:
        is_other = isinstance(compressor, Runnable) and not isinstance(compressor, BaseDocumentCompressor)
        return as_runnable_compressor(compressor) if is_other else compressor

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of both stages."""
        return get_unique_config_specs([*_config_specs(self.base_retriever), *_config_specs(self.base_compressor)])

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return a graph of the two stages."""
        graph = Graph()
        nodes = [
            graph.add_node(self.get_input_schema(config)),
            graph.add_node(self.base_retriever),
            graph.add_node(as_runnable_compressor(self.base_compressor)),
            graph.add_node(self.get_output_schema(config)),
        ]
        for source, target in pairwise(nodes):
            graph.add_edge(source, target)
        return graph

    def invoke(
        self, input: str | dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Fetch candidates and rerank them.

        Args:
            input: The query; or, for a first stage that takes a dict, that dict with the query under `"query"`,
                `"question"` or `"input"`.
            config: LangChain run configuration.
            **kwargs: Fields of the reranker, and arguments of the first stage, for this call.

        Raises:
            InvalidInputError: If the query is blank, or an argument is not taken by the reranker or the first stage.
        """
        config = ensure_config(config)
        with set_config_context(config) as context:
            return context.run(super().invoke, input, config, **kwargs)  # type: ignore[arg-type]

    async def ainvoke(
        self, input: str | dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Fetch candidates and rerank them without blocking the event loop; see `invoke`."""
        config = ensure_config(config)
        with set_config_context(config) as context:
            found: list[Document] = await coro_with_context(
                super().ainvoke(input, config, **kwargs),  # type: ignore[arg-type]
                context,
                create_task=True,
            )
            return found

    def fetch(self, input: str | dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Fetch the candidates without reranking them; see `invoke`."""
        config = ensure_config(config)
        call = self._plan(input, config, kwargs)
        with set_config_context(config) as context:
            return list(context.run(call.stage.runnable.invoke, call.stage_input, config))

    def check_arguments(self, **kwargs: Any) -> FirstStage:
        """Raise unless both stages take these arguments of `invoke`, and those that the retriever has itself.

        Raises:
            InvalidInputError: Naming the argument.
        """
        return self._stages(ensure_config(), kwargs)[0]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # The configuration of the call, which LangChain does not hand down to this method, is in the context.
        config = patch_config(ensure_config(), callbacks=run_manager.get_child())
        call = self._plan(query, config, kwargs)
        listening = patch_config(config, callbacks=call.heard_by(run_manager.get_child()))
        with set_config_context(config) as context:
            candidates = list(context.run(call.stage.runnable.invoke, call.stage_input, listening))
            self._warn_if_too_few(candidates, call)
            if not candidates:
                return []
            return list(context.run(_compress, call, candidates, call.described_in(config)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        config = patch_config(ensure_config(), callbacks=run_manager.get_child())
        call = self._plan(query, config, kwargs)
        listening = patch_config(config, callbacks=call.heard_by(run_manager.get_child()))
        with set_config_context(config) as context:
            candidates = list(await _in_context(call.stage.runnable.ainvoke(call.stage_input, listening), context))
            self._warn_if_too_few(candidates, call)
            if not candidates:
                return []
            return list(await _in_context(_acompress(call, candidates, call.described_in(config)), context))

    def _plan(self, input: Any, config: RunnableConfig, kwargs: dict[str, Any]) -> _Call:
        query = _query_in(input)
        stage, compressor, top_n = self._stages(config, kwargs)
        stage_input: Any = query
        wants_dict = takes_dict(self.base_retriever)
        if isinstance(input, dict) and wants_dict is not False:
            stage_input = input
        elif wants_dict:
            stage_input = dict.fromkeys(_QUERY_KEYS, query)
        return _Call(query, stage, stage_input, compressor, top_n, _QueryListener())

    def _stages(
        self, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> tuple[FirstStage, BaseDocumentCompressor, int | None]:
        """Divide the arguments of a call between the stages, and return both with them, and the reranker's `top_n`."""
        fields = {name: value for name, value in kwargs.items() if name in _RERANKER_FIELDS}
        others = {name: value for name, value in kwargs.items() if name not in fields}
        search_kwargs = others.pop("search_kwargs", {})
        if not isinstance(search_kwargs, dict):
            raise InvalidInputError(f"search_kwargs is {shorten(search_kwargs)}; pass a dict.")
        arguments = CallArguments(added_filter=others.pop("added_filter", None))
        arguments = arguments.over(others).over(search_kwargs).over(self._own_arguments())
        _check_number(arguments.k)
        reranker = find_reranker(self.base_compressor, config)
        if reranker is not None and fields:
            reranker = reranker.with_fields(**fields)
        try:
            stage = prepare(self.base_retriever, arguments, config)
        except InvalidInputError as err:
            close = [match for name in others for match in get_close_matches(name, _RERANKER_FIELDS, n=1, cutoff=0.8)]
            if not close:
                raise
            raise InvalidInputError(f"{err} The reranker has a field {close[0]!r}.") from err
        if reranker is not None and reranker.blend == "weighted":
            stage = FirstStage(with_scores(stage.runnable, reranker.initial_score_key), stage.k)
        compressor = with_settings(self.base_compressor, fields)
        return stage, compressor, None if reranker is None else reranker.top_n

    def _own_arguments(self) -> dict[str, Any]:
        own = {"k": self.k, "search_type": self.search_type}
        return {**self.search_kwargs, **{name: value for name, value in own.items() if value is not None}}

    def _warn_if_too_few(self, candidates: Sequence[Document], call: _Call) -> None:
        """Warn once if reranking cannot change which documents are returned, although there may be more of them."""
        has_all = call.stage.k is not None and len(candidates) < call.stage.k
        if self._warned or call.top_n is None or has_all or not 0 < len(candidates) <= call.top_n:
            return
        self._warned = True
        _logger.warning(
            "The first stage returned %d candidates for top_n=%d: reranking can change their order but not which "
            "documents are returned; fetch more candidates (k of 20 to 50 is usual).",
            len(candidates),
            call.top_n,
        )


class _QueryListener(BaseCallbackHandler):
    """Notes the query that a first stage makes of a dict, such as a question that follows from a conversation."""

    def __init__(self) -> None:
        self.query: str | None = None

    def on_retriever_start(self, serialized: dict[str, Any], query: str, **kwargs: Any) -> None:  # noqa: ARG002
        """Note the query of the outermost retriever."""
        if self.query is None:
            self.query = query


class _Call(NamedTuple):
    """One call: the query, the first stage and its input, and the second stage."""

    query: str
    stage: FirstStage
    stage_input: Any
    compressor: BaseDocumentCompressor
    top_n: int | None
    listener: _QueryListener

    def heard_by(self, callbacks: _Callbacks) -> _Callbacks:
        """Return the callbacks of the first stage, with the listener among them if it takes a dict."""
        if isinstance(self.stage_input, dict):
            callbacks.add_handler(self.listener)
        return callbacks

    def described_in(self, config: RunnableConfig) -> RunnableConfig:
        """Return the configuration of the rerank's run, with the first stage's `k` in its metadata if it is known."""
        k = {} if self.stage.k is None else {"k": self.stage.k}
        return {**config, "metadata": {**(config.get("metadata") or {}), **k}}

    def rerank_input(self, candidates: Sequence[Document]) -> RerankInput:
        """Return what the second stage reranks: for a dict, by the query that the first stage made of it."""
        query = self.listener.query if isinstance(self.stage_input, dict) else None
        return {"query": query or self.query, "documents": candidates}


_RERANKER_FIELDS = frozenset(CrossEncoderReranker.model_fields) - {"name"}


def _compress(call: _Call, candidates: Sequence[Document], config: RunnableConfig) -> Sequence[Document]:
    rerank_input = call.rerank_input(candidates)
    if isinstance(call.compressor, RunnableCompressor):
        return call.compressor.invoke(rerank_input, config)
    return call.compressor.compress_documents(candidates, rerank_input["query"], config["callbacks"])


async def _acompress(call: _Call, candidates: Sequence[Document], config: RunnableConfig) -> Sequence[Document]:
    rerank_input = call.rerank_input(candidates)
    if isinstance(call.compressor, RunnableCompressor):
        return await call.compressor.ainvoke(rerank_input, config)
    return await call.compressor.acompress_documents(candidates, rerank_input["query"], config["callbacks"])


async def _in_context(work: Any, context: Context) -> Any:
    return await coro_with_context(work, context, create_task=True)


def _query_in(input: Any) -> str:
    if not isinstance(input, dict):
        return check_query(input)
    for key in _QUERY_KEYS:
        if isinstance(input.get(key), str):
            return check_query(input[key], what=key)
    raise InvalidInputError(
        f"the retriever got {shorten(input)}; pass a query, or a dict with the query under "
        f"{' or '.join(map(repr, _QUERY_KEYS))}."
    )


def _check_number(k: Any) -> None:
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise InvalidInputError(f"k is {shorten(k)}; pass the number of candidates to fetch, at least 1.")


def _config_specs(stage: object) -> list[ConfigurableFieldSpec]:
    own = stage.config_specs if isinstance(stage, Runnable) else []
    parts = [*parts_of(stage), *(getattr(stage, "transformers", None) or [])]
    return [*own, *(spec for part in parts for spec in _config_specs(part))]
