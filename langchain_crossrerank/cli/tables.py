"""Lays a report out as a coloured table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from langchain_crossrerank._terminal import neutralise, one_line
from langchain_crossrerank.checks import cut
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Kind, Report

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation import Comparison, RankedDocument

_STYLES: dict[Kind, str] = {"up": "green", "down": "red", "flat": "dim", "": ""}
_LONGEST = 110
"""Characters of a long text that a cell shows."""

_AROUND = 20
"""Characters shown before and after the sentence that answers."""


def report_table(report: Report, notes: Sequence[str] = ()) -> RenderableType:
    """Lay a report out; no character of its texts acts on the terminal.

    Args:
        report: What a result has to say.
        notes: What else to say below it, also over several lines.
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
    for note in report.notes:
        parts += ["", _text(note, "dim")]
    for note in notes:
        parts += ["", Text(neutralise(note), "dim")]
    return Group(*parts)


def ranking_table(comparison: Comparison, answers: Mapping[int, tuple[int, int]]) -> Table:
    """Lay the reranked list out: place, place in the first stage, score as a bar, and the sentence that answers.

    Args:
        comparison: A query before and after reranking.
        answers: For a place in the reranked list, from 1, the characters to highlight in its text: start and end.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("#", justify="right")
    table.add_column("was", justify="right")
    table.add_column("score", justify="right")
    table.add_column("", width=10)
    table.add_column("passage", ratio=1, overflow="fold")
    for document in comparison.reranked:
        score = document.score or 0.0
        table.add_row(
            str(document.rank),
            _text(f"{document.initial_rank}", _STYLES[_kind(document)]),
            f"{score:.3f}",
            ProgressBar(total=1.0, completed=score, width=10, complete_style="cyan", finished_style="cyan"),
            _passage(document.text, answers.get(document.rank or 0)),
        )
    return table


def _kind(document: RankedDocument) -> Kind:
    rank = document.rank or document.initial_rank
    return "flat" if rank == document.initial_rank else "up" if rank < document.initial_rank else "down"


def _passage(text: str, answer: tuple[int, int] | None) -> Text:
    """Show the sentence that answers with what surrounds it, or the start of the passage."""
    if answer is None:
        return _text(cut(" ".join(text.split()), _LONGEST))
    start, end = answer
    before, found, after = (" ".join(part.split()) for part in (text[:start], text[start:end], text[end:]))
    head = f"...{before[-_AROUND:]} " if len(before) > _AROUND else f"{before} " if before else ""
    tail = f" {after[:_AROUND]}..." if len(after) > _AROUND else f" {after}" if after else ""
    return Text.assemble(_text(head, "dim"), _text(found, "bold"), _text(tail, "dim"))


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
    return _text(cut(text, _LONGEST) if column.fills else text, _STYLES[cell.kind])


def _list(entries: Sequence[tuple[str, str]], kind: Kind) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style=_STYLES[kind], no_wrap=True)
    table.add_column(overflow="fold")
    for figure, text in entries:
        table.add_row(_text(figure), _text(" ".join(text.split())))
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style)
