"""Collections to evaluate on: documents, queries and judgements, from BEIR folders and from test sets in one file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.judgements import Qrels, fit_qrels, load_qrels
from langchain_crossrerank.evaluation.records import Record, plain_key, read_records
from langchain_crossrerank.evaluation.rows import (
    COLUMN_NAMES,
    DOCUMENT_HEADER,
    DOCUMENT_IDS,
    QUERY_TEXT_HEADER,
    TEXTS,
    DocumentRow,
    QueryRow,
    TitleRow,
    has_key,
    parse,
)

DRAFTED = "drafted"
"""Value of the metadata key `origin` of a query that a language model drafted."""

DEFAULT_SPLIT = "test"

_FORMATS = ("jsonl", "json", "tsv", "csv", "parquet", "jsonl.gz", "json.gz", "tsv.gz", "csv.gz")
_QRELS_FORMATS = (*_FORMATS, "txt", "txt.gz", "qrels", "qrel", "trec")

_NO_TEXT = frozenset({"title", "id", "url", "metadata", *DOCUMENT_IDS})
"""Keys of a document that hold something other than its text."""


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements.

    Attributes:
        documents: Documents with their ids, in the corpus's order; the title, if any, precedes the text.
        queries: Query text by query id.
        qrels: Grades by query id and document id.
        drafted: Ids of the queries that a language model drafted, so that figures from them are not mistaken for a
            person's judgement.
        notes: What was left out or counted when reading, in sentences.
    """

    documents: list[Document]
    queries: dict[str, str]
    qrels: Qrels
    drafted: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def sample(self, count: int, *, seed: int = 0) -> Collection:
        """Take a random sample of the judged queries, with all documents.

        Args:
            count: Queries to take.
            seed: Of the random choice, so that the same call takes the same queries.

        Returns:
            The sample, with a note on what it costs in certainty; all queries if there are no more than `count`.

        Raises:
            InvalidInputError: If `count` is below 1.
        """
        if count < 1:
            raise InvalidInputError(f"a sample of {count} queries cannot be taken; pass at least 1.")
        judged = [key for key in self.queries if key in self.qrels]
        if count >= len(judged):
            return self
        chosen = np.random.default_rng(seed).choice(len(judged), count, replace=False)
        taken = {judged[place] for place in chosen}
        keys = [key for key in judged if key in taken]
        wider = math.sqrt(len(judged) / count)
        return replace(
            self,
            queries={key: self.queries[key] for key in keys},
            qrels={key: self.qrels[key] for key in keys},
            drafted=self.drafted & taken,
            notes=(
                *self.notes,
                f"A random sample of {count} of {len(judged)} judged queries: intervals are about {wider:.1f} times "
                "as wide as with all of them.",
            ),
        )


def load_beir(
    folder: str | os.PathLike[str], *, qrels: str | os.PathLike[str] | None = None, split: str | None = None
) -> Collection:
    """Read a folder in BEIR layout.

    `corpus` and `queries` are JSON Lines, as published, or JSON, TSV, CSV or Parquet. Ids may be called `_id`, `id`,
    `docid` and the like; texts `text`, `contents`, `query`, `question` and the like.

    Args:
        folder: A folder with `corpus.jsonl`, `queries.jsonl` and judgements.
        qrels: File of the judgements, see `load_qrels`; `None` is `qrels/test.tsv` or `qrels.tsv`.
        split: Take `qrels/{split}.tsv`, for example `"train"` or `"dev"`.

    Returns:
        The collection; queries without judgements are left out. Judgements of unknown queries or documents are
        counted in its notes.

    Raises:
        InvalidInputError: If a file is missing or malformed (with its line), an id comes twice, no document has text,
            no judgement fits, both `qrels` and `split` are given, or a split's judgements are there in two formats.
    """
    root = Path(folder)
    judged_by = _qrels_file(root, qrels, split)
    documents = load_corpus(_find(root, "corpus"))
    texts, drafted = _load_queries(_find(root, "queries"))
    fitted = fit_qrels(load_qrels(judged_by), texts, {str(document.id) for document in documents}, where=str(judged_by))
    return assemble(documents, texts, fitted.qrels, drafted, fitted.notes)


def load_corpus(file: str | os.PathLike[str]) -> list[Document]:
    """Read documents, from JSON Lines, JSON, TSV, CSV or Parquet.

    Raises:
        InvalidInputError: If the file is missing or malformed (with its line), or an id comes twice.
    """
    documents: dict[str, Document] = {}
    expected = "an object with an _id and a text, or an id and a text separated by a tab"
    columns = (("id", "text"), ("id", "text", "title"))
    for record in read_records(file, header_keys=DOCUMENT_HEADER, names=COLUMN_NAMES):
        row: DocumentRow | TitleRow = (
            parse(record, TitleRow, columns, expected)
            if _has_only_title(record)
            else parse(record, DocumentRow, columns, expected)
        )
        _check_new(row.id, documents, record.where)
        text = "\n".join(part for part in (row.title, row.text) if part)
        documents[row.id] = Document(text, id=row.id, metadata=dict(row.metadata))
    return list(documents.values())


def load_queries(file: str | os.PathLike[str]) -> dict[str, str]:
    """Read query texts by query id, from JSON Lines, JSON, TSV, CSV or Parquet.

    Raises:
        InvalidInputError: If the file is missing or malformed (with its line), or an id comes twice.
    """
    return _load_queries(file)[0]


def assemble(
    documents: Sequence[Document],
    queries: Mapping[str, str],
    qrels: Qrels,
    drafted: frozenset[str] = frozenset(),
    notes: Sequence[str] = (),
) -> Collection:
    """Put a collection together: judged queries only, and notes about texts that are missing.

    Raises:
        InvalidInputError: If no document or no judged query has text.
    """
    notes = list(notes)
    blank_documents = sum(not document.page_content.strip() for document in documents)
    if blank_documents == len(documents):
        raise InvalidInputError(f"none of the {len(documents)} documents of the corpus has text; check its keys.")
    if blank_documents:
        notes.append(f"{blank_documents} of {len(documents)} documents have no text.")
    judged = {key: text for key, text in queries.items() if key in qrels}
    kept = {key: text for key, text in judged.items() if text.strip()}
    if not kept:
        raise InvalidInputError("no judged query has text; check the keys of the queries.")
    if len(kept) < len(judged):
        notes.append(f"{len(judged) - len(kept)} judged queries have no text and are left out.")
    return Collection(
        list(documents), kept, {key: qrels[key] for key in qrels if key in kept}, drafted & kept.keys(), tuple(notes)
    )


def _load_queries(file: str | os.PathLike[str]) -> tuple[dict[str, str], frozenset[str]]:
    texts: dict[str, str] = {}
    drafted: set[str] = set()
    expected = "an object with an _id and a text, or an id and a text separated by a tab"
    for record in read_records(file, header_keys=QUERY_TEXT_HEADER, names=COLUMN_NAMES):
        row = parse(record, QueryRow, (("id", "text"),), expected)
        _check_new(row.id, texts, record.where)
        texts[row.id] = row.text
        if row.metadata.get("origin") == DRAFTED:
            drafted.add(row.id)
    return texts, frozenset(drafted)


def _has_only_title(record: Record) -> bool:
    """Whether a document has a title, and nothing that may be its text under another name."""
    if not has_key(record, ("title",)) or has_key(record, TEXTS) or not isinstance(record.fields, Mapping):
        return False
    others = (value for key, value in record.fields.items() if plain_key(key) not in _NO_TEXT)
    return not any(value and isinstance(value, str | list) for value in others)


def _find(root: Path, name: str) -> Path:
    """Find a file of the folder by its stem, in one of the formats that are read."""
    found = [root / f"{name}.{ending}" for ending in _FORMATS if (root / f"{name}.{ending}").is_file()]
    return found[0] if found else root / f"{name}.jsonl"


def find_splits(root: Path) -> dict[str, list[Path]]:
    """List the judgements in a folder's `qrels/` by split; backups and hidden files are not read."""
    found: dict[str, list[Path]] = {}
    for path in sorted((root / "qrels").glob("*.*")):
        name, _, ending = path.name.partition(".")
        if name and ending.lower() in _QRELS_FORMATS:
            found.setdefault(name, []).append(path)
    return found


def _qrels_file(root: Path, qrels: str | os.PathLike[str] | None, split: str | None) -> Path:
    """Decide which judgements to read.

    Raises:
        InvalidInputError: If both ways are given, or a split is not there or there in several formats.
    """
    if qrels is not None:
        if split is not None:
            raise InvalidInputError(f"both qrels={os.fspath(qrels)!r} and split={split!r} were given; pass one.")
        return root / qrels
    splits = find_splits(root)
    if split is None and not splits:
        return _find(root, "qrels") if _find(root, "qrels").is_file() else root / "qrels.tsv"
    if split is None and _find(root, "qrels").is_file():
        return _find(root, "qrels")
    wanted = DEFAULT_SPLIT if split is None else split
    if wanted not in splits:
        there = f"only {', '.join(map(repr, splits))}; pass" if splits else "and no others in qrels/; leave out"
        raise InvalidInputError(
            f"{str(root)!r} has no judgements of the split {wanted!r}, {there} split= (on the command line --split)."
        )
    if len(splits[wanted]) > 1:
        names = " and ".join(repr(path.name) for path in splits[wanted])
        raise InvalidInputError(
            f"{str(root / 'qrels')!r} has judgements of the split {wanted!r} in {names}; keep one of them, or name it "
            "with qrels= (on the command line --qrels)."
        )
    return splits[wanted][0]


def _check_new(key: str, known: Mapping[str, object], where: str) -> None:
    if key in known:
        raise InvalidInputError(f"{where}: the id {key!r} comes twice; ids must be unique.")
