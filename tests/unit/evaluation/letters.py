"""Retrievers whose candidates are letters, so that a list is a word and an evaluation can be done by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.evaluation import EvaluationResult, evaluate
from langchain_crossrerank.testing import ScriptedCrossEncoder

QUERIES = {"q1": "first query", "q2": "second query", "q3": "third query"}
FOUND = {"first query": "abcd", "second query": "cdab", "third query": "abc"}
QRELS = {"q1": {"d": 2, "b": 1}, "q2": {"c": 1, "z": 1}, "q3": {"b": 1}}
"""The first stage finds `FOUND`; by the scores below q1 gains, q2 loses, and q3 stays where it was."""

SCORES = {"d": 4.0, "a": 3.0, "b": 2.0, "c": 1.0}


class CountingEncoder(ScriptedCrossEncoder):
    """A scripted cross-encoder that counts the pairs it scored and may fail on a query."""

    def __init__(self, scores: dict[str, float], *, fails_on: str | None = None) -> None:
        super().__init__(scores)
        self.fails_on = fails_on
        self.seen: list[tuple[str, str]] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        for item in batch:
            if item.text_pair[0] == self.fails_on:
                raise RuntimeError("the model is down")
            self.seen.append(item.text_pair)
        return super()._score_batch(batch)


class FirstStage:
    """A first stage that returns a document for each letter of a query's word, and records the queries."""

    def __init__(self, found: Mapping[str, str]) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, query: str) -> list[Document]:
        self.asked.append(query)
        return [Document(letter, id=letter) for letter in self.found.get(query, "")]


def retriever(
    found: Mapping[str, str] | FirstStage = FOUND, model: CrossEncoder | None = None, **kwargs: Any
) -> ContextualCompressionRetriever:
    """Make a reranking retriever over a first stage of letters."""
    first_stage = found if isinstance(found, FirstStage) else FirstStage(found)
    return create_rerank_retriever(RunnableLambda(first_stage), model=model or ScriptedCrossEncoder(SCORES), **kwargs)


def run(
    base: ContextualCompressionRetriever | None = None,
    queries: Mapping[str, str] = QUERIES,
    qrels: dict[str, dict[str, int]] = QRELS,
    **kwargs: Any,
) -> EvaluationResult:
    """Evaluate quietly."""
    return evaluate(base or retriever(), queries, qrels, show_progress=False, **kwargs)


def measured(name: str, orders: Mapping[str, str], qrels: dict[str, dict[str, int]] = QRELS) -> dict[str, float]:
    """Ask `ir_measures` itself about lists of letters."""
    lists = {key: {letter: float(-place) for place, letter in enumerate(order)} for key, order in orders.items()}
    return {
        value.query_id: value.value for value in ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, lists)
    }


def differing(gains: Sequence[float]) -> EvaluationResult:
    """Evaluate one query for each gain: 1 puts the relevant document first, -1 takes it from there, 0 leaves it."""
    queries = {f"q{number}": f"query {number}" for number in range(len(gains))}
    found = {text: "ba" if gain < 0 else "ab" for text, gain in zip(queries.values(), gains, strict=True)}
    relevant = {key: "a" if gain == 0 else "b" for key, gain in zip(queries, gains, strict=True)}

    class ByQuery(ScriptedCrossEncoder):
        def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
            wants = {text: "b" if gain > 0 else "a" for text, gain in zip(queries.values(), gains, strict=True)}
            return [float(wants[item.text_pair[0]] == item.text_pair[1]) for item in batch]

    return run(
        retriever(found, ByQuery({})),
        queries,
        {key: {letter: 1} for key, letter in relevant.items()},
        measures=["RR@10"],
    )
