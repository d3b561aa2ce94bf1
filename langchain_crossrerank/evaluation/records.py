"""Reads files of records: JSON, JSON Lines, CSV, TSV, columns separated by white space, Parquet; also gzipped."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from langchain_crossrerank.checks import cut
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SNIFFED = 4096

_NO_JSON = (".jsonl", ".ndjson", ".csv", ".tsv")
"""Suffixes of files that are not one JSON value, whatever they start with."""


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: File and line, as an editor counts, or file and row.
        line: The record as the file shows it, for messages.
        fields: Values by key, or, where the file has no header or the line does not fit it, a list of columns.
        header: The header that the line does not fit.
        problem: Why the line could not be read at all, from a tolerant reader; `fields` is then empty.
    """

    where: str
    line: str
    fields: Mapping[str, Any] | list[str]
    header: Sequence[str] = ()
    problem: InvalidInputError | None = None


def plain_key(key: object) -> str:
    """Reduce a key to what people mean by it: `"Query-ID"`, `"query_id"` and `"queryId"` are one."""
    return "".join(character for character in str(key).casefold() if character.isalnum())


def read_records(
    file: str | os.PathLike[str],
    *,
    header_keys: frozenset[str],
    names: frozenset[str] = frozenset(),
    columns: Sequence[str] | None = None,
    tolerant: bool = False,
) -> Iterator[Record]:
    """Read a file, record by record.

    Byte order marks, UTF-16, Windows line ends and blank lines are read over. A text file is JSON if it starts like
    it; otherwise its columns are separated by tabs, by commas if it ends in `.csv`, or by white space.

    Args:
        file: The file; `.gz` files are unpacked.
        header_keys: Plain keys by which the first cell of a header is recognised.
        names: Plain keys of columns; a first row with two of them is a header, whatever its first cell is.
        columns: Columns of a Parquet file to read; `None` for all. Of other files, all are read.
        tolerant: Whether a malformed line of JSON Lines or CSV, or a row of Parquet with a value that Python cannot
            hold, becomes a record with a `problem` instead of an error.
            A malformed CSV record of several lines is always an error: it may have swallowed any number of rows.

    Raises:
        InvalidInputError: If the file is missing or malformed, with file and line.
        MissingExtraError: If the file is Parquet and the `parquet` extra is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise InvalidInputError(
            f"there is no file {str(path)!r}; a BEIR folder has corpus.jsonl, queries.jsonl and qrels."
        )
    if _suffix(path) == ".parquet":
        yield from _read_parquet(path, columns, tolerant)
        return
    try:
        with _open_text(path) as text:
            yield from _read_text(path, text, header_keys, names, tolerant)
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{path} is not UTF-8 text ({err}); convert it.") from err
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise InvalidInputError(f"{path} is not a whole gzip file ({err}); copy it again.") from err


def read_json(file: str | os.PathLike[str]) -> Any:
    """Read a file that is one JSON value, or `None` where it is something else, such as JSON Lines."""
    path = Path(file)
    if not path.is_file() or _suffix(path) in (".parquet", ".jsonl", ".ndjson"):
        return None
    try:
        with _open_text(path) as text:
            return json.load(text)
    except (ValueError, OSError, EOFError, RecursionError, zlib.error):
        return None


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _open_text(path: Path) -> IO[str]:
    with _open_bytes(path) as file:
        start = file.read(_SNIFFED)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), None)
    if encoding is None and _is_utf16(start):
        # UTF-16 without a mark: in text of any script the ends of lines and the separators have a zero byte.
        encoding = "utf-16-be" if start.find(b"\0") % 2 == 0 else "utf-16-le"
    # Bytes that are not UTF-8 are found line by line, so that the message can name the line.
    errors = "strict" if encoding and encoding.startswith("utf-16") else "surrogateescape"
    return io.TextIOWrapper(_open_bytes(path), encoding=encoding or "utf-8", errors=errors, newline=None)


def _is_utf16(start: bytes) -> bool:
    """Whether a text without a byte order mark is UTF-16: a stray zero byte in UTF-8 does not make it so."""
    if b"\0" not in start or 3 * start.count(b"\0") > len(start):
        return b"\0" in start
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return True
    return False


def _check_decoded(where: str, text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        byte = ord(text[err.start]) & 0xFF
        raise InvalidInputError(
            f"{where}: byte 0x{byte:02x} at character {err.start + 1} is not UTF-8 text; convert the file."
        ) from err


def _read_text(
    path: Path, text: IO[str], header_keys: frozenset[str], names: frozenset[str], tolerant: bool
) -> Iterator[Record]:
    lines = enumerate(text, start=1)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    suffix = _suffix(path)
    if suffix == ".json" or (suffix not in _NO_JSON and first[1].lstrip()[0] in "[{"):
        rest = first[1] + text.read()
        _check_decoded(str(path), rest)
        try:
            content = json.loads(rest)
        except (ValueError, RecursionError):
            # Not one value: JSON Lines under another name. Only a line feed ends a line there.
            yield from _json_lines(path, enumerate(io.StringIO(rest), start=first[0]), tolerant)
        else:
            yield from _from_json(path, content, header_keys)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(path, chain([first], lines), tolerant)
    elif suffix == ".csv":
        yield from _csv_rows(path, chain([first], lines), header_keys, names, tolerant)
    else:
        yield from _separated(path, chain([first], lines), header_keys, names)


def _json_lines(path: Path, lines: Iterator[tuple[int, str]], tolerant: bool) -> Iterator[Record]:
    for number, line in lines:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield Record(where, text, _json_object(where, text))
        except InvalidInputError as err:
            if not tolerant:
                raise
            yield Record(where, text, {}, problem=err)


def _json_object(where: str, text: str) -> Mapping[str, Any]:
    _check_decoded(where, text)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidInputError(f"{where}: {cut(text, 80)!r} is not JSON ({err}).") from err
    return _object(where, row)


def _from_json(path: Path, content: Any, header_keys: frozenset[str]) -> Iterator[Record]:
    """Records of one JSON value: a list of objects, one object, or an object of named objects, texts or grades."""
    if isinstance(content, list):
        for number, row in enumerate(content, start=1):
            where = f"{path}, entry {number}"
            yield Record(where, cut(json.dumps(row), 200), _object(where, row))
        return
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path}: {cut(json.dumps(content), 80)} is not a list of objects.")
    if any(plain_key(key) in header_keys and isinstance(value, str | int) for key, value in content.items()):
        # One line of JSON Lines under another name.
        yield Record(str(path), cut(json.dumps(content), 200), content)
        return
    for key, value in content.items():
        where = f"{path}, key {key!r}"
        if isinstance(value, str):
            yield Record(where, value, {"id": key, "text": value})
        elif isinstance(value, list):
            # Ids in order, as some tools write what is relevant, or a run.
            for place, name in enumerate(value):
                yield Record(where, str(name), {"queryid": key, "docid": name, "place": place})
        elif isinstance(value, dict) and all(isinstance(entry, int | float) for entry in value.values()):
            for name, entry in value.items():
                yield Record(where, str(name), {"queryid": key, "docid": name, "score": entry})
        else:
            yield Record(where, cut(json.dumps(value), 200), {"id": key, **_object(where, value)})


def _object(where: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where}: {cut(json.dumps(row), 80)!r} is not an object with an _id.")
    return row


def read_header(file: str | os.PathLike[str]) -> list[str]:
    """Return the cells of a CSV file's first row; an empty file has none.

    Raises:
        InvalidInputError: If the file is missing or not CSV.
    """
    record = next(read_records(file, header_keys=frozenset()), None)
    return list(record.fields) if record else []


def _csv_rows(
    path: Path, lines: Iterator[tuple[int, str]], header_keys: frozenset[str], names: frozenset[str], tolerant: bool
) -> Iterator[Record]:
    # A passage may be longer than the module's limit of 128 KiB.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    number = 0

    def numbered() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 - the number is read below
            yield line

    header = None
    sample = next(iter(numbered()), "")
    delimiter = max(",;\t|", key=sample.count)
    reader = csv.reader(chain([sample], numbered()), delimiter=delimiter, strict=True)
    begins = number
    while True:
        where = f"{path}, line {begins}"
        try:
            row = _next_row(reader, where)
        except InvalidInputError as err:
            # After one unclosed quote, the rest of the file is one record, too much to skip.
            if not tolerant or (isinstance(err.__cause__, csv.Error) and number > begins):
                raise
            yield Record(where, "", {}, problem=err)
            row = []
        if row is None:
            return
        # Rows with line ends in their cells are named by their first line.
        begins = number + 1
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = row if _is_header(row, header_keys, names) else []
            if header:
                continue
        yield _row(where, delimiter.join(row), header, row)


def _next_row(reader: Iterator[list[str]], where: str) -> list[str] | None:
    try:
        row = next(reader, None)
    except csv.Error as err:
        raise InvalidInputError(f"{where}: not CSV ({err}).") from err
    _check_decoded(where, "".join(row or ()))
    return row


def _separated(
    path: Path, lines: Iterator[tuple[int, str]], header_keys: frozenset[str], names: frozenset[str]
) -> Iterator[Record]:
    header: list[str] | None = None
    tabs = None
    for number, line in lines:
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if tabs is None:
            tabs = "\t" in text
        columns = text.split("\t") if tabs else text.split()
        where = f"{path}, line {number}"
        _check_decoded(where, text)
        if header is None:
            header = columns if _is_header(columns, header_keys, names) else []
            if header:
                continue
        yield _row(where, text, header, columns)


def _is_header(row: Sequence[str], header_keys: frozenset[str], names: frozenset[str]) -> bool:
    """Whether a first row names columns; a single name behind another cell may be an id or a text."""
    keys = [plain_key(cell) for cell in row]
    return keys[0] in header_keys or len(names.intersection(keys)) > 1


def _row(where: str, line: str, header: list[str], columns: list[str]) -> Record:
    if len(columns) != len(header):
        return Record(where, line, columns, header)
    return Record(where, line, dict(zip(header, columns, strict=True)))


def _read_parquet(path: Path, columns: Sequence[str] | None, tolerant: bool) -> Iterator[Record]:
    check_extra("parquet", needed_for="reading Parquet files")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            # The reader also returns fields of that name inside other columns.
            for row in _python_rows(batch if columns is None else batch.select(columns)):
                number += 1
                where = f"{path}, row {number}"
                if isinstance(row, Exception):
                    problem = InvalidInputError(
                        f"{where}: a value cannot be read ({row}); correct it, or leave it out."
                    )
                    if not tolerant:
                        raise problem from row
                    yield Record(where, "", {}, problem=problem)
                else:
                    yield Record(where, cut(repr(row), 200), row)
    except (pyarrow.ArrowException, OSError) as err:
        raise InvalidInputError(f"{path} is not a Parquet file ({err}).") from err


def _python_rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """Return the rows of a batch, or why Python cannot hold one: for a far date, or for text that is not UTF-8."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError) as err:
        if batch.num_rows == 1:
            yield err
            return
        rows = None
    if rows is not None:
        yield from rows
    else:
        for place in range(batch.num_rows):
            yield from _python_rows(batch.slice(place, 1))
