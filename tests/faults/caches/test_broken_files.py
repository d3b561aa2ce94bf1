"""SQLite caches that are broken, locked, or on a disk that takes nothing: only time is lost."""

from __future__ import annotations

import logging
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.caches.cached_scores import PAIRS, Score, assert_right_with_one_warning, true_scores

BROKEN = [
    "random bytes",
    "text",
    "a folder",
    "a bare header",
    "its second half gone",
    "its first page zeroed",
    "its other pages zeroed",
    "another program's table",
]


def make_broken(kind: str, path: Path, good: Path) -> None:
    """Put something other than a working cache file at `path`."""
    content = good.read_bytes()
    if kind == "random bytes":
        path.write_bytes(random.Random(0).randbytes(5000))
    elif kind == "text":
        path.write_text("scores go here\n" * 100)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a bare header":
        path.write_bytes(content[:100])
    elif kind == "its second half gone":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "its first page zeroed":
        path.write_bytes(bytes(4096) + content[4096:])
    elif kind == "its other pages zeroed":
        path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    elif kind == "another program's table":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE scores (id INTEGER, team TEXT, points INTEGER)")
        connection.close()
    else:
        raise AssertionError(kind)


def assert_survives(path: Path, caplog: pytest.LogCaptureFixture) -> int:
    """Check that scores are right with one warning or none, and return how many were found in the file."""
    caplog.clear()
    cache = SQLiteScoreCache(path)
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    assert model.score(PAIRS) == true_scores(PAIRS)
    found = model.counts.hits
    assert model.score(PAIRS) == true_scores(PAIRS)
    cache.close()
    assert len(caplog.records) <= 1
    return found


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_costs_time_and_one_warning(
    kind: str, good_file: Path, tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Whatever is in place of the cache file, scores are computed, with one warning."""
    tally(f"a cache file that is {kind}")
    path = tmp_path / "scores.db"
    make_broken(kind, path, good_file)
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, path)
    assert_right_with_one_warning(model, score, caplog, word=str(path), logger="sqlite_score_cache")
    assert model.counts.hits == 0
    assert sum(len(batch) for batch in asked.batches) == 3 * len(PAIRS)


def test_a_path_under_a_file_costs_time_and_one_warning(
    tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A folder that cannot be created is reported in the same way."""
    tally("a cache path under a file")
    (tmp_path / "file").write_text("")
    model = CachedCrossEncoder(FakeCrossEncoder(), tmp_path / "file" / "scores.db")
    assert_right_with_one_warning(model, score, caplog, word="scores.db", logger="sqlite_score_cache")


@pytest.mark.parametrize("fault", ["PRAGMA max_page_count=2", "PRAGMA query_only=ON"], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_costs_time_and_one_warning(
    fault: str,
    tmp_path: Path,
    score: Score,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tally: Tally,
) -> None:
    """If the disk is full or read-only, scores are computed, with one warning."""
    tally(f"a disk that is {'full' if 'page' in fault else 'read-only'}")
    path = tmp_path / "scores.db"
    cache = SQLiteScoreCache(path)
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS[:1])
    cache.close()

    class Limited(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.execute(fault)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Limited, **kwargs))
    model = CachedCrossEncoder(FakeCrossEncoder(), path)
    more = [("q", f"{place} {'x' * 500}") for place in range(200)]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert score(model, [*PAIRS, *more]) == true_scores([*PAIRS, *more])
    (record,) = caplog.records
    assert "is full" in record.getMessage() or "readonly" in record.getMessage()
    assert model.counts.hits >= 2, "what the file has can still be read"


def test_a_file_that_another_process_holds_costs_one_warning(
    tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A file that stays locked is waited for during `busy_timeout` only, and used again once it is free."""
    tally("a cache file that is locked")
    path = tmp_path / "scores.db"
    SQLiteScoreCache(path).get_many([b""])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    model = CachedCrossEncoder(FakeCrossEncoder(), SQLiteScoreCache(path, busy_timeout=0.001, retry_seconds=0))
    assert_right_with_one_warning(model, score, caplog, word="locked", logger="sqlite_score_cache")
    holder.execute("ROLLBACK")
    holder.close()
    assert score(model, PAIRS) == score(model, PAIRS) == true_scores(PAIRS)
    assert model.counts.hits == len(PAIRS), "once it is free, it is used"


def test_a_truncated_file_never_changes_a_score(
    good_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Cut short at any place, the file yields right scores or none, and no more than one warning."""
    content = good_file.read_bytes()
    lengths = [0, 1, 15, 16, 99, 100, 101, 1000, 4095, 4096, 4097, *range(5000, len(content), 512), len(content) - 1]
    for length in lengths:
        path = tmp_path / f"{length}.db"
        path.write_bytes(content[:length])
        assert_survives(path, caplog)
    tally("a cache file cut short", len(lengths))


def test_a_flipped_byte_never_changes_a_score(
    good_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """With any one byte of the file damaged, scores are right, and usually no more than the damaged score is lost."""
    content = good_file.read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    plan = random.Random(1)
    found = []
    for place in plan.sample(used, 400):
        path = tmp_path / "scores.db"
        path.write_bytes(content[:place] + bytes([content[place] ^ plan.randint(1, 255)]) + content[place + 1 :])
        found.append(assert_survives(path, caplog))
        for file in tmp_path.iterdir():
            file.unlink()
    assert found.count(len(PAIRS) - 1) > 100
    tally("a flipped byte in a cache file", len(found))


def test_a_reranker_does_not_notice_a_broken_cache(tmp_path: Path, tally: Tally) -> None:
    """A broken cache is not a failure of the model: the result is reranked."""
    tally("a rerank over a broken cache")
    path = tmp_path / "scores.db"
    path.write_text("no database")
    candidates = [Document(text) for _, text in PAIRS]
    reranker = CrossEncoderReranker(model=CachedCrossEncoder(FakeCrossEncoder(), path), on_error="keep_order")
    expected = CrossEncoderReranker(model=FakeCrossEncoder()).compress_documents(candidates, PAIRS[0][0])
    assert reranker.compress_documents(candidates, PAIRS[0][0]) == expected
