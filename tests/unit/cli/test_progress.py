"""Lines about downloads where there is no terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from langchain_crossrerank.cli import progress
from langchain_crossrerank.cli.progress import announced_downloads, describe_downloads, partial_files


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """The folder in the hub's cache into which a repository's files are downloaded."""
    folder = tmp_path / "models--org--big-model" / "blobs"
    folder.mkdir(parents=True)
    return folder


def test_growing_files_are_described_by_repository(blobs: Path, tmp_path: Path) -> None:
    """Files that have grown since the last look are added up; others are not named."""
    (blobs / "a.incomplete").write_bytes(b"x" * 2_000_000)
    (blobs / "b.incomplete").write_bytes(b"x" * 1_000_000)
    (blobs / "c").write_bytes(b"x" * 9_000_000)
    first = partial_files(tmp_path)
    assert describe_downloads({}, first) == ["downloading org/big-model: 3 MB so far"]
    assert describe_downloads(first, partial_files(tmp_path)) == []
    (blobs / "a.incomplete").write_bytes(b"x" * 5_000_000)
    assert describe_downloads(first, partial_files(tmp_path)) == ["downloading org/big-model: 5 MB so far"]


def test_a_line_is_printed_while_something_is_downloaded(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a long download says that it goes on, on standard error."""
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", SimpleNamespace(HF_HUB_CACHE=str(tmp_path)))
    monkeypatch.setattr(progress, "_FIRST", 0.001)
    monkeypatch.setattr(progress, "_INTERVAL", 0.001)
    printed: list[str] = []
    monkeypatch.setattr(progress, "note", printed.append)
    (blobs / "a.incomplete").write_bytes(b"x" * 7_000_000)
    with announced_downloads():
        while not printed:
            time.sleep(0.001)
    assert printed == ["downloading org/big-model: 7 MB so far"]


def test_nothing_is_printed_where_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that needs no download is not talked over."""
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", SimpleNamespace(HF_HUB_CACHE=str(tmp_path)))
    looks: list[Path] = []

    def look(cache: Path) -> dict[Path, int]:
        looks.append(cache)
        return partial_files(cache)

    monkeypatch.setattr(progress, "_FIRST", 0.001)
    monkeypatch.setattr(progress, "_INTERVAL", 0.001)
    monkeypatch.setattr(progress, "partial_files", look)
    with announced_downloads():
        while len(looks) < 3:
            time.sleep(0.001)
    assert capsys.readouterr().err == ""
