"""Fixtures for the tests of the reranker."""

from __future__ import annotations

import pytest

from tests.unit.reranker.calls import CALLS, Rerank


@pytest.fixture(params=CALLS)
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Each way to rerank, synchronous and asynchronous, behind one signature."""
    return CALLS[request.param]
