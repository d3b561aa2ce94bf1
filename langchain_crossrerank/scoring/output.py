"""Writes a copy of a table with a column of scores: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from langchain_crossrerank._spreadsheet import as_cell
from langchain_crossrerank.evaluation.records import Record
from langchain_crossrerank.files import open_whole, remove_unfinished
from langchain_crossrerank.scoring.columns import Columns
from langchain_crossrerank.scoring.journal import Entry

ScoredRecords = Iterator[tuple[Record, Entry]]
"""The records of the input in order, each with what is known of it."""

_ROW_GROUP_BYTES = 32 << 20


def write_json_lines(path: Path, scored: ScoredRecords, columns: Columns) -> None:
    """Write the lines of the input with one more key; all else on a line is left as it was written."""
    key = json.dumps(columns.score)
    with open_durable(path) as file:
        for record, entry in scored:
            if not isinstance(entry, str):
                file.write(f"{record.line.rstrip()[:-1].rstrip()}, {key}: {json.dumps(entry)}}}\n".encode())


def write_csv(path: Path, scored: ScoredRecords, columns: Columns, header: list[str]) -> None:
    """Write the rows of the input with one more cell, separated by commas.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    with open_durable(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*map(as_cell, header), columns.score])
        for record, entry in scored:
            if not isinstance(entry, str):
                cells = [as_cell(str(record.fields[name])) for name in header]  # type: ignore[call-overload]
                writer.writerow([*cells, json.dumps(entry)])
        text.detach()


def write_parquet(path: Path, source: Path, entries: Iterator[Entry], columns: Columns) -> None:
    """Write the row groups of the input with one more column; types and metadata stay."""
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.list_(pyarrow.float64()) if columns.is_list else pyarrow.float64()
    table = pyarrow.parquet.ParquetFile(source)
    schema = table.schema_arrow.append(pyarrow.field(columns.score, kind))
    with open_durable(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        waiting: list[Any] = []
        size = 0
        for batch in table.iter_batches(batch_size=1024):
            place = 0
            for is_left_out, run in groupby(islice(entries, batch.num_rows), lambda entry: isinstance(entry, str)):
                scores = list(run)
                if not is_left_out:
                    # Arrow can cut columns of every type, but not pick rows of all.
                    rows = batch.slice(place, len(scores))
                    column = pyarrow.array(scores, kind)
                    waiting.append(pyarrow.RecordBatch.from_arrays([*rows.columns, column], schema=schema))
                    size += waiting[-1].nbytes
                place += len(scores)
            if size >= _ROW_GROUP_BYTES:
                writer.write_table(pyarrow.Table.from_batches(waiting, schema))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pyarrow.Table.from_batches(waiting, schema))


def write_errors(path: Path, scored: ScoredRecords) -> None:
    """Write a JSON line for each row without a score: where it is, why, and what the file has there."""
    with open_durable(path) as file:
        for record, entry in scored:
            if isinstance(entry, str):
                line = json.dumps({"where": record.where, "error": entry, "line": record.line})
                file.write(line.encode() + b"\n")


@contextmanager
def open_durable(path: Path) -> Iterator[BinaryIO]:
    """Like `open_whole`, but the content is on the disk before the file gets its name.

    What an earlier run that was killed left unfinished is removed; nobody else writes the file meanwhile.
    """
    remove_unfinished(path)
    with open_whole(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
