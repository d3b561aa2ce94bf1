"""Scores the rows of a file of any length: in little memory, with progress, and resumable after any stop."""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from langchain_core.cross_encoders import BaseCrossEncoder

import langchain_crossrerank
from langchain_crossrerank.checks import check_choices, check_whole_numbers
from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import PairScore
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError, RemoteError, ScoringError
from langchain_crossrerank.files import append_line, hash_files, write_whole
from langchain_crossrerank.scoring.journal import Entry, Journal
from langchain_crossrerank.scoring.output import write_csv, write_errors, write_json_lines, write_parquet
from langchain_crossrerank.scoring.source import Row, Size, Source, format_of

OnError = Literal["stop", "skip"]
"""What to do with a row that cannot be scored."""

CHUNK_PAIRS = 1024
"""Pairs that are scored together, and lost if the run is killed: enough to group them by length."""

_Refusal = InvalidInputError | ScoringError

_ROWS_FAULT = (400, 413, 422)
"""HTTP statuses by which a server refuses texts, rather than failing itself."""


@dataclass(frozen=True)
class ScoringProgress:
    """How far a run has come.

    Attributes:
        rows: Rows that are done, those of earlier runs included.
        pairs: Pairs that are done.
        size: How much there is altogether.
        resumed_pairs: Pairs that earlier runs had done.
        seconds: Time since this run began to score.
    """

    rows: int
    pairs: int
    size: Size
    resumed_pairs: int
    seconds: float

    @property
    def pairs_per_second(self) -> float:
        """The speed of this run; 0 before anything is scored."""
        return (self.pairs - self.resumed_pairs) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time that is left at this speed; `None` before anything is scored."""
        speed = self.pairs_per_second
        return (self.size.pairs - self.pairs) / speed if speed > 0 else None


@dataclass(frozen=True)
class ScoringResult:
    """What a run has written.

    Attributes:
        output: The file with the scores.
        errors: The file that names the rows without a score; `None` if all have one.
        log: The run log.
        rows: Rows in `output`.
        pairs: Pairs scored, those of earlier runs included.
        skipped: Rows without a score.
        truncated: Passages of this run that were longer than the model reads.
        resumed_rows: Rows that an earlier run had done.
        seconds: Time of this run.
    """

    output: Path
    errors: Path | None
    log: Path
    rows: int
    pairs: int
    skipped: int
    truncated: int
    resumed_rows: int
    seconds: float


def score_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: BaseCrossEncoder | str | os.PathLike[str] = DEFAULT_MODEL,
    query_column: str | None = None,
    passage_column: str | None = None,
    candidates_column: str | None = None,
    score_column: str | None = None,
    on_error: OnError = "stop",
    overwrite: bool = False,
    chunk_pairs: int = CHUNK_PAIRS,
    progress: Callable[[ScoringProgress], object] | None = None,
) -> ScoringResult:
    """Add scores to the rows of a JSON Lines, CSV or Parquet file of any length.

    A row has a query and one passage, or a query and a list of candidates, as texts or as objects with a text. The
    output has the same format and the same rows, with a score, or a list of scores in the order of the candidates.
    The whole input is checked before anything is scored.

    Scores are kept in `OUTPUT.partial` until the run is finished. After a kill, a crash or a full disk, the same call
    continues, and the output is the same as that of an undisturbed run on the same machine. `OUTPUT.log.jsonl` says
    what was done when, over all runs.

    Args:
        source: The input; JSON Lines and CSV may be gzipped.
        output: The output, of the same format.
        model: A model, or the name, folder or URL of one. A run with a `BaseCrossEncoder` of another package can only
            be continued in the same process, because it is not known whether another object has the same weights.
        query_column: Column of the queries; `None` finds it by its name: query, question.
        passage_column: Column of the passages; `None` finds it by its name: passage, text, document, content.
        candidates_column: Column of lists of passages; `None` finds it by its name: candidates, passages, documents.
        score_column: The new column; `None` for `"score"`, or `"scores"` with candidates.
        on_error: `"stop"` raises for the first row that cannot be scored. `"skip"` leaves such rows out and names them
            in `OUTPUT.errors.jsonl`. A model or server that fails on all of several rows that are scored together stops
            the run in both cases.
        overwrite: Whether `output` may exist; it is replaced when the run is finished.
        chunk_pairs: Pairs that are in memory at once, and that are lost if the run is killed.
        progress: Called after every chunk.

    Returns:
        What was written.

    Raises:
        InvalidInputError: If the input, its columns or a row cannot be used, with file and line, or the output exists.
        ScoringError: If the model fails, with file and line where a row is the reason.
        OSError: If something cannot be written.
    """
    check_choices(on_error=(on_error, ("stop", "skip")))
    check_whole_numbers(chunk_pairs=(chunk_pairs, 1))
    files = _Files(Path(output))
    files.check(Path(source), overwrite=overwrite)
    rows = Source(
        Path(source), query=query_column, passage=passage_column, candidates=candidates_column, score=score_column
    )
    size = rows.measure(stop=on_error == "stop")
    encoder = load_cross_encoder(model) if isinstance(model, str | os.PathLike) else as_cross_encoder(model)
    with files.locked():
        run = _Run(
            source=rows,
            files=files,
            model=encoder,
            size=size,
            on_error=on_error,
            chunk_pairs=chunk_pairs,
            progress=progress,
        )
        return run.finish(overwrite=overwrite)


@dataclass(frozen=True)
class _Files:
    """The output and the files next to it."""

    output: Path

    @property
    def partial(self) -> Path:
        return self._beside("partial")

    @property
    def errors(self) -> Path:
        return self._beside("errors.jsonl")

    @property
    def log(self) -> Path:
        return self._beside("log.jsonl")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing the same output.

        Raises:
            InvalidInputError: If one is writing it.
        """
        path = self._beside("lock")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout as err:
            raise InvalidInputError(
                f"another process is writing {str(self.output)!r}; wait for it, or name another output."
            ) from err
        try:
            yield
        finally:
            # Windows does not remove a file that is open.
            with suppress(OSError):
                path.unlink()
            lock.release()

    def _beside(self, suffix: str) -> Path:
        return self.output.with_name(f"{self.output.name}.{suffix}")

    def check(self, source: Path, *, overwrite: bool) -> None:
        """Raise unless the output can be written, as far as that is known before anything is read."""
        kinds = format_of(source), format_of(self.output)
        if kinds[0] != kinds[1] or self.output.suffix.lower() == ".gz":
            raise InvalidInputError(
                f"the output {str(self.output)!r} must have the format of the input, {kinds[0]}, and not be gzipped."
            )
        if not self.output.parent.is_dir():
            raise InvalidInputError(
                f"there is no folder {str(self.output.parent)!r} for the output {self.output.name!r}; create it first."
            )
        if self.output.exists() and source.exists() and self.output.samefile(source):
            raise InvalidInputError(f"input and output are the same file, {str(source)!r}; name another output.")
        if self.output.exists() and not self.output.is_file():
            raise InvalidInputError(f"the output {str(self.output)!r} exists and is not a file; name another one.")
        if not self.partial.exists():
            self.check_free(overwrite=overwrite)

    def check_free(self, *, overwrite: bool) -> None:
        """Raise if a file would be replaced without `overwrite`."""
        for path in (self.output, self.errors):
            if path.exists() and not overwrite:
                raise InvalidInputError(f"{str(path)!r} exists; name another output, or pass overwrite to replace it.")


class _Run:
    """One run over a file, from where the last one stopped."""

    def __init__(
        self,
        *,
        source: Source,
        files: _Files,
        model: CrossEncoder,
        size: Size,
        on_error: OnError,
        chunk_pairs: int,
        progress: Callable[[ScoringProgress], object] | None,
    ) -> None:
        self._source, self._files, self._model, self._size = source, files, model, size
        self._skip, self._chunk_pairs, self._progress = on_error == "skip", chunk_pairs, progress
        self._truncated = 0
        self._started = time.monotonic()
        decisive = {
            "version of langchain-crossrerank": langchain_crossrerank.__version__,
            "content of the input": hash_files([source.path]),
            "columns": None if source.columns is None else asdict(source.columns),
            "model or setting of the model": model.fingerprint,
            "chunk_pairs": chunk_pairs,
            "on_error": on_error,
        }
        self._journal = Journal(files.partial, decisive)
        self._resumed_rows = self._journal.rows

    def finish(self, *, overwrite: bool) -> ScoringResult:
        """Score what is left, write the output and remove what was only needed until then."""
        try:
            if self._journal.rows < self._size.rows:
                self._files.check_free(overwrite=overwrite)
            self._log("start", input=str(self._source.path), model=repr(self._model), **asdict(self._size))
            self._score_rest()
            result = self._write()
        except BaseException as err:
            # The disk may be full.
            with suppress(OSError):
                self._log("stop", reason=f"{type(err).__name__}: {err}")
            raise
        finally:
            self._journal.close()
        self._log("finish", rows=result.rows, skipped=result.skipped, truncated=result.truncated)
        self._files.partial.unlink()
        return result

    def _score_rest(self) -> None:
        done_pairs = done_rows = resumed_pairs = 0
        began = time.monotonic()
        for chunk in self._source.chunks(self._chunk_pairs):
            done_rows += len(chunk)
            done_pairs += sum(len(row.pairs) for row in chunk)
            if done_rows <= self._resumed_rows:
                resumed_pairs, began = done_pairs, time.monotonic()
                continue
            self._journal.add(self._score(chunk))
            progress = ScoringProgress(done_rows, done_pairs, self._size, resumed_pairs, time.monotonic() - began)
            self._log(
                "progress", rows=done_rows, pairs=done_pairs, pairs_per_second=round(progress.pairs_per_second, 1)
            )
            if self._progress is not None:
                self._progress(progress)

    def _score(self, rows: Sequence[Row]) -> list[Entry]:
        good = [row for row in rows if row.problem is None]
        entries = iter(self._score_good(good))
        return [next(entries) if row.problem is None else str(row.problem) for row in rows]

    def _score_good(self, rows: Sequence[Row]) -> list[Entry]:
        """Score rows together; if the model refuses some of them, score those one by one.

        Raises:
            ScoringError: If the model fails on all of several rows, which is then no fault of the rows.
        """
        found: dict[int, Entry | _Refusal] = {}
        left = list(range(len(rows)))
        while left:
            entries = self._try([rows[number] for number in left])
            if isinstance(entries, list):
                found.update(zip(left, entries, strict=True))
                break
            refused = [left[place] for place in _places([rows[number] for number in left], entries)]
            for number in refused:
                alone = self._try([rows[number]]) if len(left) > 1 else entries
                found[number] = alone[0] if isinstance(alone, list) else alone
            left = sorted(set(left).difference(refused))
        errors = [entry for entry in found.values() if isinstance(entry, ScoringError)]
        if len(errors) == len(rows) > 1:
            raise ScoringError(
                f"the model failed on all {len(rows)} rows that were scored together, the first of which is "
                f"{rows[0].where}: {found[0]} Check the model or server, and run the same command again to continue."
            ) from errors[0]
        entries_in_order = (found[number] for number in range(len(rows)))
        return [
            f"{row.where}: {entry}" if isinstance(entry, CrossRerankError) else entry
            for row, entry in zip(rows, entries_in_order, strict=True)
        ]

    def _try(self, rows: Sequence[Row]) -> list[Entry] | _Refusal:
        """Return the entries of rows, or why the model refuses them together; raise if that ends the run."""
        try:
            scores = iter(self._scores(rows))
        except (InvalidInputError, ScoringError) as err:
            if isinstance(err, RemoteError) and err.status_code not in _ROWS_FAULT:
                raise
            if len(rows) > 1 or self._skip:
                return err
            message = f"{rows[0].where}: {err}"
            if isinstance(err, ScoringError):
                raise ScoringError(message, positions=err.positions) from err
            raise InvalidInputError(message) from err
        return [self._entry(row, scores) for row in rows]

    def _scores(self, rows: Sequence[Row]) -> list[PairScore]:
        scoring = self._model.submit([pair for row in rows for pair in row.pairs])
        try:
            return scoring.result()
        finally:
            # If interrupted, the caller does not wait for the worker.
            scoring.cancel()

    def _entry(self, row: Row, scores: Iterator[PairScore]) -> Entry:
        found = [next(scores) for _ in row.pairs]
        self._truncated += sum(score.truncated for score in found)
        values = [score.score for score in found]
        is_list = self._source.columns is not None and self._source.columns.is_list
        return values if is_list else values[0]

    def _write(self) -> ScoringResult:
        skipped = sum(isinstance(entry, str) for entry in self._journal.entries())
        source, files, columns = self._source, self._files, self._source.columns
        if skipped:
            write_errors(files.errors, zip(source.records(), self._journal.entries(), strict=True))
        else:
            files.errors.unlink(missing_ok=True)
        scored = zip(source.records(), self._journal.entries(), strict=True)
        if columns is None:
            # No row could be read, so there is nothing to name the columns by.
            write_whole(files.output, b"")
        elif source.format == "parquet":
            write_parquet(files.output, source.path, self._journal.entries(), columns)
        else:
            write = write_json_lines if source.format == "jsonl" else partial(write_csv, header=source.header)
            write(files.output, scored, columns)
        return ScoringResult(
            output=files.output,
            errors=files.errors if skipped else None,
            log=files.log,
            rows=self._size.rows - skipped,
            pairs=self._size.pairs,
            skipped=skipped,
            truncated=self._truncated,
            resumed_rows=self._resumed_rows,
            seconds=time.monotonic() - self._started,
        )

    def _log(self, event: str, **what: Any) -> None:
        entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **what}
        append_line(self._files.log, json.dumps(entry))


def _places(rows: Sequence[Row], refusal: _Refusal) -> list[int]:
    """Return the places of the rows that a refusal names by their pairs; all if it names none."""
    positions = refusal.positions if isinstance(refusal, ScoringError) else ()
    ends = list(accumulate(len(row.pairs) for row in rows))
    named = {bisect_right(ends, position) for position in positions if position < ends[-1]}
    return sorted(named) or list(range(len(rows)))
