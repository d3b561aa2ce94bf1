"""Lays a report out, as text for a terminal and as HTML for a notebook; where it comes from does not matter here."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from langchain_crossrerank._terminal import one_line

Kind = Literal["", "up", "down", "flat"]

COLOURS: dict[Kind, str] = {"up": "#2a9d5c", "down": "#d0603f", "flat": "#8a8a8a"}
"""Legible on white and on dark notebooks; everything else is inherited from the notebook."""

DEFAULT_WIDTH = 110
"""Columns that a table of long texts fills if nobody says how many."""

_STYLE = (
    "<style>.crossrerank{overflow-x:auto;max-width:100%;font-size:13px;overflow-wrap:anywhere}"
    ".crossrerank table{border-collapse:collapse;table-layout:fixed;width:100%}"
    ".crossrerank th,.crossrerank td{text-align:left;vertical-align:top;padding:4px 8px;"
    "border-bottom:1px solid rgba(128,128,128,.35);color:inherit;background:none}"
    ".crossrerank .n{width:3.5em;text-align:right;font-variant-numeric:tabular-nums}"
    f"{''.join(f'.crossrerank .{kind}{{color:{colour}}}' for kind, colour in COLOURS.items())}"
    "</style>"
)
_SNIPPET = 160
_LINE = 80
_NARROWEST = 46


@dataclass(frozen=True)
class Column:
    """A column of a report's table.

    Attributes:
        title: What its head says.
        align: `"<"` for text, `">"` for figures.
        fills: Whether it holds long texts and shares the width that the other columns leave.
        narrow: Whether it is as narrow as a figure in HTML.
    """

    title: str
    align: Literal["<", ">"] = ">"
    fills: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a report's table: its text, and the direction that colours it in HTML."""

    text: str
    kind: Kind = ""


@dataclass(frozen=True)
class Section:
    """A titled list below the table: a figure and a text for each entry."""

    title: str
    entries: Sequence[tuple[str, str]]
    kind: Kind = ""


@dataclass(frozen=True)
class Report:
    """What a result has to say, in the order in which it is read.

    Attributes:
        columns: The table's columns.
        rows: The table's rows, one cell for each column.
        heading: The first sentence.
        label: What precedes the heading in a terminal.
        caption: A heading for HTML alone, where the cell does not show what was called.
        sections: Lists below the table.
        warnings: What to know before trusting the figures.
        notes: What the figures are of, one line each.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    heading: str = ""
    label: str = ""
    caption: str = ""
    sections: Sequence[Section] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


class Reportable(ABC):
    """A result that describes itself as a report, and so can be printed and shown in a notebook."""

    @abstractmethod
    def report(self) -> Report:
        """Describe the result as a table with what belongs around it."""

    def to_text(self, width: int | None = None) -> str:
        """Lay the result out for a terminal.

        Args:
            width: Columns of the terminal; `None` leaves sentences on one line, and long texts share 110 columns.
        """
        return report_text(self.report(), width)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return report_html(self.report())


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


def report_html(report: Report) -> str:
    """Lay a report out for a notebook; markup in its texts is shown and not obeyed."""
    heading = report.heading or report.caption
    head = "".join(f"<th{_classes(column)}>{_html(column.title)}</th>" for column in report.columns)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{_classes(column, cell)}>{_html(clip(cell.text, _SNIPPET))}</td>"
            for column, cell in zip(report.columns, row, strict=True)
        )
        + "</tr>"
        for row in report.rows
    )
    sections = "".join(
        f"<p>{_html(section.title)}</p><ul>"
        + "".join(
            f"<li><span{_attribute([section.kind])}>{_html(figure)}</span> {_html(clip(text, _SNIPPET))}</li>"
            for figure, text in section.entries
        )
        + "</ul>"
        for section in report.sections
    )
    warnings = "".join(f"<p>Warning: {_html(warning)}</p>" for warning in report.warnings)
    notes = "".join(f"<p>{_html(note)}</p>" for note in report.notes)
    return (
        f'{_STYLE}<div class="crossrerank"><p><b>{_html(heading)}</b></p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{sections}{warnings}{notes}</div>"
    )


def clip(text: str, width: int) -> str:
    """Put a text on one line of at most `width` characters, none of which acts on a terminal."""
    flat = one_line(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."


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


def _html(text: str) -> str:
    return escape(one_line(text))


def _classes(column: Column, cell: Cell | None = None) -> str:
    return _attribute(["n" if column.narrow else "", cell.kind if cell is not None else ""])


def _attribute(classes: Sequence[str]) -> str:
    names = " ".join(name for name in classes if name)
    return f' class="{names}"' if names else ""
