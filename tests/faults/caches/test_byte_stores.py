"""LangChain's byte stores as caches: they keep scores, and one that fails changes none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.storage import LocalFileStore
from langchain_core.stores import BaseStore, InMemoryByteStore

from langchain_crossrerank.cross_encoders.wrappers.cached import CacheCounts, CachedCrossEncoder
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally
from tests.faults.caches.cached_scores import PAIRS, Score, assert_right_with_one_warning, true_scores

STORE_FAULTS = [
    "raises on reading",
    "raises on writing",
    "returns too few",
    "returns too many",
    "returns nothing at all",
    "returns text",
    "returns numbers",
    "returns other bytes",
]

DAMAGED = ["returns text", "returns numbers", "returns other bytes"]
"""Faults that only show when a value is read."""


class BadStore(InMemoryByteStore):
    """A byte store that fails in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """Read, or fail."""
        if self.fault == "raises on reading":
            raise ConnectionError("no route to the store")
        found: list[Any] = super().mget(keys)
        answers: dict[str, list[Any]] = {
            "returns too few": found[:-1],
            "returns too many": [*found, None],
            "returns nothing at all": [],
            "returns text": ["x" * 34 for _ in found],
            "returns numbers": [0.5 for _ in found],
            "returns other bytes": [b"?" * 34 for _ in found],
        }
        return answers.get(self.fault, found)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Write, or fail."""
        if self.fault == "raises on writing":
            raise PermissionError("the store is read-only")
        super().mset(key_value_pairs)


@pytest.mark.parametrize("fault", STORE_FAULTS)
def test_a_failing_store_costs_time_and_one_warning(
    fault: str, score: Score, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """A store that raises or returns nonsense never fails a call and never changes a score."""
    tally(f"a byte store that {fault}")
    model = CachedCrossEncoder(FakeCrossEncoder(), BadStore(fault))
    assert_right_with_one_warning(
        model, score, caplog, word="cache", logger="cached" if fault in DAMAGED else "score_caches"
    )
    assert model.counts.hits == 0


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_langchains_stores_keep_scores(kind: str, tmp_path: Path, score: Score, tally: Tally) -> None:
    """`InMemoryByteStore` and `LocalFileStore` work as caches: the second time nothing is scored."""
    tally(f"a byte store in {kind}")
    store: BaseStore[str, bytes] = InMemoryByteStore() if kind == "memory" else LocalFileStore(tmp_path)
    assert score(CachedCrossEncoder(FakeCrossEncoder(), store), PAIRS) == true_scores(PAIRS)
    asked = FakeCrossEncoder()
    model = CachedCrossEncoder(asked, store)
    assert score(model, PAIRS) == true_scores(PAIRS)
    assert (asked.batches, model.counts) == ([], CacheCounts(hits=len(PAIRS), misses=0))


def test_files_that_were_cut_in_a_store_are_recomputed(tmp_path: Path, score: Score, tally: Tally) -> None:
    """A `LocalFileStore` whose writer was killed has short files; their scores are computed again."""
    store = LocalFileStore(tmp_path)
    CachedCrossEncoder(FakeCrossEncoder(), store).score(PAIRS)
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    assert len(files) == len(PAIRS)
    for place, file in enumerate(files[:20]):
        file.write_bytes(file.read_bytes()[:place])
    model = CachedCrossEncoder(FakeCrossEncoder(), store)
    assert score(model, PAIRS) == true_scores(PAIRS)
    assert model.counts == CacheCounts(hits=len(PAIRS) - 20, misses=20)
    tally("a file cut short in a byte store", 20)
