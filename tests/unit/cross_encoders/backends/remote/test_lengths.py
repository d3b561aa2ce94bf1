"""Complaints of length and number, and the cut of what is sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_crossrerank.cross_encoders.backends.remote.lengths import (
    SentTexts,
    complains_of_length,
    complains_of_number,
    cut_middle,
    cut_passages,
    may_be_too_long,
)


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "This model's maximum context length is 512 tokens. However, you requested 873 tokens.", True),
        (500, "input is too large to process. increase the physical batch size", True),
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 900. exceeds", True),
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 900", True),
        (422, "max_tokens exceeded", True),
        (400, "too many tokens: 900", True),
        (400, "this model reads at most 512 tokens, got 900", True),
        (400, "Token limit of the model reached (900 > 512)", True),
        (422, "Please reduce the length of your documents", True),
        (400, "The max allowed tokens per submitted batch is 512. Your batch has 900 tokens after truncation.", True),
        (400, "Sequence length 900 longer than maximum 512", True),
        (500, "The size of tensor a (1355) must match the size of tensor b (512) at non-singleton dimension 1", True),
        (400, "unknown model", False),
        (500, "internal error", False),
        (401, "this key is too long", False),
    ],
)
def test_complaints_of_length_are_recognised(status: int, text: str, expected: bool) -> None:
    """In the words of vLLM, llama.cpp, Text Embeddings Inference, Voyage, torch and others."""
    assert complains_of_length(status, text) == expected


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (413, "batch size 32 > maximum allowed batch size 16", True),
        (422, '{"msg": "List should have at most 10 items after validation, not 32"}', True),
        (400, "too many documents", True),
        (500, "increase the physical batch size (current batch size: 512)", False),
        (400, "this model reads at most 512 tokens", False),
    ],
)
def test_complaints_of_number_are_recognised(status: int, text: str, expected: bool) -> None:
    """A limit on passages differs from one on tokens."""
    assert complains_of_number(status, text) == expected


def test_only_the_beginning_of_an_error_is_searched() -> None:
    """A server that sends megabytes of error, or a word without an end, costs no time."""
    far = 3000 * "."
    assert not complains_of_length(400, f"{far} the input is too long")
    assert not complains_of_length(400, f"max{100 * 'x'}_tokens")
    assert not complains_of_number(400, f"{far} too many documents")


@given(
    query=st.text(max_size=30),
    passages=st.lists(st.text(max_size=400), max_size=4),
    max_length=st.integers(16, 100),
)
def test_a_cut_passage_fits(query: str, passages: list[str], max_length: int) -> None:
    """A cut keeps the beginning, cuts no passage that fits, and what is left counts as fitting."""
    cut = cut_passages(query, passages, max_length)
    for before, after in zip(passages, cut, strict=True):
        assert before.startswith(after)
        assert after == before or may_be_too_long(query, [before], max_length)
    if not may_be_too_long(query, ["x" * 24], max_length):
        assert not may_be_too_long(query, cut, max_length)
    assert cut_passages(query, cut, max_length) == cut


def test_the_rule_of_the_cut() -> None:
    """Three ASCII characters or one other character make a token."""
    assert cut_passages("", ["a" * 1000], 108) == ["a" * 300]
    assert cut_passages("", ["猫" * 1000], 108) == ["猫" * 100]
    assert cut_passages("abc" * 10, ["a" * 1000], 108) == ["a" * 270]


@given(text=st.text(max_size=400), budget=st.integers(2, 100))
def test_a_cut_query_keeps_its_ends(text: str, budget: int) -> None:
    """The middle is left out only where the query is too long, and what is left counts as fitting."""
    cut = cut_middle(text, budget)
    assert not may_be_too_long("", [cut], budget + 8)
    if cut != text:
        assert may_be_too_long("", [text], budget + 8)
        assert any(text.startswith(cut[:place]) and text.endswith(cut[place:]) for place in range(len(cut) + 1))


def test_texts_become_shorter_while_the_server_finds_them_too_long() -> None:
    """First to what the model is taken to read, then to half of that, down to a floor; what was cut is marked."""
    texts = SentTexts("q" * 900, ["short", "p" * 6000], 512)
    lengths = []
    while texts.fit(400, "too long"):
        lengths.append((len(texts.query), *map(len, texts.passages)))
    assert lengths[:2] == [(768, 5, 744), (384, 5, 360)]
    assert lengths[-1] == (24, 5, 24)
    first, second = texts.scored({0: 0.5, 1: 0.25}).values()
    assert (first.score, first.truncated, first.query_truncated) == (0.5, False, True)
    assert (second.score, second.truncated) == (0.25, True)


def test_a_query_that_leaves_room_is_not_cut() -> None:
    """Passages are cut to what the query leaves; half of the length is always left."""
    texts = SentTexts("q" * 700, ["p" * 6000], 512)
    assert texts.fit(400, "too long")
    assert (len(texts.query), len(texts.passages[0])) == (700, 3 * (512 - 8 - 234))


def test_texts_become_fewer_while_the_server_finds_them_too_many() -> None:
    """The first half is sent; a single passage is not divided."""
    texts = SentTexts("q", list("abcde"), 512)
    assert texts.fit(413, "too many documents")
    assert texts.passages == ["a", "b"]
    assert texts.fit(413, "too many documents")
    assert texts.passages == ["a"]
    assert not texts.fit(413, "too many documents")
    assert not texts.fit(503, "busy")
