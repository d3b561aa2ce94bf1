"""A gate that decides whether retrieved documents answer the query: a Runnable, and a node of a LangGraph graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import patch_config
from pydantic import ConfigDict, PrivateAttr
from typing_extensions import TypedDict

from langchain_crossrerank.agents.thresholds import (
    MinProbability,
    check_threshold,
    passage_threshold,
    relevant_documents,
)
from langchain_crossrerank.checks import shorten
from langchain_crossrerank.compressors import RerankInput
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import RELEVANCE_SCORE
from langchain_crossrerank.reranker import CrossEncoderReranker

_QUERY_KEYS = ("query", "question", "input")
_MESSAGES = "messages"

GateState = Mapping[str, Any]
"""The state of a graph, or any other dict with a query and documents."""


class GateResult(TypedDict):
    """What the gate returns: an update of a graph's state.

    Attributes:
        documents: The relevant documents, best first, with their scores in metadata.
        relevant: Whether any document is.
        best_score: The highest probability, from 0 to 1; `None` if there were no documents.
    """

    documents: list[Document]
    relevant: bool
    best_score: float | None


class RelevanceGate(RunnableSerializable[GateState, GateResult]):
    """Grade documents with a cross-encoder instead of a call to a language model for each.

    Use it as a node, and `RelevanceGate.route` as the condition of the edges that follow:

    ```python
    graph.add_node("grade", RelevanceGate())
    graph.add_conditional_edges("grade", RelevanceGate.route, {"relevant": "answer", "irrelevant": "rewrite"})
    ```

    The gate scores all documents with its own model, even if they have scores, because the threshold holds for that
    model. Wrap it in a `CachedCrossEncoder` and share it with the reranker to score each pair only once.
    """

    model: BaseCrossEncoder | str | os.PathLike[str] = "bundled"
    """The cross-encoder; see `CrossEncoderReranker.model`. The default is the one with a measured threshold."""

    min_probability: MinProbability = "measured"
    """Probability from which a document counts as relevant; `"measured"` is the one measured for the model. A gate
    without a threshold would decide nothing, so a model for which none was measured needs a number, and `None` is not
    allowed."""

    query_key: str | None = None
    """Key of the query in the state. `None` tries `"query"`, `"question"` and `"input"`, then the last human message
    under `"messages"`."""

    documents_key: str = "documents"
    """Key of the documents in the state."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), frozen=True)

    _reranker: CrossEncoderReranker = PrivateAttr()

    if not TYPE_CHECKING:
        # Outside pydantic's validation, which would turn the package's own errors into a ValidationError.
        def __init__(self, **fields: Any) -> None:
            check_threshold(min_probability=fields.get("min_probability", "measured"))
            reranker = CrossEncoderReranker(model=fields.get("model", "bundled"), top_n=None)
            super().__init__(**{**fields, "model": reranker.model})
            passage_threshold(reranker.model_name, self.min_probability)
            self._reranker = reranker

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return `False`: a gate may hold a loaded model, which LangChain's own serialisation cannot write."""
        return False

    @staticmethod
    def route(state: GateState) -> Literal["relevant", "irrelevant"]:
        """Name the edge to take after the gate, by the state's `"relevant"`."""
        return "relevant" if state["relevant"] else "irrelevant"

    def invoke(self, input: GateState, config: RunnableConfig | None = None, **kwargs: Any) -> GateResult:
        """Grade the documents of a state.

        Args:
            input: The state: a dict with a query, or messages, and documents.
            config: LangChain run configuration; the rerank is a child run of the gate's run.
            **kwargs: Not supported.

        Raises:
            InvalidInputError: If the state has no query or no documents, or an argument is passed.
            ScoringError: If the model fails.
        """
        return self._call_with_config(self._grade, self._checked(input, kwargs), config)

    async def ainvoke(self, input: GateState, config: RunnableConfig | None = None, **kwargs: Any) -> GateResult:
        """Grade the documents of a state without blocking the event loop; see `invoke`."""
        return await self._acall_with_config(self._agrade, self._checked(input, kwargs), config)

    def _grade(self, input: GateState, run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> GateResult:
        child = patch_config(config, callbacks=run_manager.get_child())
        return self._result(self._reranker.invoke(self._rerank_input(input), child))

    async def _agrade(
        self, input: GateState, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> GateResult:
        child = patch_config(config, callbacks=run_manager.get_child())
        return self._result(await self._reranker.ainvoke(self._rerank_input(input), child))

    def _result(self, ranked: list[Document]) -> GateResult:
        passed = relevant_documents(ranked, self._reranker, self.min_probability)
        best = None
        if ranked:
            best = self._reranker.cross_encoder.probability(ranked[0].metadata[RELEVANCE_SCORE])
        return {"documents": passed, "relevant": bool(passed), "best_score": best}

    def _rerank_input(self, state: GateState) -> RerankInput:
        return {"query": self._query(state), "documents": state[self.documents_key]}

    def _query(self, state: GateState) -> str:
        for key in _QUERY_KEYS if self.query_key is None else (self.query_key,):
            if isinstance(state.get(key), str):
                return str(state[key])
        messages = state.get(_MESSAGES) or [] if self.query_key is None else []
        for message in reversed(messages):
            if isinstance(message, HumanMessage):
                return str(message.text)
        looked_for = " or ".join(map(repr, (*_QUERY_KEYS, _MESSAGES) if self.query_key is None else (self.query_key,)))
        raise InvalidInputError(
            f"the gate found no query under {looked_for} in a state with the keys {sorted(state)}; set query_key."
        )

    def _checked(self, state: GateState, others: Mapping[str, Any]) -> GateState:
        if others:
            raise InvalidInputError(f"RelevanceGate takes no argument {next(iter(others))!r} at call time.")
        if not isinstance(state, Mapping):
            raise InvalidInputError(f"the gate got {shorten(state)}; pass a dict with a query and documents.")
        if self.documents_key not in state:
            raise InvalidInputError(
                f"the gate found no documents under {self.documents_key!r} in a state with the keys {sorted(state)}; "
                "set documents_key."
            )
        return state
