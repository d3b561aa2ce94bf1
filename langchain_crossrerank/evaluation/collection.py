"""Collections to evaluate on: documents, queries and judgements, read from BEIR folders, and runs fixed beforehand."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.judgements import Qrels, check_qrels, load_qrels
from langchain_crossrerank.evaluation.text_files import read_lines

DRAFTED = "drafted"
"""What the metadata of a query that a language model drafted says under `origin`."""


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements.

    Attributes:
        documents: Documents with their ids, in the corpus's order; the title, if any, stands before the text.
        queries: Query text by query id.
        qrels: Grades by query id and document id.
        drafted: Ids of the queries that a language model drafted, so that figures from them are not taken for a
            person's judgement.
    """

    documents: list[Document]
    queries: dict[str, str]
    qrels: Qrels
    drafted: frozenset[str] = frozenset()


def load_beir(folder: str | os.PathLike[str], *, qrels: str = "qrels.tsv") -> Collection:
    """Read a folder in BEIR layout.

    Args:
        folder: A folder with `corpus.jsonl`, `queries.jsonl` and judgements.
        qrels: File of the judgements: a header and then `query-id`, `corpus-id`, `score`, separated by tabs.

    Returns:
        The collection; queries without judgements are left out.

    Raises:
        InvalidInputError: If a file is missing or malformed (with its line), an id comes twice, a judgement names an
            unknown query or document, or no query has judgements.
    """
    root = Path(folder)
    documents: dict[str, Document] = {}
    for where, row in _rows(root / "corpus.jsonl"):
        key = _new_id(row, documents, where)
        text = "\n".join(part for part in (row.get("title"), row.get("text")) if part)
        documents[key] = Document(text, id=key, metadata=dict(row.get("metadata") or {}))
    texts: dict[str, str] = {}
    drafted: set[str] = set()
    for where, row in _rows(root / "queries.jsonl"):
        key = _new_id(row, texts, where)
        texts[key] = row.get("text") or ""
        if (row.get("metadata") or {}).get("origin") == DRAFTED:
            drafted.add(key)
    grades = load_qrels(root / qrels)
    check_qrels(grades, texts, documents, where=str(root / qrels))
    judged = {key: text for key, text in texts.items() if key in grades}
    return Collection(list(documents.values()), judged, grades, frozenset(drafted & judged.keys()))


def load_run(file: str | os.PathLike[str]) -> dict[str, list[tuple[str, float]]]:
    """Read a fixed first stage.

    A line holds `query-id`, `corpus-id` and optionally `score`, separated by tabs; or the six columns of a TREC run,
    `query-id Q0 corpus-id rank score tag`, separated by white space.

    Returns:
        For each query the document ids with their scores, best first; without scores the order of the lines.

    Raises:
        InvalidInputError: If the file is missing or a line is malformed.
    """
    run: dict[str, list[tuple[str, float]]] = {}
    is_trec = None
    for number, line in read_lines(Path(file)):
        parts = line.split("\t")
        columns = line.split()
        if is_trec is None:
            is_trec = len(columns) == 6 and columns[1].upper() == "Q0"
        if is_trec:
            if len(columns) != 6:
                raise InvalidInputError(
                    f"{os.fspath(file)}, line {number}: {line!r} is not query-id, Q0, corpus-id, rank, score and tag."
                )
            parts = [columns[0], columns[2], columns[4]]
        if number == 1 and parts[0].strip() in ("query-id", "qid", "query_id"):
            continue
        found = run.setdefault(parts[0], [])
        try:
            score = float(parts[-1]) if len(parts) > 2 else -float(len(found))
            if math.isnan(score):
                raise ValueError("NaN has no place in an order")
            found.append((parts[1], score))
        except (IndexError, ValueError) as err:
            raise InvalidInputError(
                f"{os.fspath(file)}, line {number}: {line!r} is not query-id, corpus-id and score, separated by tabs."
            ) from err
    return {query_id: sorted(found, key=lambda entry: -entry[1]) for query_id, found in run.items()}


def run_retriever(
    collection: Collection, run: Mapping[str, list[tuple[str, float]]], *, k: int = 100
) -> RunnableLambda[str, list[Document]]:
    """Make a first stage out of a fixed run, such as a published BM25 list.

    Args:
        collection: The documents and queries that the run speaks of.
        run: What `load_run` gives.
        k: Documents to give for each query at most.

    Returns:
        A Runnable from a query's text to its documents in the run's order, for `create_rerank_retriever`.

    Raises:
        InvalidInputError: If the run names a document that the collection lacks, or one query text has two
            different lists.
    """
    by_id = {document.id: document for document in collection.documents}
    found: dict[str, list[Document]] = {}
    for query_id, text in collection.queries.items():
        entries = run.get(query_id, [])[:k]
        if text in found and [document.id for document in found[text]] != [document_id for document_id, _ in entries]:
            raise InvalidInputError(
                f"the query {text!r} comes twice in the collection with different lists; keep one of them."
            )
        unknown = [document_id for document_id, _ in entries if document_id not in by_id]
        if unknown:
            raise InvalidInputError(f"the run of query {query_id!r} names {unknown[:5]}, which the corpus lacks.")
        found[text] = [
            by_id[document_id].model_copy(update={"metadata": {**by_id[document_id].metadata, "initial_score": score}})
            for document_id, score in entries
        ]
    return RunnableLambda(lambda query: found.get(query, []), name="fixed_run")


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in read_lines(file):
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as err:
            raise InvalidInputError(f"{where}: {line[:80]!r} is not JSON ({err}).") from err
        if not isinstance(row, dict) or "_id" not in row:
            raise InvalidInputError(f"{where}: {line[:80]!r} is not an object with an _id.")
        kinds = (("_id", str | int), ("title", str | None), ("text", str | None), ("metadata", dict | None))
        for name, kind in kinds:
            if not isinstance(row.get(name), kind):
                raise InvalidInputError(
                    f"{where}: {name} is {row.get(name)!r}, which it cannot be; see the BEIR layout."
                )
        yield where, row


def _new_id(row: Mapping[str, Any], known: Mapping[str, Any], where: str) -> str:
    key = str(row["_id"])
    if key in known:
        raise InvalidInputError(f"{where}: the id {key!r} comes twice; ids must be unique.")
    return key
