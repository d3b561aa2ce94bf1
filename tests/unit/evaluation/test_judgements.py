"""Judgements: what is read, under which names, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import load_qrels
from langchain_crossrerank.evaluation.judgements import check_judged
from tests.unit.evaluation.conftest import Write

GOOD = {"q1": {"d1": 1}, "q2": {"d2": 0}}


@pytest.mark.parametrize(
    "line",
    ["q1 d1 1", "q1\td1", "q1\td1\t", "q1\td1\t0.5", "q1\td1\trelevant", "q1\t0\t77\t1", "q1"],
    ids=["spaces", "two columns", "no score", "fraction", "word", "four columns of TREC", "one column"],
)
def test_a_malformed_judgement_is_named(write: Write, line: str) -> None:
    """A line that is not two ids and a whole number, separated by tabs, is named with its number."""
    file = write(f"query-id\tcorpus-id\tscore\nq1\td2\t1\n{line}\n")
    with pytest.raises(InvalidInputError) as caught:
        load_qrels(file)
    assert f"{file}, line 3: {line!r} is not query-id, corpus-id and a whole-number score" in str(caught.value)


def test_judgements_may_lack_the_header(write: Write) -> None:
    """Without a header the first line is a judgement, and grades may be negative or above 1."""
    assert load_qrels(write("q1\td1\t3\nq1\td2\t-1\nq2\td1\t0\n")) == {
        "q1": {"d1": 3, "d2": -1},
        "q2": {"d1": 0},
    }


@pytest.mark.parametrize("again", ["q1\td1\t2", "q1\td1\t0"], ids=["the same grade", "another grade"])
def test_a_pair_judged_twice_is_named(write: Write, again: str) -> None:
    """Which of two grades holds is not for us to say, and the same one twice is a slip as well."""
    file = write(f"query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td1\t1\n{again}\n")
    with pytest.raises(InvalidInputError, match=r"line 4: 'q1' and 'd1' are judged twice; keep one line"):
        load_qrels(file)


@pytest.mark.parametrize("between", ["\t", " ", "   "])
def test_the_four_columns_of_trec_are_judgements(write: Write, between: str) -> None:
    """Query, iteration, document and grade are read by tabs and by spaces."""
    lines = [("q1", "0", "d1", "1"), ("q2", "Q0", "d2", "0")]
    assert load_qrels(write("".join(between.join(line) + "\n" for line in lines))) == GOOD


@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore", "qid\tdocid\trel", "Query_ID\tDocID\tRelevance"])
def test_a_header_may_use_other_names(write: Write, header: str) -> None:
    """Usual names of the three columns are known, in any case."""
    assert load_qrels(write(f"{header}\nq1\td1\t1\nq2\td2\t0\n")) == GOOD


def test_columns_are_taken_by_their_names(write: Write) -> None:
    """A header decides which column is which, also in a file with an index column or the documents first."""
    assert load_qrels(write("corpus-id\tquery-id\tscore\nd1\tq1\t1\nd2\tq2\t0\n")) == GOOD
    assert load_qrels(write("note grade docid qid\nx 1 d1 q1\nx 0 d2 q2\n")) == GOOD
    assert load_qrels(write("query_id,grade,note,doc_id\nq1,1,x,d1\nq2,0,,d2\n", "qrels.csv")) == GOOD
    assert load_qrels(write(",query_id,doc_id,label\n0,q1,d1,1\n1,q2,d2,0\n", "qrels.csv")) == GOOD


@pytest.mark.parametrize(
    "content",
    [
        {"q1": {"d1": 1}, "q2": {"d2": 0}},
        [{"query-id": "q1", "corpus-id": "d1", "score": 1}, {"query-id": "q2", "corpus-id": "d2", "score": 0.0}],
    ],
    ids=["nested", "rows"],
)
def test_judgements_may_be_json(write: Write, content: Any) -> None:
    """Grades by document by query, and rows with named keys."""
    assert load_qrels(write(content, "qrels.json")) == GOOD


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("header", ["", "query-id\tcorpus-id\tscore"], ids=["no header", "header"])
def test_encodings_marks_and_line_ends_change_nothing(write: Write, encoding: str, end: str, header: str) -> None:
    """What an editor on any system saves holds the same judgements, the first line included."""
    lines = [*([header] if header else []), "q1\td1\t1", "q2\td2\t0"]
    assert load_qrels(write(end.join(lines) + end, encoding=encoding)) == GOOD


@pytest.mark.parametrize("grade", ["1", "1.0", "01", " 1 ", "1e0"])
def test_a_whole_grade_may_be_written_as_a_fraction(write: Write, grade: str) -> None:
    """What pandas writes for a whole number is whole."""
    assert load_qrels(write(f"query-id\tcorpus-id\tscore\nq1\td1\t{grade}\n")) == {"q1": {"d1": 1}}


@pytest.mark.parametrize("grade", [1, 1.0, np.int64(1), np.float32(1), "1"])
def test_grades_in_python_become_plain_numbers(grade: Any) -> None:
    """Any whole number is the same grade, as a plain `int`."""
    plain = check_judged({"q": "text"}, {"q": {"d": grade}})
    assert plain == {"q": {"d": 1}}
    assert type(plain["q"]["d"]) is int


@pytest.mark.parametrize("grade", [0.5, float("nan"), float("inf"), True, None, "high", np.float64(0.5)])
def test_a_grade_that_is_not_whole_is_refused(grade: Any) -> None:
    """A grade is never cut to a whole number, and what is not a number is not guessed."""
    with pytest.raises(InvalidInputError, match="whole grades"):
        check_judged({"q": "text"}, {"q": {"d": grade}})
