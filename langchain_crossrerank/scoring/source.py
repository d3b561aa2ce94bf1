"""The file to score: its format, its columns, its rows in order, and how much work they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.records import Record, read_header, read_records
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.scoring.columns import Columns

Format = Literal["jsonl", "csv", "parquet"]

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

CHUNK_CHARACTERS = 4_000_000
"""Characters of the pairs that are in memory at once; the last row may exceed it."""


def format_of(path: Path) -> Format:
    """Return the format that a file's name implies.

    Raises:
        InvalidInputError: If the name does not end in a known suffix.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise InvalidInputError(f"{str(path)!r} must end in .jsonl, .ndjson, .csv or .parquet; rename or convert it.")
    return _FORMATS[suffixes[-1]]


@dataclass(frozen=True)
class Row:
    """A row of the file.

    Attributes:
        where: File and line, or file and row.
        pairs: The pairs to score.
        problem: Why it cannot be scored; `None` if it can.
    """

    where: str
    pairs: list[TextPair] = field(default_factory=list)
    problem: InvalidInputError | None = None

    @property
    def characters(self) -> int:
        """The length of its texts, which is close to what scoring them costs."""
        return sum(len(query) + len(passage) for query, passage in self.pairs)


@dataclass(frozen=True)
class Size:
    """How much there is to do.

    Attributes:
        rows: Number of rows, those that cannot be scored included.
        pairs: Number of pairs.
        problems: Rows that cannot be scored.
    """

    rows: int = 0
    pairs: int = 0
    problems: int = 0


class Source:
    """The rows of a file.

    Args:
        path: The file.
        chosen: Arguments of `Columns.choose`.

    Raises:
        InvalidInputError: If there is no such file, or its columns cannot be used.
        MissingExtraError: If it is Parquet and the `parquet` extra is not installed.
    """

    def __init__(self, path: Path, **chosen: str | None) -> None:
        self.path = path
        self.format = format_of(path)
        if not path.is_file():
            raise InvalidInputError(f"there is no file {str(path)!r}; name a JSON Lines, CSV or Parquet file.")
        self.header = self._header()
        self.columns = Columns.choose(self.header, str(path), **chosen) if self.header else None
        """`None` if the file has no rows that could be read."""

    def records(self) -> Iterator[Record]:
        """Read the records, of Parquet only the columns to score; malformed lines have a `problem`."""
        needed = None if self.columns is None else [self.columns.query, self.columns.texts]
        records = read_records(self.path, header_keys=frozenset(), columns=needed, tolerant=True)
        return self._csv_records(records) if self.format == "csv" else records

    def _csv_records(self, records: Iterator[Record]) -> Iterator[Record]:
        """Name the cells of rows by the header, which is the first of them."""
        next(records, None)
        for record in records:
            cells = list(record.fields)
            surplus = any(cell.strip() for cell in cells[len(self.header) :])
            if surplus or len(cells) < len(self.header):
                yield record
            else:
                yield replace(record, fields=dict(zip(self.header, cells, strict=False)))

    def rows(self) -> Iterator[Row]:
        """Read the rows."""
        for record in self.records():
            try:
                yield Row(record.where, self._pairs(record))
            except InvalidInputError as err:
                yield Row(record.where, problem=err)

    def measure(self, *, stop: bool) -> Size:
        """Read the whole file once, to know how much work it is.

        Args:
            stop: Whether a row that cannot be scored is an error.

        Raises:
            InvalidInputError: With file and line, if so.
        """
        rows = pairs = problems = 0
        for row in self.rows():
            if row.problem is not None and stop:
                raise row.problem
            rows += 1
            pairs += len(row.pairs)
            problems += row.problem is not None
        return Size(rows, pairs, problems)

    def chunks(self, pairs: int) -> Iterator[list[Row]]:
        """Read rows in groups of about `pairs` pairs; how they are grouped depends on the file alone."""
        chunk: list[Row] = []
        counted = characters = 0
        for row in self.rows():
            chunk.append(row)
            # A row without pairs takes memory, too.
            counted += max(1, len(row.pairs))
            characters += row.characters
            if counted >= pairs or characters >= CHUNK_CHARACTERS:
                yield chunk
                chunk, counted, characters = [], 0, 0
        if chunk:
            yield chunk

    def _header(self) -> list[str]:
        if self.format == "csv":
            header = read_header(self.path)
            # Spreadsheets write columns that were once in use as empty cells.
            while header and not header[-1].strip():
                header.pop()
            return header
        if self.format == "parquet":
            check_extra("parquet", needed_for="scoring Parquet files")
            import pyarrow
            import pyarrow.parquet

            try:
                return list(pyarrow.parquet.ParquetFile(self.path).schema_arrow.names)
            except (pyarrow.ArrowException, OSError) as err:
                raise InvalidInputError(f"{self.path} is not a Parquet file ({err}).") from err
        records = read_records(self.path, header_keys=frozenset(), tolerant=True)
        return next((list(record.fields) for record in records if record.fields), [])

    def _pairs(self, record: Record) -> list[TextPair]:
        if record.problem is not None:
            raise record.problem
        if isinstance(record.fields, list):
            raise InvalidInputError(
                f"{record.where}: the row has {len(record.fields)} cells, but the header has {len(self.header)}; quote "
                "cells that contain a separator."
            )
        if self.columns is None:
            raise InvalidInputError(f"{record.where}: {record.line!r} has no values.")
        if self.columns.score in record.fields:
            raise InvalidInputError(
                f"{record.where}: there is already a {self.columns.score!r}; name the new one with score_column."
            )
        return self.columns.text_pairs(record.fields, record.where)
