"""The command that scores a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from langchain_crossrerank.cli.options import Backend, FileName, Model, Offline, Precision, Subfolder, given
from langchain_crossrerank.cli.output import note, say
from langchain_crossrerank.cli.stages import Stages

if TYPE_CHECKING:
    from langchain_crossrerank.scoring import ScoringProgress

SKIPPED_ROWS = 4
"""Exit code when the output lacks rows that could not be scored."""

_COLUMNS = "Columns"
_INTERVAL = 30.0
"""Seconds from one line about the progress to the next where there is no terminal."""


def score_command(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A .jsonl, .csv or .parquet file.")],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The file to write, of the same format.")],
    *,
    model: Model = None,
    offline: Offline = False,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="If a row cannot be scored: stop, or skip it and name it in OUTPUT.errors.jsonl."),
    ] = "stop",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    query_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Column of the queries; found by name if left out.", rich_help_panel=_COLUMNS
        ),
    ] = None,
    passage_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of the passages, one per row.", rich_help_panel=_COLUMNS),
    ] = None,
    candidates_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of lists of passages.", rich_help_panel=_COLUMNS),
    ] = None,
    score_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The new column.", rich_help_panel=_COLUMNS),
    ] = None,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> int:
    """Score the pairs of a file of any length, or resume a run that was stopped.

    A row has a query and a passage, or a query and a list of candidates. To resume, repeat the command.
    """
    from langchain_crossrerank.scoring import score_file

    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    with _shown_progress() as progress:
        result = score_file(
            source,
            output,
            model=Stages(model=model, offline=offline, loading=loading).load_model(),
            query_column=query_column,
            passage_column=passage_column,
            candidates_column=candidates_column,
            score_column=score_column,
            on_error=on_error,
            overwrite=overwrite,
            progress=progress,
        )
    resumed = f", {result.resumed_rows:,} of them before this run" if result.resumed_rows else ""
    say(f"Wrote {result.output}: {result.rows:,} rows, {result.pairs:,} pairs{resumed}.")
    if result.truncated:
        note(f"{result.truncated:,} passages were longer than the model reads; their ends were not read")
    if result.errors is not None:
        note(f"{result.skipped:,} rows could not be scored and are left out; see {result.errors}")
        return SKIPPED_ROWS
    return 0


@contextmanager
def _shown_progress() -> Iterator[Callable[[ScoringProgress], object]]:
    """Show a bar with the time left on a terminal; elsewhere print a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rest]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pairs", total=None, rest="")
        yield lambda progress: bar.update(
            task, completed=progress.pairs, total=progress.size.pairs, rest=describe_rest(progress)
        )


class _Lines:
    """Prints the progress, but not more often than every `_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: ScoringProgress) -> None:
        if time.monotonic() - self._last >= _INTERVAL:
            self._last = time.monotonic()
            note(f"{progress.pairs:,} of {progress.size.pairs:,} pairs, {describe_rest(progress)}")


def describe_rest(progress: ScoringProgress) -> str:
    """Say how fast a run is and how long it still takes, for example `"812 pairs/s, 0:20:31 left"`."""
    left = progress.seconds_left
    if left is None:
        return ""
    return f"{progress.pairs_per_second:,.0f} pairs/s, {timedelta(seconds=round(left))} left"
