"""Lays a report out as a coloured table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from langchain_crossrerank._terminal import one_line
from langchain_crossrerank.evaluation.display import Cell, Column, Kind, Report

_STYLES: dict[Kind, str] = {"up": "green", "down": "red", "flat": "dim", "": ""}
_LONGEST = 110
"""Characters of a long text that a cell shows."""


def report_table(report: Report, notes: Sequence[str] = ()) -> RenderableType:
    """Lay a report out; no character of its texts acts on the terminal.

    Args:
        report: What a result has to say.
        notes: What else to say, below it.
    """
    parts: list[RenderableType] = []
    heading = report.heading or report.caption
    if heading:
        parts.append(_text(report.label + heading, "bold"))
    parts.append(_table(report))
    for section in report.sections:
        parts += ["", _text(f"{section.title}:", "bold"), Padding(_list(section.entries, section.kind), (0, 2))]
    for warning in report.warnings:
        parts += ["", _text(f"Warning: {warning}", "yellow")]
    for note in [*report.notes, *notes]:
        parts += ["", _text(note, "dim")]
    return Group(*parts)


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=any(column.fills for column in report.columns))
    for column in report.columns:
        _add_column(table, column)
    for row in report.rows:
        table.add_row(*(_cell(cell, column) for cell, column in zip(row, report.columns, strict=True)))
    return table


def _add_column(table: Table, column: Column) -> None:
    table.add_column(
        _text(column.title, "bold"),
        justify="left" if column.align == "<" else "right",
        ratio=1 if column.fills else None,
        no_wrap=not column.fills,
        overflow="fold",
    )


def _cell(cell: Cell, column: Column) -> Text:
    text = " ".join(cell.text.split())
    if column.fills and len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 3]}..."
    return _text(text, _STYLES[cell.kind])


def _list(entries: Sequence[tuple[str, str]], kind: Kind) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style=_STYLES[kind], no_wrap=True)
    table.add_column(overflow="fold")
    for figure, text in entries:
        table.add_row(_text(figure), _text(" ".join(text.split())))
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style)
