"""Cutting queries and passages before they are tokenised: what is kept, and that nothing that is read is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.cross_encoders.truncation import Spans, beginning, cut_middle

TOKENIZER = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))


def words(text: str) -> Spans:
    """Tokenise by words."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def pieces(text: str) -> Spans:
    """Tokenise as the bundled model does."""
    spans: Spans = TOKENIZER.encode(text, add_special_tokens=False).offsets
    return spans


texts = st.lists(
    st.one_of(
        st.sampled_from(
            ["ferry", "don't", "naïve", "low-rank", "東京都", "שלום", "a\u0301", "🙂", "x" * 150, "!!", "ﷺ"]
        ),
        st.text(max_size=12),
    ),
    max_size=60,
).map("  ".join)


@settings(derandomize=True, deadline=None, database=None)
@given(text=texts, tokens=st.integers(1, 40))
def test_the_beginning_has_every_token_that_will_be_read(text: str, tokens: int) -> None:
    """The first tokens of the beginning of a text are the first tokens of the text."""
    whole = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.encode(beginning(text, tokens), add_special_tokens=False).ids[:tokens] == whole[:tokens]


@pytest.mark.parametrize(
    "text",
    ["word " * 300_000, "東京" * 500_000, "a b " * 300_000, "x" * 1_000_000, "line\n\n\n   " * 100_000],
    ids=["words", "no spaces", "letters", "one word", "much space"],
)
def test_the_beginning_of_a_huge_text_is_short(text: str) -> None:
    """Of a megabyte no more is kept than a few characters for each token that is read."""
    short = beginning(text, 512)
    assert text.startswith(short)
    assert len(short) <= 64 * 512


@pytest.mark.parametrize("text", ["", "   ", "one", "one two three", "word " * 400])
def test_a_text_that_may_be_read_whole_stays(text: str) -> None:
    """What could fit is not cut here: that is left to the tokenizer, which knows."""
    assert beginning(text, 512) == text


@settings(derandomize=True, deadline=None, database=None)
@given(text=texts.filter(str.strip), budget=st.integers(1, 60))
def test_a_cut_query_fits(text: str, budget: int) -> None:
    """Whatever the text, the query that is left has no more tokens than it may have, and is not blank."""
    cut = cut_middle(text, budget, pieces)
    assert len(pieces(cut)) <= budget
    assert cut.strip()


def test_a_query_that_fits_stays() -> None:
    """A query within its budget is returned unchanged."""
    assert cut_middle("one two three", 3, words) == "one two three"


def test_the_middle_is_cut_out() -> None:
    """The beginning and the end are kept, where a question mostly stands."""
    query = " ".join(f"w{number}" for number in range(100))
    assert cut_middle(query, 9, words) == "w0 w1 w2 w3 ... w96 w97 w98 w99"


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_tiny_budget_keeps_the_beginning(budget: int) -> None:
    """With hardly any tokens the query begins as it did."""
    assert cut_middle("first second third fourth", budget, words).startswith("first")


def test_the_middle_of_a_huge_query_is_not_tokenised() -> None:
    """A pasted megabyte costs no more than its ends."""
    seen: list[int] = []

    def counting(text: str) -> Spans:
        seen.append(len(text))
        return words(text)

    query = "begin " + "middle " * 200_000 + "end"
    cut = cut_middle(query, 32, counting)
    assert cut.startswith("begin middle")
    assert cut.endswith("middle end")
    assert max(seen) <= 2 * 64 * 32 + 10
