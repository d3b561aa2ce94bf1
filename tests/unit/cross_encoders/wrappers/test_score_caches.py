"""Scores in memory and in byte stores: what is kept, within which bytes, and what a copy shares."""

from __future__ import annotations

import copy
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.stores import InMemoryByteStore

from langchain_crossrerank.cross_encoders.wrappers.cached import as_score_cache
from langchain_crossrerank.cross_encoders.wrappers.score_caches import (
    MemoryScoreCache,
    ScoreCache,
    StoreScoreCache,
    entry_bytes,
)
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.errors import InvalidInputError

KEYS = st.sampled_from([bytes([n]) for n in range(12)])


@given(
    limit=st.integers(1, 3000),
    work=st.lists(
        st.one_of(st.dictionaries(KEYS, st.binary(max_size=300), max_size=5), st.lists(KEYS, max_size=5)), max_size=12
    ),
)
def test_memory_stays_within_its_bytes(limit: int, work: list[Any]) -> None:
    """After any reads and writes the cache is within `max_bytes`, has what was last put, and drops the oldest first."""
    cache = MemoryScoreCache(max_bytes=limit)
    used: dict[bytes, bytes] = {}
    for step in work:
        if isinstance(step, dict):
            cache.put_many(step)
            for key, value in step.items():
                used.pop(key, None)
                # What can never fit drives nothing else out.
                if entry_bytes(value) <= limit:
                    used[key] = value
        else:
            found = cache.get_many(step)
            assert found == {key: used[key] for key in step if key in used}
            for key in step:
                if key in used:
                    used[key] = used.pop(key)
        while sum(map(entry_bytes, used.values())) > limit:
            used.pop(next(iter(used)))
        assert cache.size_bytes == sum(map(entry_bytes, used.values()))
        assert cache.size_bytes <= limit
    assert cache.get_many(list(used)) == used
    assert cache.get_many([bytes([n]) for n in range(12)]) == used


def test_the_estimate_of_bytes_is_no_less_than_what_python_takes() -> None:
    """The bytes that the memory cache counts are at least those that it allocates."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = MemoryScoreCache()
        for _ in range(1000):
            cache.put_many({os.urandom(20): os.urandom(34)})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= cache.size_bytes


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "8", True, None])
def test_a_bound_is_a_whole_number(max_bytes: Any, tmp_path: Path) -> None:
    """No cache takes a bound that is not a positive whole number of bytes."""
    with pytest.raises(InvalidInputError, match="max_bytes is"):
        MemoryScoreCache(max_bytes)
    with pytest.raises(InvalidInputError, match="max_bytes is"):
        SQLiteScoreCache(tmp_path / "scores.db", max_bytes=max_bytes)


def test_what_serves_as_a_cache(tmp_path: Path) -> None:
    """`None`, a path, a byte store and a cache become a cache; anything else is refused."""
    store, own = InMemoryByteStore(), MemoryScoreCache()
    assert isinstance(as_score_cache(None), MemoryScoreCache)
    assert isinstance(as_score_cache(str(tmp_path / "a.db")), SQLiteScoreCache)
    assert isinstance(as_score_cache(tmp_path / "a.db"), SQLiteScoreCache)
    assert isinstance(as_score_cache(store), StoreScoreCache)
    assert as_score_cache(own) is own
    for wrong in (5, {}, object()):
        with pytest.raises(InvalidInputError, match="pass a ScoreCache"):
            as_score_cache(wrong)  # type: ignore[arg-type]  # what a caller without a type checker may pass


@pytest.fixture(params=["memory", "store", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> ScoreCache:
    """A cache of each kind with one value in it."""
    kinds: dict[str, ScoreCache] = {
        "memory": MemoryScoreCache(12345),
        "store": StoreScoreCache(InMemoryByteStore(), prefix="own-"),
        "sqlite": SQLiteScoreCache(tmp_path / "scores.db", busy_timeout=1.5, max_bytes=10**6, retry_seconds=7),
    }
    made = kinds[request.param]
    made.put_many({b"key": b"value"})
    return made


def test_a_deep_copy_shares_the_scores(cache: ScoreCache) -> None:
    """What is put into either is found in both."""
    twin = copy.deepcopy(cache)
    assert twin.get_many([b"key"]) == {b"key": b"value"}
    twin.put_many({b"more": b"scores"})
    assert cache.get_many([b"more"]) == {b"more": b"scores"}


def test_a_pickled_copy_works(cache: ScoreCache) -> None:
    """A copy through pickle keeps the settings, opens what lies outside the process, and starts empty in memory."""
    twin = pickle.loads(pickle.dumps(cache))
    inside = isinstance(cache, MemoryScoreCache)
    assert twin.get_many([b"key"]) == ({} if inside else {b"key": b"value"})
    twin.put_many({b"more": b"scores"})
    assert twin.get_many([b"more"]) == {b"more": b"scores"}
    assert repr(twin) == repr(cache) or inside
    for name in ("max_bytes", "busy_timeout", "retry_seconds"):
        assert getattr(twin, name, None) == getattr(cache, name, None)
