"""Lays reports and rankings out for a terminal, in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.documents import Document
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from langchain_crossrerank._terminal import neutralise, one_line
from langchain_crossrerank.evaluation.display.plain import cut_words
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Kind, Report
from langchain_crossrerank.metadata import CARRIED
from langchain_crossrerank.sources import describe_source

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation import Comparison, RankedDocument

_STYLES: dict[Kind, str] = {"up": "green", "down": "red", "flat": "dim", "": ""}
_LONGEST = 110
"""Characters of a long text that a cell shows."""

_WIDE = 70
"""Columns from which a document's places, score, bar and source are on one line."""

_AROUND = 5
"""Words shown before the sentence that answers."""

_AFTER = 60
"""Characters shown after it."""


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


def heading(text: str) -> RenderableType:
    """Lay a heading out: a line across the terminal that begins with the text."""
    return Rule(_text(text, "bold"), align="left", style="cyan")


def ranking_list(comparison: Comparison, *, emphasis: str = "", width: int = 80) -> RenderableType:
    """Lay the reranked list out: places, score as a bar, source, and the passage with the sentence that answers.

    Args:
        comparison: A query before and after reranking.
        emphasis: What to put around the sentence that answers, where it cannot be bold.
        width: Columns of the terminal; where they are few, the bar is left out and the source has its own line.
    """
    rows = [
        (str(document.rank), f"was {document.initial_rank}", "-" if document.score is None else f"{document.score:.3f}")
        for document in comparison.reranked
    ]
    is_wide = width >= _WIDE
    parts: list[RenderableType] = []
    for document, (place, move, score) in zip(comparison.reranked, rows, strict=True):
        head = Table.grid(padding=(0, 2, 0, 0), expand=is_wide)
        for cells in zip(*rows, strict=True):
            head.add_column(width=max(map(len, cells)), no_wrap=True)
        line = [_text(place, "bold"), _text(move, _STYLES[_kind(document)]), _text(score)]
        source = _text(describe_source(Document(document.text, metadata=document.metadata)), "dim")
        if is_wide:
            head.add_column(width=24)
            head.add_column(justify="right", ratio=1)
            head.add_row(*line, _bar(document.score or 0.0), source)
            parts.append(head)
        else:
            head.add_row(*line)
            parts += [head, Padding(source, (0, 0, 0, 3))]
        parts.append(Padding(_passage(document, emphasis), (0, 0, 1, 3)))
    return Group(*parts)


def _bar(score: float) -> ProgressBar:
    completed = min(1.0, max(0.0, score))
    return ProgressBar(total=1.0, completed=completed, width=24, complete_style="cyan", finished_style="cyan")


def passage_line(document: RankedDocument) -> RenderableType:
    """Lay the start of a passage out, between quotation marks and dim."""
    return Padding(_text(f'"{cut_words(own_text(document), _LONGEST)}"', "dim"), (0, 0, 1, 3))


def own_text(document: RankedDocument) -> str:
    """A passage's text without the headings that its chunk carries in front."""
    carried = document.metadata.get(CARRIED, 0)
    return document.text[carried:] if isinstance(carried, int) and carried > 0 else document.text


def _kind(document: RankedDocument) -> Kind:
    rank = document.rank or document.initial_rank
    return "flat" if rank == document.initial_rank else "up" if rank < document.initial_rank else "down"


def _passage(document: RankedDocument, emphasis: str) -> Text:
    """Show the sentence that answers with what surrounds it, or the start of the passage."""
    if document.answer is None:
        return _text(cut_words(own_text(document), _LONGEST), "dim")
    start, end = document.answer
    begin = len(document.text) - len(own_text(document))
    before = document.text[min(begin, start) : start].split()
    found, after = " ".join(document.text[start:end].split()), document.text[end:]
    head = " ".join(["...", *before[-_AROUND:]] if len(before) > _AROUND else before)
    return Text.assemble(
        _text(f"{head} " if head else "", "dim"),
        _text(f"{emphasis}{found}{emphasis}", "bold"),
        _text(f" {cut_words(after, _AFTER)}" if after.strip() else "", "dim"),
    )


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
    return _text(cut_words(text, _LONGEST) if column.fills else text, _STYLES[cell.kind])


def _list(entries: Sequence[tuple[str, str]], kind: Kind) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", style=_STYLES[kind], no_wrap=True)
    table.add_column(overflow="fold")
    for figure, text in entries:
        table.add_row(_text(figure), _text(" ".join(text.split())))
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style)
