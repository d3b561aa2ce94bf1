"""Cached values that are damaged or another pair's: they are noticed and computed again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.wrappers.cached import CacheCounts, CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.caches.cached_scores import PAIRS, Score, assert_right_with_one_warning, true_scores

VALUES: dict[str, Any] = {
    "NULL": None,
    "a whole number": 5,
    "a number": 0.75,
    "text": "x" * 34,
    "nothing": b"",
    "one byte": b"\x01",
    "cut short": lambda old: old[:-1],
    "too long": lambda old: old + b"\0",
    "with its checksum zeroed": lambda old: old[:-8] + bytes(8),
    "with its score changed": lambda old: old[:2] + bytes([old[2] ^ 1]) + old[3:],
    "all zeros": lambda old: bytes(len(old)),
}


def damage(path: Path, value: Any) -> None:
    """Replace every value of a cache file; a callable computes the new value from the old one."""
    with sqlite3.connect(path) as connection:
        for key, old in connection.execute("SELECT key, value FROM scores").fetchall():
            new = value(old) if callable(value) else value
            connection.execute("UPDATE scores SET value = ? WHERE key = ?", (new, key))
    connection.close()


class Recording(MemoryScoreCache):
    """A cache whose content a test can read and change."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the known values."""
        return {key: self.values[key] for key in keys if key in self.values}

    def put_many(self, values: Any) -> None:
        """Keep everything."""
        self.values.update(values)


@pytest.mark.parametrize("kind", VALUES)
def test_a_damaged_value_is_recomputed_and_replaced(
    kind: str, good_file: Path, tmp_path: Path, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """Damaged values count as missing, are reported once, and are written again."""
    tally(f"a cached value that is {kind}")
    path = tmp_path / "scores.db"
    shutil.copy(good_file, path)
    damage(path, VALUES[kind])
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, path)
    assert_right_with_one_warning(model, score, caplog, word="cache", logger="cached")
    assert sum(len(batch) for batch in asked.batches) == len(PAIRS)
    assert model.counts == CacheCounts(hits=2 * len(PAIRS), misses=len(PAIRS))


def test_every_flipped_bit_of_a_value_is_noticed(tally: Tally) -> None:
    """A stored value with any single bit flipped is not used."""
    cache = Recording()
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    model.score(PAIRS[:1])
    ((key, value),) = cache.values.items()
    for bit in range(8 * len(value)):
        cache.values[key] = (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")
        before = model.counts.misses
        assert model.score(PAIRS[:1]) == true_scores(PAIRS[:1])
        assert model.counts.misses == before + 1
    tally("a flipped bit in a cached value", 8 * len(value))


def test_a_value_of_another_pair_is_noticed(tally: Tally) -> None:
    """A value under a wrong key, as after damage to an index, is not used."""
    tally("swapped values")
    cache = Recording()
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS)
    keys = list(cache.values)
    cache.values = dict(zip(keys, [cache.values[key] for key in [*keys[1:], keys[0]]], strict=True))
    model = CachedCrossEncoder(FakeCrossEncoder(), cache)
    assert model.score(PAIRS) == true_scores(PAIRS)
    assert model.counts.hits == 0
