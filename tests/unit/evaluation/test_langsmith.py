"""Evaluators for LangSmith."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_core.documents import Document
from langchain_core.load import dumpd

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.langsmith import langsmith_evaluators

RANKED = [Document("one", id="a"), Document("two", id="b"), Document("three", id="c")]


@pytest.mark.parametrize(
    "ranked",
    [RANKED, ["a", "b", "c"], [dumpd(document) for document in RANKED], [{"id": key} for key in "abc"]],
)
@pytest.mark.parametrize("relevant", [["b"], {"b": 2, "c": 0}, [{"id": "b"}], [RANKED[1]]])
def test_each_measure_is_an_evaluator(ranked: Any, relevant: Any) -> None:
    """Documents and judgements are taken in every form in which LangSmith has them."""
    evaluators = langsmith_evaluators(["RR@10", "R@1"])
    results = [evaluator({"documents": ranked}, {"relevant": relevant}) for evaluator in evaluators]
    assert results == [{"key": "RR@10", "score": 0.5}, {"key": "R@1", "score": 0.0}]


def test_nothing_found_scores_zero() -> None:
    """An empty list is a result, not an error."""
    (evaluator,) = langsmith_evaluators(["nDCG@10"])
    assert evaluator({"documents": []}, {"relevant": ["a"]}) == {"key": "nDCG@10", "score": 0.0}


@pytest.mark.parametrize(
    ("outputs", "reference", "message"),
    [
        ({"context": []}, {"relevant": ["a"]}, "no 'documents'"),
        ({"documents": []}, {"answer": "a"}, "no 'relevant'"),
        ({"documents": [Document("one")]}, {"relevant": ["a"]}, "has no id"),
    ],
)
def test_what_is_missing_is_named(outputs: Any, reference: Any, message: str) -> None:
    """The message says which keys there are, or that a document has no id."""
    (evaluator,) = langsmith_evaluators(["nDCG@10"])
    with pytest.raises(InvalidInputError, match=message):
        evaluator(outputs, reference)


@pytest.mark.parametrize("relevant", [[], {}, {"a": 0}, {"a": -1, "b": "0"}])
def test_an_example_without_a_relevant_document_has_no_score(relevant: Any) -> None:
    """No list can serve it, so it does not count as a failure."""
    (evaluator,) = langsmith_evaluators(["nDCG@10"])
    assert evaluator({"documents": RANKED}, {"relevant": relevant}) == {"key": "nDCG@10", "score": None}


@pytest.mark.parametrize(
    ("ranked", "relevant", "message"),
    [
        (RANKED, {"a": 0.9}, "0.9 is not a whole number"),
        (RANKED, {"a": None}, "None is not a whole number"),
        (RANKED, "abc", "'relevant' in the reference outputs is 'abc'; make it a list"),
        (RANKED, 7, "'relevant' in the reference outputs is 7"),
        ("abc", ["a"], "'documents' in the outputs is 'abc'"),
    ],
)
def test_what_is_not_a_list_or_a_grade_is_refused(ranked: Any, relevant: Any, message: str) -> None:
    """A grade is not rounded, and an id on its own is not taken apart."""
    (evaluator,) = langsmith_evaluators(["nDCG@10"])
    with pytest.raises(InvalidInputError, match=message):
        evaluator({"documents": ranked}, {"relevant": relevant})


def test_an_unknown_measure_is_refused_at_once() -> None:
    """A misspelt measure is an error before anything runs."""
    with pytest.raises(InvalidInputError, match="nCDG@10"):
        langsmith_evaluators(["nCDG@10"])
