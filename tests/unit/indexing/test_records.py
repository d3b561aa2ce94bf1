"""Records of files: what makes a file unchanged."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing.records import (
    RECORDS_FILE,
    FileRecord,
    KeptRecords,
    MemoryRecords,
    Records,
    describe_file,
    is_unchanged,
)

OLD = 1_600_000_000_000_000_000
LARGEST = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was written long ago."""
    path = tmp_path / "a.txt"
    path.write_text("The ferry leaves at nine.")
    os.utime(path, ns=(OLD, OLD))
    return path


@pytest.fixture
def known(path: Path) -> FileRecord:
    """Its record."""
    return is_unchanged(path, describe_file(path, "a.txt", "[1]"), None, largest=LARGEST)[1]


@pytest.fixture(params=["memory", "kept"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    """Empty records."""
    return MemoryRecords() if request.param == "memory" else KeptRecords(tmp_path / "kept")


def test_size_and_time_decide_without_reading(path: Path, known: FileRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same size and an old modification time is unchanged; its content is not hashed."""
    monkeypatch.setattr("langchain_crossrerank.indexing.records.hash_files", lambda paths, **_: pytest.fail("hashed"))
    assert is_unchanged(path, describe_file(path, "a.txt", "[1]"), known, largest=LARGEST) == (True, known)


def test_a_touched_file_is_unchanged_by_its_content(path: Path, known: FileRecord) -> None:
    """Another time with the same content is no change, and the new time is kept."""
    os.utime(path, ns=(OLD + 5, OLD + 5))
    same, now = is_unchanged(path, describe_file(path, "a.txt", "[1]"), known, largest=LARGEST)
    assert (same, now.modified) == (True, OLD + 5)


def test_a_changed_file_of_the_same_size_and_a_young_time_is_changed(path: Path, known: FileRecord) -> None:
    """Within one tick of the clock the content decides."""
    path.write_text("The ferry leaves at five.")
    os.utime(path, ns=(OLD, OLD))
    young = replace(known, seen=OLD + 1)
    assert is_unchanged(path, describe_file(path, "a.txt", "[1]"), young, largest=LARGEST)[0] is False


@pytest.mark.parametrize("change", [{"settings": "[2]"}, {"size": 3}])
def test_other_settings_or_another_size_are_a_change(path: Path, known: FileRecord, change: dict[str, object]) -> None:
    """What decides how a file is cut is part of its record."""
    assert (
        is_unchanged(path, describe_file(path, "a.txt", "[1]"), replace(known, **change), largest=LARGEST)[0] is False
    )


def test_a_file_too_large_to_be_read_is_not_hashed(path: Path, known: FileRecord) -> None:
    """It would take hours. Its size alone decides whether it is still the same."""
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    now = describe_file(path, "a.txt", "[1]")
    same, record = is_unchanged(path, now, known, largest=LARGEST)
    assert (same, record) == (False, now)
    assert is_unchanged(path, now, record, largest=LARGEST)[0] is True


def test_records_are_kept_by_source(records: Records, known: FileRecord) -> None:
    """The last record of a file counts, and a removed one is gone."""
    records.put(known)
    records.put(replace(known, chunks=7, notes=["a note"]))
    records.put(replace(known, source="b.txt"))
    assert records.get("a.txt") == replace(known, chunks=7, notes=["a note"])
    assert records.sources() == ["a.txt", "b.txt"]
    records.remove("a.txt")
    assert records.get("a.txt") is None


@pytest.mark.parametrize("name", ["what?", "100% done", "a#1", "q?a=1&b", "%41", "with space"])
def test_records_live_in_their_folder(tmp_path: Path, known: FileRecord, name: str) -> None:
    """A folder may have any name, and its records are in it."""
    KeptRecords(tmp_path / name).put(known)
    assert (tmp_path / name / RECORDS_FILE).is_file()
    assert KeptRecords(tmp_path / name).get("a.txt") == known
    assert KeptRecords(tmp_path / f"{name}2").get("a.txt") is None


def test_broken_records_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    """What is not a database is not searched in silence."""
    (tmp_path / RECORDS_FILE).write_text("no database at all, but long enough to be looked at" * 40)
    with pytest.raises(IndexingError, match="delete that folder to index again"):
        KeptRecords(tmp_path)
