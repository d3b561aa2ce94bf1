"""Pairs: how they are cleaned, and how they are grouped into batches."""

from __future__ import annotations

import pytest

from langchain_crossrerank.cross_encoders.pairs import EncodedPair, check_text_pairs, encodable, plan_batches


@pytest.mark.parametrize("limit", [1, 10, 64])
def test_no_batch_is_larger_than_its_budget(limit: int) -> None:
    """Padded tokens of a batch stay within the limit, unless it holds a single pair."""
    encoded = [EncodedPair(("q", str(n)), tokens=n) for n in (3, 20, 7, 7, 1, 40, 9)]
    batches = plan_batches(encoded, limit)
    assert sorted(item.tokens for batch in batches for item in batch) == [1, 3, 7, 7, 9, 20, 40]
    assert all(len(batch) == 1 or max(i.tokens for i in batch) * len(batch) <= limit for batch in batches)


def test_the_longest_batch_runs_first() -> None:
    """Memory peaks at the first batch, so a machine that is too small fails at once and not late."""
    encoded = [EncodedPair(("q", str(n)), tokens=n) for n in (3, 20, 7, 40)]
    assert [item.tokens for batch in plan_batches(encoded, 1) for item in batch] == [40, 20, 7, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\ud800b", "a�b"), ("\udc00x", "�x"), ("end\ud800", "end�"), ("\ud83d\ude42", "🙂"), ("שלום", "שלום")],
)
def test_only_lone_surrogates_are_replaced(text: str, expected: str) -> None:
    """A lone surrogate becomes the replacement character, a surrogate pair its character, all else stays."""
    assert encodable(text) == expected


def test_a_query_that_repeats_is_brought_into_form_once() -> None:
    """However many passages a long query has, it takes its time and memory once."""
    (first, _), (second, _), (other, _) = check_text_pairs([("q\ud800", "a"), ("q\ud800", "b"), ("r", "a")])
    assert first is second
    assert (first, other) == ("q\ufffd", "r")
