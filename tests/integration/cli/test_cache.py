"""`crossrerank cache`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_crossrerank import CachedCrossEncoder, cli, load_cross_encoder
from tests.integration.cli.collection import ASKED, TEXTS


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """A cache with a score for every text."""
    with_cache = CachedCrossEncoder(load_cross_encoder("bundled"), tmp_path / "scores.sqlite")
    with_cache.score([(ASKED["q1"], text) for text in TEXTS.values()])
    return "scores.sqlite"


def test_a_cache_is_described_and_cleared(scores: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` counts the scores, `clear` deletes them, and the file stays a cache."""
    assert cli.main(["cache", "info", scores]) == 0
    assert f"scores.sqlite: {len(TEXTS)} scores, " in capsys.readouterr().out
    assert cli.main(["cache", "clear", scores]) == 0
    assert capsys.readouterr().out == f"Deleted {len(TEXTS)} scores from scores.sqlite.\n"
    assert cli.main(["cache", "info", scores]) == 0
    assert "scores.sqlite: 0 scores, " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "clear"])
@pytest.mark.parametrize("file", ["missing.sqlite", "notes.txt", "."])
def test_what_is_not_a_cache_is_refused_and_unchanged(
    notes: str, tmp_path: Path, error_of: Callable[[int], str], command: str, file: str
) -> None:
    """A missing file is not created, and another file or a folder is not changed."""
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    said = error_of(cli.main(["cache", command, file]))
    assert repr(file) in said
    assert "cache=" not in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_cache_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`crossrerank cache` shows what there is."""
    assert cli.main(["cache"]) == 0
    assert "clear" in capsys.readouterr().out
    assert cli.main(["cache", "info"]) == 2
