"""Everything the commands print and write goes through this module, which makes it safe and colours it."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from langchain_crossrerank._spreadsheet import as_cell
from langchain_crossrerank._terminal import neutralise, one_line
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.files import write_whole

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from langchain_crossrerank.evaluation.display.reportable import Reportable

SUFFIXES = (".json", ".csv", ".html")
"""What `--output` may end in."""

_WIDEST = 160


def say(text: str, *, end: str = "\n") -> None:
    """Print plain text of any origin."""
    _write(neutralise(text) + end)


def show(result: Reportable, notes: Sequence[str] = (), *, width: int | None = None) -> None:
    """Print a result with notes below it: coloured tables on a terminal, plain text in a pipe.

    Args:
        result: What to print.
        notes: What else to say about it.
        width: Columns of the plain text; see `Reportable.to_text`.
    """
    if not make_console().is_terminal:
        say("\n\n".join([result.to_text(width), *notes]))
        return
    from langchain_crossrerank.cli.tables import report_table

    show_table(report_table(result.report(), notes))


def show_table(table: RenderableType) -> None:
    """Print a table of `langchain_crossrerank.cli.tables`, which makes its texts safe; coloured on a terminal."""
    console = make_console()
    with console.capture() as captured:
        console.print(table)
    _write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def note(text: str, *, prefix: str = "crossrerank: ") -> None:
    """Print one line on standard error."""
    try:
        sys.stderr.write(f"{prefix}{one_line(text)}\n")
        sys.stderr.flush()
    except OSError:
        # Nothing is left that could say so.
        drop_output(sys.stderr)


def report_error(err: Exception) -> int:
    """Print what went wrong on one line, and return the exit code for it."""
    note(f"error: {' '.join(str(err).split())}")
    return 1


def make_console() -> Console:
    """Make a console for standard output: as wide as the terminal, 80 columns in a pipe; it obeys `NO_COLOR`."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False)


def output_width() -> int:
    """Return the columns to lay text out in: the terminal's, `COLUMNS`, or 80 in a pipe."""
    return max(80, min(make_console().width, _WIDEST))


def prepare_streams() -> None:
    """Let standard output and error take every text, also where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            # Documents contain any character, and a terminal's encoding may lack it.
            stream.reconfigure(errors="backslashreplace")


def drop_output(stream: TextIO | None = None) -> None:
    """Discard what a stream still gets, because its reader (head, less) has gone or there is no space for it.

    Args:
        stream: `None` for standard output.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stdout if stream is None else stream).fileno())


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as err:
        drop_output()
        if not isinstance(err, BrokenPipeError):
            raise


def check_target(option: str, path: str | None, suffixes: Sequence[str] = ()) -> None:
    """Raise unless a result can be written to the path, before anything is computed for it."""
    if path is None:
        return
    if suffixes and Path(path).suffix.lower() not in suffixes:
        *most, last = suffixes
        raise InvalidInputError(f"{option} is {path!r}; name a file that ends in {', '.join(most)} or {last}.")
    if Path(path).is_dir():
        raise InvalidInputError(f"{option} is {path!r}, which is a folder; name a file.")
    if Path(path).exists() and not Path(path).is_file():
        raise InvalidInputError(f"{option} is {path!r}, which is a device or a pipe; name a file.")
    if not Path(path).parent.is_dir():
        raise InvalidInputError(
            f"{option} is {path!r}, and there is no folder {str(Path(path).parent)!r}; create it first."
        )


def report(
    result: Reportable,
    notes: Sequence[str],
    output: str | None,
    comparisons: Sequence[Reportable] = (),
    *,
    width: int | None = None,
) -> None:
    """Write a result with its notes to a file, if one is named, and print both.

    Args:
        result: What was measured.
        notes: What else to say about it.
        output: The file, or `None`.
        comparisons: Comparisons of the result with others; CSV contains only the result.
        width: Columns of the plain text; see `Reportable.to_text`.
    """
    try:
        if output is not None:
            write_whole(output, _as_text(result, notes, Path(output).suffix.lower(), comparisons))
    finally:
        show(result, notes, width=width)
        for comparison in comparisons:
            say("")
            show(comparison)


def _as_text(result: Any, notes: Sequence[str], suffix: str, comparisons: Sequence[Any]) -> str:
    if suffix == ".html":
        text: str = result.to_html(notes, comparisons)
    elif suffix == ".csv":
        text = _as_csv(result)
    else:
        content = {**result.to_dict(), **({"notes": list(notes)} if notes else {})}
        for comparison in comparisons:
            content["against"] = comparison.to_dict()
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # UTF-8 cannot store a lone surrogate; it becomes its escape.
    return text.encode("utf-8", "backslashreplace").decode()


def _as_csv(result: Any) -> str:
    """One row per query and measure for an evaluation, stage of a profile, k of a sweep, candidate of a comparison."""
    if hasattr(result, "documents"):
        head = ["initial_rank", "rank", "score", "text"]
        rows = [[row.initial_rank, row.rank, row.score, row.text] for row in result.documents]
    elif hasattr(result, "stages"):
        head = ["stage", "p50_ms", "p95_ms", "share"]
        rows = [[row.name, row.p50_ms, row.p95_ms, row.share] for row in result.stages]
    elif hasattr(result, "rows"):
        head = ["k", "measure", "quality", "ceiling", "p50_ms", "p95_ms"]
        rows = [[row.k, result.measure, row.quality, row.ceiling, row.p50_ms, row.p95_ms] for row in result.rows]
    else:
        head = ["query_id", "measure", "before", "after"]
        rows = [
            [key, row.name, before, after] for row in result.measures for key, (before, after) in row.per_query.items()
        ]
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(head)
    writer.writerows([as_cell(value) for value in row] for row in rows)
    return output.getvalue()
