"""The contract of a cross-encoder, whatever the backend."""

from __future__ import annotations

import pytest

from langchain_crossrerank.cross_encoders.base import EncodedPair, plan_batches
from langchain_crossrerank.testing import FakeCrossEncoder


def test_scores_come_back_in_input_order() -> None:
    """Sorting by length inside does not show outside."""
    model = FakeCrossEncoder(max_batch_tokens=40)
    pairs = [("alpha beta", "alpha " * n) for n in (30, 1, 12, 5)] + [("alpha beta", "alpha beta")]
    assert model.score(pairs) == [model.score([pair])[0] for pair in pairs]
    assert len(model.batches) > 2


@pytest.mark.parametrize("limit", [1, 10, 64])
def test_no_batch_is_larger_than_its_budget(limit: int) -> None:
    """Padded tokens of a batch stay within the limit, unless it holds a single pair."""
    encoded = [EncodedPair(("q", str(n)), tokens=n) for n in (3, 20, 7, 7, 1, 40, 9)]
    batches = plan_batches(encoded, limit)
    assert sorted(item.tokens for batch in batches for item in batch) == [1, 3, 7, 7, 9, 20, 40]
    assert all(len(batch) == 1 or max(i.tokens for i in batch) * len(batch) <= limit for batch in batches)
