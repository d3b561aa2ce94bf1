"""Tables in plain text: pipes between cells, grids, and columns under rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from langchain_crossrerank.blocks.lines import Block, Line, noise

_TABLE_RULE = re.compile(r"\s*(?:\|\s*)?:?-+:?\s*(?:\|\s*:?-+:?\s*)*(?:\|\s*)?")
_GRID_RULE = re.compile(r"\s*\+(?:[-=]{2,}\+)+\s*")
_CODE = re.compile(r"`[^`]+`")
_MOST_COLUMNS = 200
"""Columns that a table set apart by spaces may have."""
_MOST_CELLS = 2_000_000
"""Cells of such a table: a row has one in each column, however short its line is."""
_SIMPLE_RULE = re.compile(rf"\s*={{2,}}(?:\s+={{2,}}){{1,{_MOST_COLUMNS - 1}}}\s*")


def is_grid_rule(line: Line) -> bool:
    """Return whether a line is a rule of a grid table, such as `+---+---+`."""
    return _GRID_RULE.fullmatch(line.text) is not None


def is_column_rule(line: Line) -> bool:
    """Return whether a line is a rule of a table whose columns are set apart by spaces, such as `===  ====`."""
    return _SIMPLE_RULE.fullmatch(line.text) is not None


def is_header_rule(line: Line) -> bool:
    """Return whether a line separates the header of a table with pipes from its rows."""
    return "-" in line.text and "|" in line.text and _TABLE_RULE.fullmatch(line.text) is not None


def pipe_rows(rows: Sequence[Line]) -> list[Block]:
    """Return the rows of a table with pipes: a header, its rule, and the rest."""
    header = rows[0]
    lead = (header.start, rows[1].end)
    return [
        Block("row", *lead, 1, words=_cells(header.text)),
        *(
            Block("row", line.start, line.end, lead=lead, words=cells)
            for line in rows[2:]
            if (cells := _cells(line.text))
        ),
    ]


def headless_rows(rows: Sequence[Line]) -> list[Block]:
    """Return rows with pipes whose header is not there, such as a chunk from the middle of a table."""
    return [
        noise(line)
        if _TABLE_RULE.fullmatch(line.text) or not _cells(line.text)
        else Block("row", line.start, line.end, words=_cells(line.text))
        for line in rows
    ]


def column_rows(rows: Sequence[Line]) -> list[Block]:
    """Return the rows of a table whose first line is a rule that shows its columns; empty if it has none.

    What leads them is the table's beginning up to its header, or the rule alone, so that chunks show the columns, too.
    """
    starts = [mark.start() for mark in re.finditer(r"=+", rows[0].text)]
    columns: list[tuple[int, int | None]] = list(zip(starts, [*starts[1:], None], strict=True))
    if len(rows) * len(columns) > _MOST_CELLS:
        columns = [(0, None)]
    found: list[list[Line]] = []
    # A chunk of a table has no closing rule.
    in_header = any(map(is_column_rule, rows[1:-1]))
    header: list[Line] = []
    lead = (rows[0].start, rows[0].end)
    for line in rows[1:]:
        if line.is_blank or re.fullmatch(r"[\s\-]+", line.text):
            continue
        if is_column_rule(line):
            if in_header:
                lead = (rows[0].start, line.end)
            in_header = False
        elif in_header:
            header.append(line)
        elif found and not line.text[slice(*columns[0])].strip():
            found[-1].append(line)
        else:
            found.append([line])
    return [
        *([Block("row", *lead, 1, words=_in_columns(header, columns))] if header else []),
        *(Block("row", group[0].start, group[-1].end, lead=lead, words=_in_columns(group, columns)) for group in found),
    ]


def grid_rows(lines: Sequence[Line]) -> list[Block]:
    """Return the rows of a grid table: cells may go over several lines, and `===` ends the header."""
    groups: list[list[Line]] = [[]]
    header: list[Line] = []
    lead = (lines[0].start, lines[0].end)
    for line in lines:
        if is_grid_rule(line):
            if "=" in line.text and not header:
                header = [row for group in groups for row in group]
                groups, lead = [], (lines[0].start, line.end) if header else lead
            groups.append([])
        elif "|" in line.text:
            groups[-1].append(line)
    written = [Block("row", *lead, 1, words=_joined(_cells(line.text) for line in header))] if header else []
    return written + [
        Block("row", group[0].start, group[-1].end, lead=lead, words=_joined(_cells(line.text) for line in group))
        for group in groups
        if group
    ]


def _in_columns(lines: Sequence[Line], columns: Sequence[tuple[int, int | None]]) -> tuple[str, ...]:
    return _joined([line.text[start:stop].strip() for start, stop in columns] for line in lines)


def _joined(lines: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Put the cells of lines together that belong to one row."""
    columns: list[list[str]] = []
    for cells in lines:
        columns += ([] for _ in range(len(cells) - len(columns)))
        for column, cell in zip(columns, cells, strict=False):
            if cell:
                column.append(cell)
    return tuple(map(" ".join, columns))


def _cells(row: str) -> tuple[str, ...]:
    cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")))
    # Also in code, a pipe that separates no cells is escaped.
    return tuple(_CODE.sub(lambda code: code[0].replace("\\|", "|"), cell) for cell in cells) if any(cells) else ()
