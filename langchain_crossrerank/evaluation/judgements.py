"""Judgements: which documents answer a query, and how well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.text_files import read_lines

Qrels = dict[str, dict[str, int]]
"""Judgements: query id to document id to grade."""


def load_qrels(file: str | os.PathLike[str]) -> Qrels:
    """Read judgements: `query-id`, `corpus-id`, `score` by line, separated by tabs, after a header.

    Raises:
        InvalidInputError: If the file is missing, a line is malformed, or a pair is judged twice.
    """
    grades: Qrels = {}
    for number, line in read_lines(Path(file)):
        parts = line.split("\t")
        if number == 1 and parts[-1].strip() == "score":
            continue
        where = f"{os.fspath(file)}, line {number}"
        try:
            query_id, document_id, written = parts
            grade = int(written)
        except ValueError as err:
            raise InvalidInputError(
                f"{where}: {line!r} is not query-id, corpus-id and a whole-number score, separated by tabs."
            ) from err
        if document_id in grades.setdefault(query_id, {}):
            raise InvalidInputError(f"{where}: {query_id!r} and {document_id!r} are judged twice; keep one line.")
        grades[query_id][document_id] = grade
    return grades


def check_qrels(
    qrels: Mapping[str, Mapping[str, int]], queries: Mapping[str, Any], documents: Mapping[str, Any], *, where: str
) -> None:
    """Raise unless judgements speak of known queries and documents, and of at least one.

    Raises:
        InvalidInputError: Naming the first unknown ids.
    """
    unknown_queries = [key for key in qrels if key not in queries]
    if unknown_queries:
        raise InvalidInputError(
            f"{where} judges queries that are not there: {unknown_queries[:5]}; remove them or add them."
        )
    unknown = sorted({key for grades in qrels.values() for key in grades if key not in documents})
    if unknown:
        raise InvalidInputError(
            f"{where} judges {len(unknown)} documents that the corpus lacks, for example {unknown[:5]}; "
            "remove them or add them."
        )
    if not qrels:
        raise InvalidInputError(f"{where} holds no judgements; without them nothing can be measured.")


def check_judged(queries: Mapping[str, str], qrels: Qrels) -> None:
    """Raise unless something is judged, in the form that measures need, and every judged query has a text.

    Raises:
        InvalidInputError: Naming what is missing.
    """
    if not qrels:
        raise InvalidInputError("qrels is empty; without judgements there is nothing to measure against.")
    for key, grades in qrels.items():
        whole = isinstance(grades, Mapping) and all(
            isinstance(name, str) and isinstance(grade, int) for name, grade in grades.items()
        )
        if not isinstance(key, str) or not whole:
            raise InvalidInputError(
                f"qrels[{key!r}] is {shorten(grades)}; pass query ids to document ids to whole grades, ids as text."
            )
    unknown = [key for key in qrels if key not in queries]
    if unknown:
        raise InvalidInputError(f"qrels judges queries that have no text: {unknown[:5]}; add them to queries.")
