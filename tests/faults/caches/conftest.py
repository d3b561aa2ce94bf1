"""Fixtures of the tests of caches: both ways to score through one, and a file to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.faults.caches.cached_scores import PAIRS, Score, score_async, score_now


@pytest.fixture(params=[score_now, score_async], ids=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, behind one signature."""
    way: Score = request.param
    return way


@pytest.fixture(scope="session")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache file with the scores of `PAIRS`, with nothing left in its log."""
    path = tmp_path_factory.mktemp("cache") / "good.db"
    cache = SQLiteScoreCache(path)
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS)
    cache._connected.get().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cache.close()
    return path
