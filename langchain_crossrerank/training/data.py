"""Reads what to train on: JSONL files of queries with their positive passages, and BEIR folders."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.collection import load_beir

_FORM = '{"query": "...", "positive": "..."}, with "positives" or "negatives" as lists where there are several'


@dataclass(frozen=True)
class TrainingExample:
    """A query with passages that answer it.

    Attributes:
        query: The search text.
        positives: Passages that answer it; at least one.
        negatives: Passages known not to answer it; mined ones come to them.
        answers: Short answers; a mined passage that contains one is no negative.
        source: Where the example is from, for weights and counts.
        unit: What is held apart together: the title where there is one, so that no passage is on both sides.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    source: str = ""
    unit: str = ""


@dataclass(frozen=True)
class TrainingData:
    """Examples, and all passages that negatives may be mined from.

    Attributes:
        examples: In the order of the files.
        passages: Distinct passages, by source: negatives of a query come from its own source's passages.
    """

    examples: list[TrainingExample]
    passages: dict[str, list[str]]


def read_training_data(paths: Sequence[str | os.PathLike[str]]) -> TrainingData:
    """Read JSONL files (`.jsonl`, `.jsonl.gz`) and BEIR folders.

    A line of a JSONL file is an object with `query` and `positive` (or a list `positives`), and optionally
    `negatives`, `answers`, `title` and `source`. Lines with the same query and source are one example. A BEIR folder
    gives its judged queries with the documents judged above zero, and its whole corpus to mine from.

    Args:
        paths: Files and folders.

    Returns:
        The examples and the passages.

    Raises:
        InvalidInputError: If a path is missing, a file is empty or malformed (with its line), or a query has no
            positive.
    """
    if not paths:
        raise InvalidInputError("there is nothing to train on; pass JSONL files or BEIR folders.")
    examples: list[TrainingExample] = []
    passages: dict[str, dict[str, None]] = {}
    for path in map(Path, paths):
        found, corpus = _read_beir(path) if path.is_dir() else (_read_jsonl(path), ())
        for example in found:
            pool = passages.setdefault(example.source, {})
            pool |= dict.fromkeys((*example.positives, *example.negatives))
        if found:
            passages[found[0].source] |= dict.fromkeys(corpus)
        examples += found
    return TrainingData(examples, {source: list(pool) for source, pool in passages.items()})


def _read_beir(folder: Path) -> tuple[list[TrainingExample], list[str]]:
    collection = load_beir(folder)
    texts = {str(document.id): document.page_content for document in collection.documents}
    examples = []
    for query_id, query in collection.queries.items():
        grades = collection.qrels[query_id]
        positives = tuple(texts[key] for key, grade in grades.items() if grade > 0 and texts[key].strip())
        if not positives:
            raise InvalidInputError(
                f"{folder}: the query {query_id!r} has no document judged above 0 to learn from; remove its judgements."
            )
        negatives = tuple(texts[key] for key, grade in grades.items() if grade <= 0 and texts[key].strip())
        examples.append(TrainingExample(query, positives, negatives, source=folder.name))
    return examples, [text for text in texts.values() if text.strip()]


def _read_jsonl(file: Path) -> list[TrainingExample]:
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for where, row in _rows(file):
        query = _text(row, "query", where)
        positives = _texts(row, "positives", where)
        if "positive" in row:
            positives = (_text(row, "positive", where), *positives)
        if not positives:
            raise InvalidInputError(f"{where}: the query {query!r} has no positive; a line is {_FORM}.")
        source = file.name.split(".")[0]
        entry = merged.setdefault((source, query), {"positives": {}, "negatives": {}, "answers": {}, "unit": ""})
        entry["positives"] |= dict.fromkeys(positives)
        entry["negatives"] |= dict.fromkeys(_texts(row, "negatives", where))
        entry["answers"] |= dict.fromkeys(_texts(row, "answers", where))
        entry["unit"] = entry["unit"] or (row.get("title") or "")
    if not merged:
        raise InvalidInputError(f"{file} is empty; a line is {_FORM}.")
    return [
        TrainingExample(
            query,
            tuple(entry["positives"]),
            tuple(key for key in entry["negatives"] if key not in entry["positives"]),
            tuple(entry["answers"]),
            source,
            entry["unit"],
        )
        for (source, query), entry in merged.items()
    ]


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.is_file():
        raise InvalidInputError(f"there is no file or folder {str(file)!r}; pass JSONL files or BEIR folders.")
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(map(str.rstrip, lines), start=1):
                if not line:
                    continue
                where = f"{file}, line {number}"
                try:
                    row = json.loads(line)
                except ValueError as err:
                    raise InvalidInputError(f"{where}: {line[:80]!r} is not JSON ({err}).") from err
                if not isinstance(row, dict):
                    raise InvalidInputError(f"{where}: {line[:80]!r} is not an object; a line is {_FORM}.")
                yield where, row
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{file} is not UTF-8 text ({err}); convert it.") from err
    except (OSError, EOFError) as err:
        raise InvalidInputError(f"{file} cannot be read ({err}); copy or download it again.") from err


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{where}: {name} is {value!r}, not a text; a line is {_FORM}.")
    return value


def _texts(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = row.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{where}: {name} is {values!r}, not a list of texts; a line is {_FORM}.")
    return tuple(value for value in values if value.strip())
