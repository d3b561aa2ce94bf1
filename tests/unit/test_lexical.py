"""BM25 over passages in memory."""

from __future__ import annotations

import math

import pytest

lexical = pytest.importorskip("langchain_crossrerank.lexical", reason="needs the server or the training extra")

PASSAGES = [
    "The heron is a bird that waits in shallow water.",
    "The heron hunts fish in shallow water at dawn.",
    "A ferry crosses the water to the island at nine.",
    "Bread needs flour, water, salt and time.",
    "The stork is a bird that nests on roofs.",
]


def test_rare_shared_words_rank_first() -> None:
    """The passages with the rarer words of the query come first, and those that share none are not found."""
    index = lexical.LexicalIndex(PASSAGES)
    found = index.search("herons in shallow water", 10)
    assert set(found[:2]) == {0, 1}
    assert 4 not in found
    assert index.search("zeppelin", 10) == []
    assert index.search("?!", 10) == []


def test_k_limits_the_result() -> None:
    """`search` returns at most `k` positions."""
    index = lexical.LexicalIndex(PASSAGES)
    assert index.search("water", 2) == index.search("water", 5)[:2]


def test_a_query_of_any_length_is_searched_by_its_beginning() -> None:
    """A query may be as long as the body of a request, and each of its words takes time."""
    index = lexical.LexicalIndex(PASSAGES)
    beginning = "ferry " * lexical.MOST_QUERY_WORDS
    assert index.search(f"{beginning} bread", 5) == index.search("ferry", 5)


def test_idf_is_that_of_lucene() -> None:
    """A word in one of five passages has the IDF ln(1 + 4.5 / 1.5), and an unknown word the same."""
    index = lexical.LexicalIndex(PASSAGES)
    assert index.idf("ferry") == pytest.approx(math.log(1 + 4.5 / 1.5))
    assert index.idf("water") < index.idf("heron") < index.idf("ferry") == index.idf("zeppelin")


def test_words_are_compared_without_case_and_plural() -> None:
    """Words are lower-cased and lose a plural `s`, but not the `s` of short words or of `ss`."""
    assert lexical.words("Herons GLASS bus, is it?") == ["heron", "glass", "bus", "is", "it"]
