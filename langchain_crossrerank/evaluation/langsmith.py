"""Evaluators for LangSmith that compute this package's measures, which are those of `ir-measures`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.documents import Document

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.judgements import relevant_ids
from langchain_crossrerank.evaluation.measures import as_run, check_measures, measure_per_query
from langchain_crossrerank.evaluation.rows import whole_number

Evaluator = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Called by LangSmith with `outputs` and `reference_outputs`."""

_QUERY = "query"


def langsmith_evaluators(
    measures: Sequence[str] = ("nDCG@10", "RR@10"), *, documents_key: str = "documents", relevant_key: str = "relevant"
) -> list[Evaluator]:
    """Make one evaluator for each measure: `langsmith.evaluate(..., evaluators=langsmith_evaluators())`.

    An example without a relevant document has the score `None`, as `evaluate` leaves such a query out.

    Args:
        measures: Names as `ir-measures` spells them.
        documents_key: Key of the ranked list in the target's outputs: documents with an `id`, as objects or as
            LangSmith serialises them, or ids.
        relevant_key: Key of the judgements in the example's outputs: grades by id, or a list of relevant documents or
            ids.

    Raises:
        InvalidInputError: If a measure is not known; in an evaluator, if a key is missing, its value is not a list, a
            grade is not a whole number, or a document has no id.
    """
    check_measures(measures)

    def make(measure: str) -> Evaluator:
        def evaluator(outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> dict[str, Any]:
            grades = _grades(_value(reference_outputs, relevant_key, "reference outputs"))
            ranked = [_id(document) for document in _value(outputs, documents_key, "outputs")]
            if not relevant_ids(grades):
                return {"key": measure, "score": None}
            run = as_run({_QUERY: list(dict.fromkeys(ranked))})
            return {"key": measure, "score": measure_per_query([measure], {_QUERY: grades}, run)[measure][_QUERY]}

        evaluator.__name__ = measure
        return evaluator

    return [make(measure) for measure in measures]


def _value(values: Mapping[str, Any], key: str, what: str) -> Iterable[Any]:
    if key not in values:
        raise InvalidInputError(f"the {what} have the keys {sorted(values)} and no {key!r}.")
    value = values[key]
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidInputError(f"{key!r} in the {what} is {shorten(value)}; make it a list.")
    return value


def _grades(judgements: Iterable[Any]) -> dict[str, int]:
    if not isinstance(judgements, Mapping):
        return {_id(document): 1 for document in judgements}
    try:
        return {str(key): whole_number(grade) for key, grade in judgements.items()}
    except ValueError as err:
        raise InvalidInputError(f"the grades are {shorten(judgements)}, and {err}; round them.") from err


def _id(document: Any) -> str:
    if isinstance(document, str | UUID) or hasattr(document, "__index__"):
        return str(document)
    found = document.id if isinstance(document, Document) else None
    if isinstance(document, Mapping):
        # LangSmith keeps a Document as its fields, or as LangChain's serialisation with the fields in `kwargs`.
        found = document["kwargs"].get("id") if isinstance(document.get("kwargs"), Mapping) else document.get("id")
    if found is None:
        raise InvalidInputError(f"{shorten(document)} has no id; give documents ids when they are indexed.")
    return str(found)
