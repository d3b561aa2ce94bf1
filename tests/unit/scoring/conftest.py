"""Tables to score, in each format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Rows = Sequence[dict[str, Any]]
WriteTable = Callable[[str, Rows], Path]

ANIMALS = ("cat", "dog", "cow", "owl", "fox", "bee")


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    """Forty rows with one passage each."""
    return [
        {"id": number, "query": f"where does the {animal} live?", "passage": f"{number}: the {animal} lives in a house"}
        for number, animal in enumerate(ANIMALS[number % 6] for number in range(40))
    ]


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """Write rows as the format that the file's name says."""

    def write(name: str, rows: Rows) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
            parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
            parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
        elif path.suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read rows back."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
