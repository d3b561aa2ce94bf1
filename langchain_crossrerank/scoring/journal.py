"""Keeps the scores of the rows that are done in a file, so that a run that was stopped at any moment can continue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.files import open_regular

Entry = float | list[float] | str
"""What is known of a row: its score, the scores of its candidates, or why it has none."""

_HEAD = "scores of"
_LONGEST_HEAD = 1 << 20


class Journal:
    """Entries of rows in the order of the input, several on a line, after a line that says what they belong to.

    A line is written whole before the next rows are scored, and what a kill or a full disk leaves of a line is removed
    when the run continues. Which rows share a line is up to the caller, and must depend on the input alone if scores
    depend on the rows that are scored together.

    Args:
        path: The file.
        run: Everything that decides the scores, by name; a file of another run is refused.

    Raises:
        InvalidInputError: If the file belongs to another run, or is not a journal.
        OSError: If it cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self.rows = 0
        """Rows that have an entry."""
        head = (json.dumps({_HEAD: run}) + "\n").encode()
        size = self._check(head) if path.exists() else 0
        # Opened with explicit flags, so that a planted link is not followed.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        self._file.truncate(size)
        self._file.seek(size)
        if size == 0:
            self._append(head)

    def add(self, entries: Sequence[Entry]) -> None:
        """Write the entries of the next rows; they survive whatever happens after the call.

        Raises:
            OSError: If they cannot be written. What was there before stays.
        """
        self._append((json.dumps(entries) + "\n").encode())
        self.rows += len(entries)

    def entries(self) -> Iterator[Entry]:
        """Read all entries, in the order of the rows."""
        with open_regular(self.path) as file:
            next(file)
            for line in file:
                yield from json.loads(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, line: bytes) -> None:
        start = self._file.tell()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as err:
            self._file.truncate(start)
            self._file.seek(start)
            problem = f"cannot write {self.path}: {err.strerror}. Run the same command again to continue"
            raise OSError(err.errno, problem) from err

    def _check(self, head: bytes) -> int:
        """Count the rows.

        Returns:
            Bytes up to the end of the last whole line.
        """
        with open_regular(self.path) as file:
            first = file.readline(_LONGEST_HEAD)
            if not first.endswith(b"\n"):
                # Nothing was scored yet; a file of something else is left alone.
                if not head.startswith(first):
                    raise self._not_a_journal()
                return 0
            self._check_head(first, head)
            size = len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self.rows += len(json.loads(line))
                except (ValueError, TypeError) as err:
                    raise InvalidInputError(
                        f"{str(self.path)!r} is damaged: {shorten(line)} is not a list of scores; delete the file to "
                        "start over."
                    ) from err
                size += len(line)
        return size

    def _check_head(self, first: bytes, head: bytes) -> None:
        try:
            written = json.loads(first)[_HEAD]
            run = json.loads(head)[_HEAD]
            changed = [name for name in run if written.get(name) != run[name]]
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise self._not_a_journal() from err
        if changed:
            name = changed[0]
            raise InvalidInputError(
                f"{str(self.path)!r} belongs to a run with another {name}: {shorten(written.get(name))}, now "
                f"{shorten(run[name])}. Repeat that command to continue it, or delete the file to start over."
            )

    def _not_a_journal(self) -> InvalidInputError:
        return InvalidInputError(
            f"{str(self.path)!r} does not come from a scoring run; move it away, or name another output."
        )
