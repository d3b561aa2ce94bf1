"""Tables in a text: rows that know their cells and their header."""

from __future__ import annotations

import pytest

from langchain_crossrerank.blocks import split_blocks


def test_rows_of_a_table_know_their_header() -> None:
    """Each row points at the header row, and has its cells."""
    text = "| Name | Price |\n|---|---|\n| Parking | 2 euros |\n| Card | 5 euros |\n"
    header, *rows = split_blocks(text, "markdown")
    assert (header.level, header.words) == (1, ("Name", "Price"))
    assert [row.words for row in rows] == [("Parking", "2 euros"), ("Card", "5 euros")]
    assert {row.lead for row in rows} == {(header.start, header.end)}


@pytest.mark.parametrize(
    "text",
    [
        "+------+-------+\n| Name | Price |\n+======+=======+\n| Pen  | two   |\n|      | euros |\n+------+-------+\n",
        "====  =====\nName  Price\n====  =====\nPen   two\n      euros\n====  =====\n",
    ],
    ids=["grid", "simple"],
)
def test_tables_of_restructuredtext(text: str) -> None:
    """Grid tables and simple tables have rows, also where a cell goes over two lines."""
    (row,) = [block for block in split_blocks(text, "rst") if not block.level]
    assert row.words == ("Pen", "two euros")
    assert row.lead is not None


@pytest.mark.parametrize(
    "text",
    [
        "== " * 17_000 + "\n" + "x\n" * 25_000,
        "== " * 100 + "\n" + "x\n" * 100_000,
        "==  ==\na\n" + "    x\n" * 300_000,
        f"+--+\n|{'a|' * 50_000}\n" + "|b\n" * 50_000,
    ],
    ids=["columns", "rows", "lines of a cell", "grid"],
)
def test_a_small_table_does_not_become_a_large_one(text: str) -> None:
    """A row per line and a column per mark would be billions of cells; all that is written is in some block."""
    blocks = split_blocks(text, "rst")
    assert sum(len(block.words) for block in blocks) < len(text)
    assert sum(block.end - block.start for block in blocks) > len(text) / 3
