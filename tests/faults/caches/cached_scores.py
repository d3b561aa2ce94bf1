"""Both ways to score through a cache, and what the scores must be whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.faults.caches.cache_writer import pairs_of

PAIRS = pairs_of(0, 30)

Score = Callable[[CachedCrossEncoder, Sequence[TextPair]], list[float]]


def score_now(model: CachedCrossEncoder, pairs: Sequence[TextPair]) -> list[float]:
    return model.score(pairs)


def score_async(model: CachedCrossEncoder, pairs: Sequence[TextPair]) -> list[float]:
    async def run() -> list[float]:
        try:
            return await model.ascore(pairs)
        finally:
            # The model's worker thread has a connection of its own.
            await model.scheduler.run(close(model))

    return asyncio.run(run())


def close(model: CachedCrossEncoder) -> Any:
    """Close the connection of the thread that runs this, as one step of the model's scheduler."""
    if isinstance(model.cache, SQLiteScoreCache):
        model.cache.close()
    yield


def true_scores(pairs: Sequence[TextPair]) -> list[float]:
    """The model's scores without a cache."""
    return FakeCrossEncoder().score(pairs)


def assert_right_with_one_warning(
    model: CachedCrossEncoder, score: Score, caplog: pytest.LogCaptureFixture, *, word: str, logger: str
) -> None:
    """Score three times; all scores are right, and one warning in all, from the given module, names the place."""
    with caplog.at_level(logging.DEBUG, logger="langchain_crossrerank"):
        for _ in range(3):
            assert score(model, PAIRS) == true_scores(PAIRS)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (
        logging.WARNING,
        f"langchain_crossrerank.cross_encoders.wrappers.{logger}",
    )
    assert word in record.getMessage()
