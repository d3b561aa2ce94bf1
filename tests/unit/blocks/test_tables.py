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
        "+------+-------+\n| Name | Price |\n|      | today |\n+======+=======+\n"
        "| Pen  | two   |\n|      | euros |\n+------+-------+\n",
        "====  =====\nName  Price\n      today\n====  =====\nPen   two\n      euros\n====  =====\n",
    ],
    ids=["grid", "simple"],
)
def test_tables_of_restructuredtext(text: str) -> None:
    """Grid tables and simple tables have a header and rows that fit, also where a cell goes over two lines."""
    header, row = split_blocks(text, "rst")
    assert (header.level, header.words) == (1, ("Name", "Price today"))
    assert row.words == ("Pen", "two euros")
    assert row.lead == (header.start, header.end)


def test_a_pipe_in_code_is_part_of_its_cell() -> None:
    """It is escaped in the text, and not in what the cell says."""
    text = "| Type | Means |\n|---|---|\n| `str \\| None` | a name |\n"
    assert split_blocks(text, "markdown")[1].words == ("`str | None`", "a name")


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
