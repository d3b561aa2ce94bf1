"""Reads training data: JSONL files in the dataset shapes of sentence-transformers, and BEIR folders."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.pairs import encodable
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.collection import find_splits, load_beir
from langchain_crossrerank.passages import flat_text

_logger = logging.getLogger(__name__)

_FORM = '{"query": "...", "positive": "..."}, optionally with "negative", "negatives", "answers", "title" or "source"'

_QUERY = ("query", "anchor", "question")
_POSITIVE = ("positive", "answer")
_PASSAGE = ("passage", "document", "text")
_LABEL = ("label", "score")
_PASSAGES = ("docs", "documents", "passages")
_LABELS = ("labels", "scores")
_NUMBERED_NEGATIVE = re.compile(r"negative(_\d+)?")


@dataclass(frozen=True)
class TrainingExample:
    """A query with passages that answer it.

    Attributes:
        query: The search text.
        positives: Passages that answer it; at least one.
        negatives: Passages known not to answer it; mining adds others.
        answers: Short answers; a mined passage that contains one is not used as a negative.
        source: Where the example comes from; sources are weighted and counted.
        unit: Examples of the same unit are held out together. The title of the text, if there is one, so that no
            text is trained on and validated on.
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
        passages: Distinct passages by source. Negatives for a query are mined from the passages of its source.
    """

    examples: list[TrainingExample]
    passages: dict[str, list[str]]

    def merged(self) -> TrainingData:
        """Merge the examples of each query into one, so that no positive of a query is mined as its negative.

        Queries are the same if they differ in case and white space only. The merged example has the query, source and
        unit of the first one, and its positives are added to the passages of that source.
        """
        groups: dict[str, list[TrainingExample]] = {}
        for example in self.examples:
            groups.setdefault(flat_text(example.query.casefold()), []).append(example)
        passages = {source: dict.fromkeys(texts) for source, texts in self.passages.items()}
        examples = []
        for found in groups.values():
            positives = tuple(dict.fromkeys(text for example in found for text in example.positives))
            right = set(map(flat_text, positives))
            negatives = dict.fromkeys(text for example in found for text in example.negatives)
            merged = TrainingExample(
                query=found[0].query,
                positives=positives,
                negatives=tuple(text for text in negatives if flat_text(text) not in right),
                answers=tuple(dict.fromkeys(text for example in found for text in example.answers)),
                source=found[0].source,
                unit=next((example.unit for example in found if example.unit), ""),
            )
            examples.append(merged)
            passages.setdefault(merged.source, {}).update(dict.fromkeys((*merged.positives, *merged.negatives)))
        return TrainingData(examples, {source: list(texts) for source, texts in passages.items()})


def read_training_data(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> TrainingData:
    """Read JSONL files (`.jsonl`, `.jsonl.gz`) and BEIR folders.

    Each line of a JSONL file is an object in one of these shapes:

    - a query with passages that answer it: `query`, and `positive` or a list `positives`; negatives as `negative`,
      `negative_1`, `negative_2`, ... or a list `negatives`;
    - a labelled pair: `query`, `passage` and `label`, which is 1 (relevant) or 0;
    - a labelled list: `query`, `docs` and `labels`, lists of equal length.

    `anchor` and `question` are read as `query`, `answer` as `positive`, `document` and `text` as `passage`, `score` as
    `label`, `documents` and `passages` as `docs`, `scores` as `labels`. A line may also have `answers` (short answers),
    `title`, and `source`; without `source`, the name of the file is the source. A key with `null` or `NaN` is taken as
    left out. Other keys are errors.

    From a BEIR folder come the queries judged in `qrels/train.tsv` or, if `qrels/` holds nothing, in `qrels.tsv`,
    with the documents judged above 0, and the whole corpus to mine from.
    Judged documents that the corpus lacks are left out, and so is a query that has no positive.
    The same query on several lines, in several files or under several ids becomes one example. Lone surrogates become
    the replacement character.

    Args:
        paths: Files and folders, or one of them.

    Returns:
        The examples and the passages.

    Raises:
        InvalidInputError: If a path is missing, a file is empty or malformed (with its line), a query has no positive,
            or a folder has judgements of other splits only.
    """
    if not paths:
        raise InvalidInputError("there is nothing to train on; pass JSONL files or BEIR folders.")
    examples: list[TrainingExample] = []
    passages: dict[str, dict[str, None]] = {}
    for path in map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths):
        found, corpus = _read_beir(path) if path.is_dir() else (_read_jsonl(path), ())
        examples += found
        for example in found:
            passages.setdefault(example.source, {}).update(dict.fromkeys((*example.positives, *example.negatives)))
        if corpus:
            passages[found[0].source].update(dict.fromkeys(corpus))
    merged = TrainingData(examples, {source: list(texts) for source, texts in passages.items()}).merged()
    return _without_unanswered(merged)


def _without_unanswered(data: TrainingData) -> TrainingData:
    answered = [example for example in data.examples if example.positives]
    unanswered = [example.query for example in data.examples if not example.positives]
    if not answered:
        raise InvalidInputError(
            f"none of {len(unanswered)} queries has a positive; at least one line must have label 1 or a positive."
        )
    if unanswered:
        _logger.warning(
            "%d of %d queries have no passage labelled as relevant and are left out, for example %s.",
            len(unanswered),
            len(data.examples),
            shorten(unanswered[0]),
        )
    return TrainingData(answered, data.passages)


def _read_beir(folder: Path) -> tuple[list[TrainingExample], list[str]]:
    splits = find_splits(folder)
    if splits and "train" not in splits:
        raise InvalidInputError(
            f"{folder} has no judgements to train on, only those of {', '.join(map(repr, splits))}; save them as "
            "qrels/train.tsv."
        )
    collection = load_beir(folder, split="train" if splits else None)
    texts = {str(document.id): encodable(document.page_content) for document in collection.documents}
    lacking = {key for grades in collection.qrels.values() for key in grades if key not in texts}
    if lacking:
        _logger.warning(
            "%s: %d judged documents are not in the corpus and are left out, for example %s.",
            folder,
            len(lacking),
            shorten(min(lacking)),
        )
    examples = []
    for query_id, query in collection.queries.items():
        grades = {key: grade for key, grade in collection.qrels[query_id].items() if key in texts}
        positives = tuple(texts[key] for key, grade in grades.items() if grade > 0 and texts[key].strip())
        negatives = tuple(texts[key] for key, grade in grades.items() if grade <= 0 and texts[key].strip())
        examples.append(TrainingExample(encodable(query), positives, negatives, source=folder.name))
    return examples, [text for text in texts.values() if text.strip()]


def _read_jsonl(file: Path) -> list[TrainingExample]:
    examples = [_Line(where, row).example(default_source=file.name.split(".")[0]) for where, row in _rows(file)]
    if not examples:
        raise InvalidInputError(f"{file} is empty; a line is {_FORM}.")
    return examples


class _Line:
    """One line of a JSONL file, read key by key; keys that nothing has read are unknown.

    What writes rows of different lengths, such as pandas, fills them up with null or NaN, which is nothing here.
    """

    def __init__(self, where: str, row: Mapping[str, Any]) -> None:
        self._where = where
        self._row = {key: value for key, value in row.items() if value is not None and value == value}  # noqa: PLR0124
        self._read: set[str] = set()

    def example(self, *, default_source: str) -> TrainingExample:
        """Return the line as an example; one that is labelled may have no positive.

        Raises:
            InvalidInputError: If a value is of another kind, a positive is missing, or a key is unknown.
        """
        query_key = self._one_of(_QUERY)
        if query_key is None:
            raise InvalidInputError(f"{self._where}: no query; the keys are {list(self._row)}. A line is {_FORM}.")
        query = self._text(query_key)
        positives, negatives = self._labelled()
        is_labelled = bool(positives or negatives)
        if key := self._one_of(_POSITIVE):
            positives.append(self._text(key))
        positives += self._texts("positives")
        numbered = [key for key in self._row if _NUMBERED_NEGATIVE.fullmatch(key)]
        negatives += [*map(self._text, numbered), *self._texts("negatives")]
        example = TrainingExample(
            query=query,
            positives=tuple(positives),
            negatives=tuple(negatives),
            answers=tuple(self._texts("answers")),
            source=self._optional_text("source") or default_source,
            unit=self._optional_text("title"),
        )
        unknown = sorted(set(self._row) - self._read)
        if unknown:
            raise InvalidInputError(f"{self._where}: unknown keys {unknown}; rename or remove them. A line is {_FORM}.")
        if not positives and not is_labelled:
            raise InvalidInputError(f"{self._where}: the query {shorten(query)} has no positive; a line is {_FORM}.")
        return example

    def _labelled(self) -> tuple[list[str], list[str]]:
        """Read a labelled pair or a labelled list as positives and negatives."""
        labels, passages = self._one_of(_LABELS), self._one_of(_PASSAGES)
        if labels and passages:
            texts = self._list(passages)
            values = self._value(labels)
            if not isinstance(values, list) or len(values) != len(texts):
                raise InvalidInputError(
                    f"{self._where}: {labels} is {shorten(values)}, not a list of {len(texts)} labels, one for each "
                    f"entry of {passages}."
                )
            relevant = [self._is_relevant(value, f"{labels}[{place}]") for place, value in enumerate(values)]
            pairs = [(text, flag) for text, flag in zip(texts, relevant, strict=True) if text.strip()]
        elif (label := self._one_of(_LABEL)) and (passage := self._one_of((*_PASSAGE, *_POSITIVE))):
            pairs = [(self._text(passage), self._is_relevant(self._value(label), label))]
        else:
            pairs = []
        return [text for text, relevant in pairs if relevant], [text for text, relevant in pairs if not relevant]

    def _is_relevant(self, label: Any, name: str) -> bool:
        if label not in (0, 1):
            raise InvalidInputError(
                f"{self._where}: {name} is {shorten(label)}; a label must be 1 (relevant) or 0. To learn from graded "
                "scores, train with the model that gave them as the teacher."
            )
        return bool(label)

    def _one_of(self, names: Sequence[str]) -> str | None:
        """Return the first of several names for the same thing that the line has and that is still unread."""
        return next((name for name in names if name in self._row and name not in self._read), None)

    def _value(self, name: str) -> Any:
        self._read.add(name)
        return self._row.get(name)

    def _text(self, name: str) -> str:
        value = self._value(name)
        if not isinstance(value, str) or not value.strip():
            several = "negatives" if _NUMBERED_NEGATIVE.fullmatch(name) else "positives" if name in _POSITIVE else ""
            remedy = f'put a list under "{several}"' if several and isinstance(value, list) else f"a line is {_FORM}"
            raise InvalidInputError(f"{self._where}: {name} is {shorten(value)}, not a text; {remedy}.")
        return encodable(value)

    def _optional_text(self, name: str) -> str:
        return self._text(name) if self._row.get(name) else self._value(name) or ""

    def _list(self, name: str) -> list[str]:
        values = self._value(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidInputError(
                f"{self._where}: {name} is {shorten(values)}, not a list of texts; a line is {_FORM}."
            )
        return list(map(encodable, values))

    def _texts(self, name: str) -> list[str]:
        return [value for value in self._list(name) if value.strip()] if self._value(name) else []


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not file.is_file():
        raise InvalidInputError(f"there is no file or folder {str(file)!r}; pass JSONL files or BEIR folders.")
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8-sig") as lines
        ):
            for number, line in enumerate(map(str.rstrip, lines), start=1):
                if not line:
                    continue
                where = f"{file}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as err:
                    raise InvalidInputError(
                        f"{where}: {shorten(line)} is not JSON ({err}); a line is {_FORM}."
                    ) from err
                if not isinstance(row, dict):
                    raise InvalidInputError(f"{where}: {shorten(line)} is not an object; a line is {_FORM}.")
                yield where, row
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{file} is not UTF-8 text ({err}); convert it.") from err
    except (OSError, EOFError, zlib.error) as err:
        raise InvalidInputError(f"cannot read {file} ({err}); copy or download it again.") from err
