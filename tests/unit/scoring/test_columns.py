"""Columns are found by their names, or refused; texts of a row are checked."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.scoring.columns import Columns


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["query", "passage"], Columns("query", "passage", False, "score")),
        (["id", "Question", "page_content"], Columns("Question", "page_content", False, "score")),
        (["user_input", "text", "title"], Columns("user_input", "text", False, "score")),
        (["query", "candidates"], Columns("query", "candidates", True, "scores")),
        (["documents", "q"], Columns("q", "documents", True, "scores")),
    ],
)
def test_columns_are_found_by_the_names_people_use(names: list[str], columns: Columns) -> None:
    """Case, hyphens and underscores do not matter, and lists have names in the plural."""
    assert Columns.choose(names, "rows.csv") == columns


def test_columns_can_be_named() -> None:
    """Names that are passed win over those that could be guessed, and say whether there are lists."""
    names = ["query", "frage", "text", "passage", "hits"]
    assert Columns.choose(names, "x", query="frage", passage="text") == Columns("frage", "text", False, "score")
    chosen = Columns.choose(names, "x", query="frage", candidates="hits", score="model_a")
    assert chosen == Columns("frage", "hits", True, "model_a")


@pytest.mark.parametrize(
    ("names", "chosen", "complaint"),
    [
        (["a", "b"], {}, "rows.csv: there is no column 'query'; name the column with query_column"),
        (["query", "b"], {}, "there is no column 'passage'.*passage_column or candidates_column.*'b'"),
        (["query", "question", "text"], {}, r"any of the columns \['query', 'question'\] could be meant"),
        (["query", "text", "passages"], {}, r"any of the columns \['text', 'passages'\] could be meant"),
        (["query", "text", "text"], {}, "the column 'text' comes twice"),
        (["query", "text"], {"query": "frage"}, r"query_column is 'frage'; the columns are \['query', 'text'\]"),
        (["query", "text"], {"passage": "text", "candidates": "text"}, "pass one of them"),
        (["query", "text", "score"], {}, "already a column 'score'; name the new one with score_column"),
        (["query", "text", "x"], {"score": "x"}, "already a column 'x'"),
        (
            ["id", "text", "reply"],
            {"query": "text"},
            "'text' would be both .* other column with passage_column",
        ),
        (["id", "query", "reply"], {"passage": "query"}, "'query' would be both .* other column with query_column"),
    ],
)
def test_a_doubtful_table_is_refused(names: list[str], chosen: dict[str, str], complaint: str) -> None:
    """Nothing is guessed, and the message names the columns and the argument that decides."""
    with pytest.raises(InvalidInputError, match=complaint):
        Columns.choose(names, "rows.csv", **chosen)


@pytest.mark.parametrize(
    "candidates",
    [
        ["a", "b"],
        ("a", "b"),
        [{"text": "a"}, {"id": 7, "page_content": "b"}],
        '["a", "b"]',
    ],
)
def test_candidates_may_be_texts_or_objects(candidates: Any) -> None:
    """Lists of texts, of objects with a text, and JSON in a cell have the same pairs."""
    columns = Columns("query", "candidates", True, "scores")
    assert columns.text_pairs({"query": "q", "candidates": candidates}, "x") == [("q", "a"), ("q", "b")]
    assert columns.text_pairs({"query": "q", "candidates": []}, "x") == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"query": "q"}, r"x, line 3: there is no 'passage'; the keys are \['query'\]"),
        ({"query": " ", "passage": "p"}, "x, line 3: query is ' ', which is blank"),
        ({"query": 7, "passage": "p"}, "x, line 3: query is 7 of type int"),
        ({"query": "q", "passage": None}, "x, line 3: passage is None of type NoneType; it must be text"),
        ({"query": "q", "passage": 4.5}, "x, line 3: passage is 4.5 of type float; it must be text"),
        ({"query": "q", "passage": {"id": 1}}, r"x, line 3: passage is \{'id': 1\} of type dict"),
    ],
)
def test_a_row_without_its_texts_is_named(row: dict[str, Any], complaint: str) -> None:
    """What is missing or is not text is an error with file, line, column and value."""
    with pytest.raises(InvalidInputError, match=complaint):
        Columns("query", "passage", False, "score").text_pairs(row, "x, line 3")


@pytest.mark.parametrize("candidates", ["text", "7", '{"a": 1}', None, 3, ["a", None], [["a"]]])
def test_a_row_without_a_list_is_named(candidates: Any) -> None:
    """A list column must hold lists of texts."""
    with pytest.raises(InvalidInputError, match=r"x, line 3: candidates(\[\d\])? is .*it must be"):
        Columns("query", "candidates", True, "scores").text_pairs({"query": "q", "candidates": candidates}, "x, line 3")
