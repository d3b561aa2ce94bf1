"""Judgements: which documents answer a query, and how well."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.records import read_records
from langchain_crossrerank.evaluation.rows import COLUMN_NAMES, QUERY_HEADER, JudgementRow, parse, whole_number

Qrels = dict[str, dict[str, int]]
"""Judgements: query id to document id to grade."""

_COLUMNS = (("queryid", "docid", "score"), ("queryid", "iteration", "docid", "score"))
_EXPECTED = "query-id, corpus-id and a whole-number score, or the four columns of TREC (query, 0, document, grade)"


def load_qrels(file: str | os.PathLike[str]) -> Qrels:
    """Read judgements.

    A line holds a query id, a document id and a grade, after a header or not, or the four columns of TREC. JSON, JSON
    Lines, CSV and Parquet have keys such as `query-id`, `corpus-id` and `score`; a JSON object may map query ids to
    document ids to grades. Grades are whole numbers, also written as `1.0`.

    Raises:
        InvalidInputError: If the file is missing, a line is malformed, or a pair is judged twice.
    """
    grades: Qrels = {}
    for record in read_records(file, header_keys=QUERY_HEADER, names=COLUMN_NAMES):
        if isinstance(record.fields, Mapping) and "place" in record.fields:
            # A list of document ids: these are relevant, and nothing else is said.
            record = type(record)(record.where, record.line, {**record.fields, "score": 1})  # noqa: PLW2901
        row = parse(record, JudgementRow, _COLUMNS, _EXPECTED)
        judged = grades.setdefault(row.query_id, {})
        if row.document_id in judged:
            raise InvalidInputError(
                f"{record.where}: {row.query_id!r} and {row.document_id!r} are judged twice; keep one line."
            )
        judged[row.document_id] = row.grade
    return grades


@dataclass(frozen=True)
class FittedQrels:
    """Judgements of queries that are there.

    Attributes:
        qrels: The judgements, without those of unknown queries.
        notes: What was left out or cannot be found, in sentences.
    """

    qrels: Qrels
    notes: list[str]


def fit_qrels(qrels: Qrels, queries: Mapping[str, str], documents: Container[str], *, where: str) -> FittedQrels:
    """Leave out judgements of unknown queries, and count those of unknown documents, which are never found.

    Args:
        qrels: The judgements.
        queries: Query text by query id.
        documents: The known document ids.
        where: Where the judgements come from, for messages.

    Raises:
        InvalidInputError: If there are no judgements, or none of a known query or none of a known document.
    """
    if not qrels:
        raise InvalidInputError(f"{where} holds no judgements; without them nothing can be measured.")
    unknown = [key for key in qrels if key not in queries]
    fitted = {key: grades for key, grades in qrels.items() if key in queries}
    if not fitted:
        raise InvalidInputError(
            f"{where} judges only queries that are not in the collection, for example {unknown[:5]}; its query ids "
            f"look like {list(queries)[:5]}."
        )
    judged = {key for grades in fitted.values() for key in grades}
    lacking = sorted(key for key in judged if key not in documents)
    if len(lacking) == len(judged):
        raise InvalidInputError(
            f"{where} judges only documents that the corpus lacks, for example {lacking[:5]}; compare its ids with "
            "those of the corpus."
        )
    notes = []
    if unknown:
        notes.append(
            f"{len(unknown)} judged queries are not in the collection and are left out, for example {unknown[0]!r}."
        )
    if lacking:
        notes.append(
            f"{len(lacking)} judged documents are not in the corpus and can never be found, for example {lacking[0]!r}."
        )
    return FittedQrels(fitted, notes)


def check_judged(queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, object]]) -> Qrels:
    """Return judgements with plain whole grades; raise unless something is judged and every judged query has a text.

    Raises:
        InvalidInputError: Naming what is missing.
    """
    if not qrels:
        raise InvalidInputError("qrels is empty; without judgements there is nothing to measure against.")
    plain: Qrels = {}
    for key, grades in qrels.items():
        try:
            if not isinstance(key, str) or not all(isinstance(name, str) for name in grades):
                raise TypeError("ids must be text")
            plain[key] = {name: whole_number(grade) for name, grade in grades.items()}
        except (TypeError, ValueError, AttributeError) as err:
            raise InvalidInputError(
                f"qrels[{key!r}] is {shorten(grades)}; pass query ids to document ids to whole grades, ids as text."
            ) from err
    unknown = [key for key in plain if key not in queries]
    if unknown:
        raise InvalidInputError(f"qrels judges queries that have no text: {unknown[:5]}; add them to queries.")
    return plain


def relevant_ids(grades: Mapping[str, int]) -> Sequence[str]:
    """List the documents with a grade above 0."""
    return [key for key, grade in grades.items() if grade > 0]
