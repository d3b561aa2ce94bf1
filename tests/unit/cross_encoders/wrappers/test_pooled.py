"""Concurrent calls scored together: the same scores, full batches, turns, and failures that stay with their caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.pooled import PooledCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder

PAIR_TOKENS = 20
"""Guessed tokens of each pair that `pairs` makes."""


class HeldCrossEncoder(FakeCrossEncoder):
    """A fake model whose first forward pass waits until the test lets it go on."""

    def __init__(self, *, max_batch_tokens: int = 8 * PAIR_TOKENS) -> None:
        super().__init__(max_batch_tokens=max_batch_tokens)
        self.began = threading.Event()
        self.may_go_on = threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.began.set()
        assert self.may_go_on.wait(30)
        if any("poison" in item.text_pair[1] for item in batch):
            raise ValueError("poison")
        if any("nan" in item.text_pair[1] for item in batch):
            return [float("nan") for _ in batch]
        return super()._score_batch(batch)


def pairs(caller: str, number: int) -> list[TextPair]:
    """Pairs of equal length, all different."""
    return [(f"query of {caller}", f"passage {place:03} of caller {caller}".ljust(60, ".")) for place in range(number)]


def submit_while_held(
    model: HeldCrossEncoder, pool: PooledCrossEncoder, calls: Sequence[list[TextPair]]
) -> list[Future[list[PairScore]]]:
    """Submit calls while the pass of an earlier one is under way, so that all of them wait together."""
    first = pool.submit(pairs("first", 1))
    assert model.began.wait(30)
    futures = [pool.submit(call) for call in calls]
    model.may_go_on.set()
    first.result(30)
    return futures


@given(sizes=st.lists(st.integers(0, 12), max_size=6), length=st.integers(1, 200))
@settings(deadline=None)
def test_scores_are_those_of_the_model(sizes: list[int], length: int) -> None:
    """Any number of calls of any size get the scores that the model gives each of them alone, in input order."""
    model = FakeCrossEncoder(max_batch_tokens=200)
    pool = PooledCrossEncoder(model)
    calls = [[(q, p[: length + 9 * place]) for q, p in pairs(str(place), size)] for place, size in enumerate(sizes)]
    futures = [pool.submit(call) for call in calls]
    assert [[scored.score for scored in future.result(30)] for future in futures] == [
        FakeCrossEncoder().score(call) for call in calls
    ]


async def test_scores_of_a_real_model(tiny_onnx_folder: Path) -> None:
    """Texts of many lengths, long queries and long passages get the model's own scores and marks, and a token count."""
    model = load_cross_encoder(tiny_onnx_folder)
    texts = ["short", "", "a passage of some length " * 5, "word " * 400, "🙂", "lone \ud800 surrogate"]
    calls = [[(query, text) for text in texts] for query in ("a query", "another query", "long " * 200)]
    expected = [await model.ascore_pairs(call) for call in calls]
    found = await asyncio.gather(*(PooledCrossEncoder(model).ascore_pairs(call) for call in calls))
    for ours, theirs in zip(found, expected, strict=True):
        assert [pair.score for pair in ours] == pytest.approx([pair.score for pair in theirs], abs=1e-5)
        assert [(pair.truncated, pair.query_truncated, pair.tokens) for pair in ours] == [
            (pair.truncated, pair.query_truncated, pair.tokens) for pair in theirs
        ]


def test_small_calls_share_forward_passes() -> None:
    """Sixteen calls of one pair take the passes that one call of sixteen pairs would take."""
    model = HeldCrossEncoder()
    futures = submit_while_held(model, PooledCrossEncoder(model), [pairs(f"{number:02}", 1) for number in range(16)])
    assert all(len(future.result(30)) == 1 for future in futures)
    assert [len(batch) for batch in model.batches] == [1, 8, 8]


def test_a_much_shorter_pair_does_not_join() -> None:
    """A pair that would be mostly padding is scored in a batch of its own."""
    model = HeldCrossEncoder()
    long, short = pairs("long", 2), [("query of short", "tiny")]
    futures = submit_while_held(model, PooledCrossEncoder(model), [long, short])
    assert all(future.result(30) for future in futures)
    assert [len(batch) for batch in model.batches] == [1, 2, 1]


def test_callers_take_turns() -> None:
    """A small call is done after its share of the passes, not after the large call that came first."""
    model = HeldCrossEncoder()
    large, small = submit_while_held(model, PooledCrossEncoder(model), [pairs("large", 80), pairs("small", 8)])
    small.result(30)
    large.result(30)
    passes_with_small = [place for place, batch in enumerate(model.batches) if "query of small" in dict(batch)]
    assert passes_with_small[-1] <= 3
    assert len(model.batches) >= 12
    assert sum(len(batch) for batch in model.batches) == 89


def test_a_cancelled_call_is_not_scored() -> None:
    """Pairs of a caller that gave up take no part in any further forward pass, and the others get their scores."""
    model = HeldCrossEncoder()
    pool = PooledCrossEncoder(model)
    first = pool.submit(pairs("first", 1))
    assert model.began.wait(30)
    gone, kept = pool.submit(pairs("gone", 20)), pool.submit(pairs("kept", 20))
    assert gone.cancel()
    model.may_go_on.set()
    assert len(first.result(30)) == 1
    assert len(kept.result(30)) == 20
    assert {query for batch in model.batches for query, _ in batch} == {"query of first", "query of kept"}


async def test_cancelling_the_task_stops_the_work() -> None:
    """Cancelling an awaiting task gives its pairs up."""
    model = HeldCrossEncoder()
    pool = PooledCrossEncoder(model)
    task = asyncio.ensure_future(pool.ascore(pairs("gone", 80)))
    await asyncio.to_thread(model.began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    model.may_go_on.set()
    assert len(await pool.ascore(pairs("kept", 3))) == 3
    assert 3 < sum(len(batch) for batch in model.batches) <= 8 + 3


@pytest.mark.parametrize(("text", "message"), [("poison", "failed on 1 pairs .*poison"), ("nan", "not finite|finite")])
def test_a_failure_stays_with_its_caller(text: str, message: str) -> None:
    """A pair on which the model fails, or whose score is not finite, fails its own call and no other."""
    model = HeldCrossEncoder()
    bad = [("query of bad", text.ljust(60, "."))]
    futures = submit_while_held(
        model, PooledCrossEncoder(model), [pairs("a", 2), bad, pairs("b", 2)] if text == "poison" else [bad]
    )
    failed = futures[1] if text == "poison" else futures[0]
    with pytest.raises(ScoringError, match=message) as raised:
        failed.result(30)
    assert raised.value.positions == (0,)
    for future in futures:
        if future is not failed:
            assert len(future.result(30)) == 2


def test_an_invalid_pair_is_refused_at_once() -> None:
    """A blank query raises where it is passed."""
    with pytest.raises(InvalidInputError, match="blank"):
        PooledCrossEncoder(FakeCrossEncoder()).submit([(" ", "passage")])


@pytest.mark.parametrize(
    "inner",
    [
        CascadeCrossEncoder(FakeCrossEncoder(), FakeCrossEncoder()),
        CachedCrossEncoder(FakeCrossEncoder()),
    ],
    ids=["cascade", "cached"],
)
def test_a_model_that_plans_its_own_calls_is_refused(inner: CascadeCrossEncoder | CachedCrossEncoder) -> None:
    """What must see a whole call, or answers without the model, cannot be pooled."""
    with pytest.raises(InvalidInputError, match="cannot be scored together"):
        PooledCrossEncoder(inner)


async def test_windows_and_caches_go_around_each_other(tiny_onnx_folder: Path) -> None:
    """Windows inside and a cache outside give the scores of the same model without a pool."""
    windowed = WindowedCrossEncoder(load_cross_encoder(tiny_onnx_folder))
    long = [("a query", f"{number} " + "many words that go on " * 60) for number in range(3)]
    cached = CachedCrossEncoder(PooledCrossEncoder(windowed))
    assert await cached.ascore(long) == pytest.approx(windowed.score(long), abs=1e-5)
    assert await cached.ascore(long) == pytest.approx(windowed.score(long), abs=1e-5)
    assert (cached.counts.hits, cached.counts.misses) == (3, 3)


def test_more_pairs_than_are_encoded_at_a_time() -> None:
    """A call of several thousand pairs is scored part by part."""
    model = FakeCrossEncoder()
    many = pairs("many", 2500)
    assert [scored.score for scored in PooledCrossEncoder(model).submit(many).result(60)] == model.score(many)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """If serving callers itself breaks, all of them get an error, and the next call works."""
    model = HeldCrossEncoder()
    pool = PooledCrossEncoder(model)
    with monkeypatch.context() as patch:
        patch.setattr(PooledCrossEncoder, "_settle", None)
        futures = [pool.submit(pairs("first", 1)), pool.submit(pairs("second", 1))]
        model.may_go_on.set()
        for future in futures:
            with pytest.raises(ScoringError, match="stopped before"):
                future.result(30)
    assert len(pool.submit(pairs("third", 1)).result(30)) == 1


def test_a_thread_that_cannot_be_started_costs_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread left, the call that needs one fails, and a later call works."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    model = FakeCrossEncoder()
    pool = PooledCrossEncoder(model)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.submit(pairs("refused", 1))
    assert len(pool.submit(pairs("after", 1)).result(30)) == 1
    assert model.batches == [pairs("after", 1)]
