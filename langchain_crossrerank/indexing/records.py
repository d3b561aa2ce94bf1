"""What is known of files that were indexed: by which an unchanged file is recognised before it is read."""

from __future__ import annotations

import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.files import hash_files

RECORDS_FILE = "records.sqlite"
"""Name of the file with the records, in the folder of the collection that they describe."""

_SETTLED = 2_000_000_000
"""Age from which a modification time is trusted, in nanoseconds: a younger file may change again within one tick."""

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when it was indexed.

    Attributes:
        source: The path that its chunks name.
        size: In bytes.
        modified: Time of its last modification, in nanoseconds.
        digest: Hash of its content; `""` if it was not taken, because the file is too large to be read.
        seen: When it was looked at, in nanoseconds.
        settings: What decides how it is read and cut.
        chunks: How many chunks it has in the store.
        pages: Its number of pages.
        notes: What was left out of it.
        failure: Why it could not be read, or `""`.
    """

    source: str
    size: int
    modified: int
    digest: str
    seen: int
    settings: str
    chunks: int = 0
    pages: int = 1
    notes: list[str] = field(default_factory=list)
    failure: str = ""


def describe_file(path: Path, source: str, settings: str) -> FileRecord:
    """Describe a file as it is now, without its content."""
    found = path.stat()
    return FileRecord(source, found.st_size, found.st_mtime_ns, "", time.time_ns(), settings)


def is_unchanged(path: Path, now: FileRecord, known: FileRecord | None, *, largest: int) -> tuple[bool, FileRecord]:
    """Compare a file with its record: by size and time, and by content where the time alone does not decide.

    Args:
        path: The file.
        now: Its description as it is now.
        known: Its record.
        largest: Size up to which such a file is read, in bytes.

    Returns:
        Whether it is unchanged, and the record of the file as it is now.
    """
    if known is None or known.settings != now.settings:
        return False, replace(now, digest=_digest(path, now.size, largest))
    is_settled = known.modified + _SETTLED < known.seen
    if known.size == now.size and known.modified == now.modified and is_settled:
        return True, known
    digest = _digest(path, now.size, largest)
    if known.size == now.size and known.digest == digest:
        return True, replace(known, modified=now.modified, seen=now.seen)
    return False, replace(now, digest=digest)


def _digest(path: Path, size: int, largest: int) -> str:
    # What is too large is refused by its size, however often it is looked at.
    return hash_files([path], most=size) if size <= largest else ""


def unfinished(record: FileRecord, known: FileRecord | None) -> FileRecord:
    """Return the record of a file whose chunks are being stored: it never equals the file, and counts all its chunks.

    Args:
        record: The file as it is now.
        known: Its earlier record, whose chunks may still be there.
    """
    return replace(record, settings="", chunks=max(record.chunks, 0 if known is None else known.chunks))


class Records(ABC):
    """Records of the files in one store, by source."""

    @abstractmethod
    def get(self, source: str) -> FileRecord | None:
        """Return the record of a file, or `None`."""

    @abstractmethod
    def put(self, record: FileRecord) -> None:
        """Keep a record in place of the file's earlier one."""

    @abstractmethod
    def remove(self, source: str) -> None:
        """Forget a file."""

    @abstractmethod
    def sources(self) -> list[str]:
        """Return the files that are known, sorted."""


class MemoryRecords(Records):
    """Records that end with the process."""

    def __init__(self) -> None:
        self._records: dict[str, FileRecord] = {}

    def get(self, source: str) -> FileRecord | None:
        """Return the record of a file, or `None`."""
        return self._records.get(source)

    def put(self, record: FileRecord) -> None:
        """Keep a record."""
        self._records[record.source] = record

    def remove(self, source: str) -> None:
        """Forget a file."""
        self._records.pop(source, None)

    def sources(self) -> list[str]:
        """Return the files that are known, sorted."""
        return sorted(self._records)


class KeptRecords(Records):
    """Records in a SQLite file in the folder of the collection.

    Args:
        folder: The folder, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / RECORDS_FILE
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS files (source TEXT PRIMARY KEY, record TEXT NOT NULL)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as database, database:
                yield database
        except sqlite3.Error as err:
            raise IndexingError(
                f"the records of the index in {str(self.path.parent)!r} cannot be used ({err}); delete that folder to "
                "index again.",
                path=str(self.path),
            ) from err

    def get(self, source: str) -> FileRecord | None:
        """Return the record of a file, or `None`."""
        with self._open() as database:
            row = database.execute("SELECT record FROM files WHERE source = ?", (source,)).fetchone()
        if row is None:
            return None
        try:
            return FileRecord(**json.loads(row[0]))
        except (TypeError, ValueError):
            # Written by another version: the file is indexed again.
            return None

    def put(self, record: FileRecord) -> None:
        """Keep a record."""
        with self._open() as database:
            values = (record.source, json.dumps(record.__dict__))
            database.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", values)

    def remove(self, source: str) -> None:
        """Forget a file."""
        with self._open() as database:
            database.execute("DELETE FROM files WHERE source = ?", (source,))

    def sources(self) -> list[str]:
        """Return the files that are known, sorted."""
        with self._open() as database:
            return [source for (source,) in database.execute("SELECT source FROM files ORDER BY source")]
