"""Fixtures of the tests of failing models: the models, and both ways to rerank with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fault_tally import Tally
from tests.faults.models.bad_models import FAULTS, Faulty, Held, Rerank, rerank_async, rerank_now


@pytest.fixture(params=[rerank_now, rerank_async], ids=["sync", "async"])
def rerank(request: pytest.FixtureRequest) -> Rerank:
    """Both ways to rerank, behind one signature."""
    way: Rerank = request.param
    return way


@pytest.fixture(params=FAULTS)
def faulty(request: pytest.FixtureRequest, tally: Tally) -> Faulty:
    """A model with each fault in turn."""
    tally(f"a model that {request.param}")
    return Faulty(FAULTS[request.param])


@pytest.fixture
def held() -> Iterator[Held]:
    """A held model, let go at the end so that no thread outlives its test."""
    model = Held()
    yield model
    model.opened.set()
