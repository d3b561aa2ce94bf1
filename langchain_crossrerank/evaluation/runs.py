"""Runs fixed beforehand, such as a published BM25 list, and first stages made of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank.checks import cut
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.digests import digest_of
from langchain_crossrerank.evaluation.records import Record, plain_key, read_records
from langchain_crossrerank.evaluation.rows import COLUMN_NAMES, DOCUMENT_IDS, QUERY_HEADER, QUERY_IDS, RunRow, parse
from langchain_crossrerank.metadata import INITIAL_SCORE

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation.collection import Collection

Run = dict[str, list[tuple[str, float]]]
"""For each query the document ids with their scores, best first."""

_TREC = (
    ("queryid", "iteration", "docid", "rank", "score", "tag"),
    ("queryid", "iteration", "docid", "rank", "score"),
)
_COLUMNS = (("queryid", "docid"), ("queryid", "docid", "unnamed"), *_TREC)
_NO_ORDER = frozenset({"", "id", "index", "unnamed0", "iteration", "iter", "q0", "tag", "runid"}).union(
    QUERY_IDS, DOCUMENT_IDS
)
"""Keys whose numbers order nothing: ids, the index of an exported table, and the columns of TREC that are read over."""

_ORDERS = {"score": "a score", "rank": "a rank", "unnamed": "a third column", None: "neither score nor rank"}

_EXPECTED = "query-id, corpus-id and score, or the six columns of a TREC run"


def load_run(file: str | os.PathLike[str]) -> Run:
    """Read a fixed first stage.

    A line holds a query id, a document id and optionally a score or a rank, after a header or not; or the six columns
    of a TREC run, the second of which may hold anything. JSON, JSON Lines, CSV and Parquet have keys such as
    `query-id`, `corpus-id` and `score` or `rank`; a JSON object may map query ids to document ids to scores.

    A third column without a name holds ranks, as in MS MARCO runs, if it holds whole numbers that never fall from line
    to line of a query, or the numbers 1 to n of every query in mixed order. It holds scores if its numbers never rise,
    or are not all whole. Anything else is refused.

    Equal scores keep the order of the lines; in a TREC run they are ordered as `trec_eval` does: scores are compared in
    single precision, and the greater document id is first.

    Returns:
        For each query the document ids with their scores, best first. Ranks become negative scores; without either,
        scores fall by one from 0.

    Raises:
        InvalidInputError: If the file is missing or a line is malformed, a document is listed twice for a query, some
            records have a score and others none, a number has an unknown name, or ranks and scores cannot be
            distinguished.
    """
    found: dict[str, dict[str, RunRow]] = {}
    is_trec = False
    first: RunRow | None = None
    for record in read_records(file, header_keys=QUERY_HEADER, names=COLUMN_NAMES):
        record = _without_unknown_header(record)  # noqa: PLW2901
        is_trec = is_trec or (isinstance(record.fields, list) and len(record.fields) in (5, 6))
        row = parse(record, RunRow, _COLUMNS, _EXPECTED)
        first = first or row
        _check_order(record, row, first.ordered_by)
        listed = found.setdefault(row.query_id, {})
        if row.document_id in listed:
            raise InvalidInputError(
                f"{record.where}: the document {row.document_id!r} comes twice for the query {row.query_id!r}; keep "
                "one line."
            )
        listed[row.document_id] = row
    rows = {query_id: list(listed.values()) for query_id, listed in found.items()}
    unnamed_are_ranks = _unnamed_are_ranks(rows, os.fspath(file))
    return {query_id: _ordered(listed, unnamed_are_ranks, is_trec) for query_id, listed in rows.items()}


def run_retriever(
    collection: Collection, run: Mapping[str, Sequence[tuple[str, float]] | Mapping[str, float]], *, k: int = 100
) -> RunnableLambda[str, list[Document]]:
    """Make a first stage out of a fixed run, such as a published BM25 list.

    Args:
        collection: The documents and queries of the run.
        run: For each query its documents with scores, best first, as `load_run` returns it; or scores by document id,
            as `ir_measures` has them, in any order.
        k: The largest number of documents for each query.

    Returns:
        A Runnable from a query's text to its documents in the run's order, for `create_rerank_retriever`. Its
        `run_key` metadata identifies the run, so that a checkpoint of another one is refused.

    Raises:
        InvalidInputError: If the run has a document that the corpus lacks, or one query text has two different lists.
    """
    by_id = {document.id: document for document in collection.documents}
    found: dict[str, list[Document]] = {}
    for query_id, text in collection.queries.items():
        listed = run.get(query_id, [])
        if isinstance(listed, Mapping):
            listed = sorted(listed.items(), key=lambda entry: -entry[1])
        entries = listed[:k]
        if text in found and [document.id for document in found[text]] != [document_id for document_id, _ in entries]:
            raise InvalidInputError(
                f"the query {text!r} comes twice in the collection with different lists; keep one of them."
            )
        unknown = [document_id for document_id, _ in entries if document_id not in by_id]
        if unknown:
            raise InvalidInputError(f"the run of query {query_id!r} names {unknown[:5]}, which the corpus lacks.")
        found[text] = [
            by_id[document_id].model_copy(update={"metadata": {**by_id[document_id].metadata, INITIAL_SCORE: score}})
            for document_id, score in entries
        ]
    return FixedRun(found)


class FixedRun(RunnableLambda[str, list[Document]]):
    """A first stage that looks a query's documents up.

    Attributes:
        run_key: A digest of all that it can return.
    """

    def __init__(self, found: Mapping[str, list[Document]]) -> None:
        super().__init__(lambda query: list(found.get(query, [])), name="fixed_run")
        self.run_key = digest_of(
            (query, [(document.id, document.page_content, document.metadata) for document in documents])
            for query, documents in found.items()
        )


def _without_unknown_header(record: Record) -> Record:
    """Read columns by place where the header begins with the query and names no document."""
    if not isinstance(record.fields, Mapping):
        return record
    keys, values = [plain_key(key) for key in record.fields], list(record.fields.values())
    by_place = len(values) in (2, 3) and keys[0] in QUERY_IDS and all(isinstance(value, str) for value in values)
    if not by_place or not set(keys).isdisjoint(DOCUMENT_IDS):
        return record
    return Record(record.where, record.line, values)


def _check_order(record: Record, row: RunRow, expected: str | None) -> None:
    """Refuse a record whose place in the list would be guessed.

    Args:
        record: The record.
        row: The same, typed.
        expected: What decides the places of the other records; see `RunRow.ordered_by`.
    """
    start = f"{record.where}: {cut(record.line, 80)!r}"
    if row.ordered_by != expected:
        raise InvalidInputError(
            f"{start} has {_ORDERS[row.ordered_by]}, but the records before it have {_ORDERS[expected]}; write the "
            "same for all."
        )
    if row.ordered_by is not None or not isinstance(record.fields, Mapping):
        return
    for key, value in record.fields.items():
        if plain_key(key) not in _NO_ORDER and _is_number(value):
            raise InvalidInputError(
                f"{start}: {key!r} is {value!r}, and may be a score or a rank; rename it score (the greatest is the "
                "best) or rank (the least is the best), or remove it."
            )


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _unnamed_are_ranks(rows: Mapping[str, Sequence[RunRow]], file: str) -> bool:
    """Decide whether a third column without a name holds ranks or scores.

    Raises:
        InvalidInputError: If it may be either.
    """
    columns = [[row.unnamed for row in listed if row.unnamed is not None] for listed in rows.values()]
    # Where all documents of a query have the same number, the order is the same either way.
    telling = [column for column in columns if len(set(column)) > 1]
    if not telling:
        return False
    rises = all(column == sorted(column) for column in telling)
    falls = all(column == sorted(column, reverse=True) for column in telling)
    counts = all(sorted(column) == list(range(1, len(column) + 1)) for column in telling)
    may_be_ranks = all(value >= 0 and value.is_integer() for column in telling for value in column)
    if may_be_ranks and (rises or (counts and not falls)):
        return True
    if (falls and not counts) or not (rises or may_be_ranks):
        return False
    reason = (
        "its numbers rise in every query"
        if rises
        else "it counts down to 1 in every query"
        if falls
        else "its numbers are whole and neither rise nor fall in every query"
    )
    raise InvalidInputError(
        f"{file}: the third column may hold ranks or scores, as {reason}; name the columns in a first line, such as "
        "query-id, corpus-id and rank (or score)."
    )


def _ordered(rows: Sequence[RunRow], unnamed_are_ranks: bool, is_trec: bool) -> list[tuple[str, float]]:
    entries = []
    for place, row in enumerate(rows):
        score = row.score
        if score is None and row.unnamed is not None:
            score = -row.unnamed if unnamed_are_ranks else row.unnamed
        if score is None:
            score = -float(place) if row.rank is None else -row.rank
        entries.append((row.document_id, score))
    if is_trec:
        entries.sort(key=lambda entry: entry[0], reverse=True)
        return sorted(entries, key=lambda entry: -float(np.float32(entry[1])))
    return sorted(entries, key=lambda entry: -entry[1])
