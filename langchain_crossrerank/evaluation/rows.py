"""The records of a collection, typed: documents, queries, judgements and run entries, and the keys that name them."""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from langchain_crossrerank.checks import cut
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.records import Record, plain_key

# In PyTerrier's results `docno` is the document's own id and `docid` its place in the index.
DOCUMENT_IDS = ("docno", "docid", "documentid", "corpusid", "pid", "passageid", "did", "chunkid", "doc", "document")
QUERY_IDS = ("queryid", "qid", "questionid", "topicid", "topic", "query", "q")
TEXTS = ("text", "contents", "content", "pagecontent", "passage", "body", "chunk", "document", "abstract")
QUERIES = ("text", "query", "question", "querytext", "contents", "content", "userinput", "title")
GRADES = ("score", "rel", "relevance", "grade", "label", "qrel", "judgement", "judgment")
SCORES = ("score", "sim", "similarity", "relevancescore", "value")
RANKS = ("rank", "position", "pos", "place")

QUERY_HEADER = frozenset({"queryid", "qid", "questionid", "topicid", "topic", "query"})
DOCUMENT_HEADER = frozenset({"id", *DOCUMENT_IDS})
QUERY_TEXT_HEADER = frozenset({"id", *QUERY_IDS})
COLUMN_NAMES = frozenset({"id", *DOCUMENT_IDS, *QUERY_IDS, *TEXTS, *QUERIES, *GRADES, *SCORES, *RANKS}) - {"q"}
"""Names of columns, without one that is as likely an id."""

Row = TypeVar("Row", bound=BaseModel)


def _to_id(value: object) -> object:
    """Ids may be numbers, also those of numpy; anything else is left for the type to refuse."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        # Where Windows files were joined, a byte order mark begins a line.
        return value.strip().removeprefix("\ufeff").lstrip()
    return str(value) if hasattr(value, "__index__") else value


def whole_number(value: object) -> int:
    """Return a grade as an `int`: `1`, `"1"`, `1.0`, `"1.0"` and numpy's numbers are the same grade.

    Raises:
        ValueError: If the value is not a whole number.
    """
    if isinstance(value, bool | None):
        raise ValueError(f"{value!r} is not a whole number")
    try:
        number = float(value)  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError, OverflowError) as err:
        raise ValueError(f"{value!r} is not a whole number") from err
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _orderable(value: object) -> float:
    if isinstance(value, bool | None):
        raise ValueError(f"{value!r} is not a number; write one, or leave the key out of every record")
    try:
        number = float(value)  # type: ignore[arg-type]  # pydantic reports what float refuses
    except OverflowError as err:
        raise ValueError("the number is too large") from err
    if math.isnan(number):
        raise ValueError("NaN cannot be ordered")
    return number


def _to_metadata(value: object) -> object:
    """Metadata may be missing, and in a cell of a table it is JSON or Python; the rest is left to be refused."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str) and value.lstrip().startswith("{"):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError):
                return read(value.strip())
    return value


Id = Annotated[str, BeforeValidator(_to_id), Field(min_length=1, strict=True)]
Number = Annotated[float | None, BeforeValidator(_orderable)]
"""A number, or `None` where the key is missing; a key without a value is refused."""
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value), Field(strict=True)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class DocumentRow(_Row):
    """A document of a corpus."""

    id: Id = Field(validation_alias=AliasChoices("id", *DOCUMENT_IDS))
    text: Text = Field(validation_alias=AliasChoices(*TEXTS))
    title: Text = ""
    metadata: Annotated[dict[str, Any], BeforeValidator(_to_metadata)] = Field(default_factory=dict)


class TitleRow(_Row):
    """A document that has a title and no text of its own."""

    id: Id = Field(validation_alias=AliasChoices("id", *DOCUMENT_IDS))
    title: Text
    text: str = ""
    metadata: Annotated[dict[str, Any], BeforeValidator(_to_metadata)] = Field(default_factory=dict)


class QueryRow(_Row):
    """A query."""

    id: Id = Field(validation_alias=AliasChoices("id", *(name for name in QUERY_IDS if name not in ("query", "q"))))
    text: Text = Field(validation_alias=AliasChoices(*QUERIES))
    metadata: Annotated[dict[str, Any], BeforeValidator(_to_metadata)] = Field(default_factory=dict)


class JudgementRow(_Row):
    """A grade of one document for one query."""

    query_id: Id = Field(validation_alias=AliasChoices(*QUERY_IDS))
    document_id: Id = Field(validation_alias=AliasChoices(*DOCUMENT_IDS))
    grade: Annotated[int, BeforeValidator(whole_number)] = Field(validation_alias=AliasChoices(*GRADES))


class RunRow(_Row):
    """A document that a first stage found for a query.

    `score` and `rank` are `None` where the record has none; `unnamed` is a third column without a name.
    """

    query_id: Id = Field(validation_alias=AliasChoices(*QUERY_IDS))
    document_id: Id = Field(validation_alias=AliasChoices(*DOCUMENT_IDS))
    score: Number = Field(default=None, validation_alias=AliasChoices(*SCORES))
    rank: Number = Field(default=None, validation_alias=AliasChoices(*RANKS))
    unnamed: Number = None

    @property
    def ordered_by(self) -> str | None:
        """The field that decides the document's place; `None` is the place of its line."""
        return next((name for name in ("score", "unnamed", "rank") if getattr(self, name) is not None), None)


def parse(record: Record, row_type: type[Row], columns: Sequence[Sequence[str]], expected: str) -> Row:
    """Type a record.

    Args:
        record: The record.
        row_type: What it is.
        columns: For files without a header, the keys of the columns, for each number of columns that is known.
        expected: What a line looks like, for messages.

    Raises:
        InvalidInputError: With file, line, key and value.
    """
    fields = _fields(record, columns, expected)
    try:
        return row_type.model_validate(fields)
    except ValidationError as err:
        raise InvalidInputError(_complaint(record, row_type, err, expected)) from err


def _fields(record: Record, columns: Sequence[Sequence[str]], expected: str) -> Mapping[str, Any]:
    if record.header:
        raise InvalidInputError(
            f"{record.where}: {cut(record.line, 80)!r} is not {expected}: it has {len(record.fields)} columns, but the "
            f"header has {len(record.header)}, {list(record.header)}."
        )
    if isinstance(record.fields, list):
        names = next((names for names in columns if len(names) == len(record.fields)), None)
        if names is None:
            raise InvalidInputError(f"{record.where}: {cut(record.line, 80)!r} is not {expected}.")
        return dict(zip(names, record.fields, strict=True))
    fields: dict[str, Any] = {}
    # `_id` is BEIR's and goes before another id.
    for key in sorted(record.fields, key=lambda key: key != "_id"):
        fields.setdefault(plain_key(key), record.fields[key])
    return fields


def _complaint(record: Record, row_type: type[BaseModel], err: ValidationError, expected: str) -> str:
    """Say what is wrong with a record: the line, the key and the value."""
    problem = err.errors()[0]
    start = f"{record.where}: {cut(record.line, 80)!r} is not {expected}"
    name = problem["loc"][0]
    if problem["type"] == "missing":
        keys = next(keys for keys in (_choices(field) for field in row_type.model_fields.values()) if name in keys)
        return f"{start}: it has none of the keys {', '.join(map(repr, keys))}, only {list(record.fields)}; rename one."
    key = next((key for key in record.fields if plain_key(key) == name), name)
    return f"{start}: {key} is {cut(repr(problem['input']), 80)} ({problem['msg'].removeprefix('Value error, ')})."


def _choices(field: FieldInfo) -> list[object]:
    return list(field.validation_alias.choices) if isinstance(field.validation_alias, AliasChoices) else []


def has_key(record: Record, keys: Sequence[str]) -> bool:
    """Whether a record names one of the plain keys."""
    return isinstance(record.fields, Mapping) and any(plain_key(key) in keys for key in record.fields)
