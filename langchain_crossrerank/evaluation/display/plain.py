"""Lays a report out as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from langchain_crossrerank._terminal import one_line
from langchain_crossrerank.evaluation.display.reports import Column, Report

DEFAULT_WIDTH = 110
"""Columns that a table of long texts fills if nobody says how many."""

_LINE = 80
_NARROWEST = 46


def report_text(report: Report, width: int | None = None) -> str:
    """Lay a report out for a terminal; no character in it acts on the terminal."""
    width = width if width is None else max(width, _NARROWEST)
    blocks = []
    if report.heading:
        blocks.append(_wrapped(report.label + report.heading, width))
    blocks.append(_table(report, width or DEFAULT_WIDTH))
    for section in report.sections:
        size = max(len(figure) for figure, _ in section.entries)
        lines = [f"  {one_line(figure):>{size}}  {clip(text, _LINE)}" for figure, text in section.entries]
        blocks.append([*_wrapped(f"{section.title}:", width), *lines])
    if report.warnings:
        blocks.append([line for warning in report.warnings for line in _wrapped(f"Warning: {warning}", width)])
    if report.notes:
        blocks.append([line for note in report.notes for line in _wrapped(note, width)])
    return "\n\n".join("\n".join(block) for block in blocks)


def clip(text: str, width: int) -> str:
    """Put a text on one line of at most `width` characters, none of which acts on a terminal."""
    flat = one_line(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."


def cut_words(text: str, width: int) -> str:
    """Put a text on one line like `clip`, but cut it between words."""
    flat = one_line(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 4].rsplit(' ', 1)[0]} ..."


def _table(report: Report, width: int) -> list[str]:
    """Give fixed columns what they need, and share the rest of `width` among those that hold long texts."""
    sizes = [
        max([len(column.title), *(len(row[place].text) for row in report.rows)])
        for place, column in enumerate(report.columns)
    ]
    filling = [place for place, column in enumerate(report.columns) if column.fills]
    fixed = sum(size for place, size in enumerate(sizes) if place not in filling) + 2 * (len(sizes) - 1)
    for place in filling:
        sizes[place] = max((width - fixed) // len(filling), len(report.columns[place].title))
    lines = [_row([column.title for column in report.columns], report.columns, sizes)]
    lines.append("-" * (sum(sizes) + 2 * (len(sizes) - 1)))
    lines += [_row([cell.text for cell in row], report.columns, sizes) for row in report.rows]
    return lines


def _row(texts: Sequence[str], columns: Sequence[Column], sizes: Sequence[int]) -> str:
    cells = [
        f"{clip(text, size):{column.align}{size}}" for text, column, size in zip(texts, columns, sizes, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _wrapped(text: str, width: int | None) -> list[str]:
    line = one_line(" ".join(text.split()))
    return [line] if width is None else textwrap.wrap(line, width)
