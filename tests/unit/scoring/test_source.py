"""Rows are read in groups whose size does not grow with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.scoring import source as module
from langchain_crossrerank.scoring.source import Source


def write(path: Path, rows: list[dict[str, Any]]) -> Source:
    """Write JSON Lines and open them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path)


def test_a_group_is_bounded_by_its_pairs_and_its_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group is full with its last row at the latest: by pairs, by rows without pairs, and by length of texts."""
    monkeypatch.setattr(module, "CHUNK_CHARACTERS", 1000)
    short = write(tmp_path / "a.jsonl", [{"query": "q", "candidates": ["a", "b", "c"]}] * 10)
    assert [len(chunk) for chunk in short.chunks(8)] == [3, 3, 3, 1]
    empty = write(tmp_path / "b.jsonl", [{"query": "q", "candidates": []}] * 10)
    assert [len(chunk) for chunk in empty.chunks(8)] == [8, 2]
    long = write(tmp_path / "c.jsonl", [{"query": "q", "text": "x" * 400}] * 7)
    assert [len(chunk) for chunk in long.chunks(100)] == [3, 3, 1]


def test_a_file_is_read_as_far_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group is there before the second is read, so a file of any length fits into memory."""
    read: list[str] = []
    records = Source.records

    def noted(self: Source) -> Any:
        for record in records(self):
            read.append(record.where)
            yield record

    monkeypatch.setattr(Source, "records", noted)
    chunks = write(tmp_path / "a.jsonl", [{"query": "q", "text": "t"}] * 1000).chunks(10)
    for number in range(1, 4):
        next(chunks)
        assert len(read) == 10 * number


def test_work_is_known_before_it_is_done(tmp_path: Path) -> None:
    """The size counts rows, pairs and rows that cannot be scored."""
    rows = [
        {"query": "q", "candidates": ["a", "b"]},
        {"query": "", "candidates": ["a"]},
        {"query": "q", "candidates": []},
    ]
    size = write(tmp_path / "a.jsonl", rows).measure(stop=False)
    assert (size.rows, size.pairs, size.problems) == (3, 2, 1)
