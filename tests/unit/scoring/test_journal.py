"""The journal of a run continues after the last whole line, and refuses what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring.journal import Entry, Journal

RUN = {"model": "m", "input": "i"}
CHUNKS: list[list[Entry]] = [[0.25, "x, line 2: blank", [1.5, -2.0], []], [0.125]]


def write_journal(path: Path) -> bytes:
    """Write a journal of two chunks; return its content."""
    journal = Journal(path, RUN)
    for chunk in CHUNKS:
        journal.add(chunk)
    journal.close()
    return path.read_bytes()


def test_entries_are_read_back(tmp_path: Path) -> None:
    """Scores, lists of scores and problems come back in order, and numbers exactly."""
    write_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal", RUN)
    assert journal.rows == 5
    assert list(journal.entries()) == [entry for chunk in CHUNKS for entry in chunk]
    journal.close()


def test_a_journal_cut_anywhere_continues_with_whole_lines(tmp_path: Path) -> None:
    """Whatever number of bytes was written before a kill, the finished journal is the same."""
    whole = write_journal(tmp_path / "journal")
    for length in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        journal = Journal(path, RUN)
        done = {0: 0, 4: 1, 5: 2}[journal.rows]
        for chunk in CHUNKS[done:]:
            journal.add(chunk)
        journal.close()
        assert path.read_bytes() == whole
        assert journal.rows == 5


@pytest.mark.parametrize("name", ["model", "input"])
def test_a_journal_of_another_run_is_refused(tmp_path: Path, name: str) -> None:
    """The message says what differs, and the file stays."""
    whole = write_journal(tmp_path / "journal")
    with pytest.raises(InvalidInputError, match=f"belongs to a run with another {name}: .*'other'.*delete the file"):
        Journal(tmp_path / "journal", {**RUN, name: "other"})
    assert (tmp_path / "journal").read_bytes() == whole


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"[1]\n", b"\xff\n", b"{" * 2_000_000])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """A file in the journal's place that no run wrote is an error, and is not changed."""
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="does not come from a scoring run"):
        Journal(path, RUN)
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    """A line that is whole and no list of scores is an error, not a gap."""
    path = tmp_path / "journal"
    path.write_bytes(write_journal(path).replace(b"[0.125]", b"0.125]["))
    with pytest.raises(InvalidInputError, match=r"is damaged: .*delete the file"):
        Journal(path, RUN)


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the journal's place does not lead the writer to another file."""
    (tmp_path / "journal").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="journal"):
        Journal(tmp_path / "journal", RUN)
    assert not (tmp_path / "target").exists()
