"""Reports as coloured tables."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from langchain_crossrerank.cli.tables import ranking_list, report_table
from langchain_crossrerank.evaluation import Comparison, RankedDocument
from langchain_crossrerank.evaluation.display.reports import Cell, Column, Report, Section, Stages

HOSTILE = "\x1b]0;pwned\x07[red]\u202e"


def printed(report: Report, *, width: int = 80, color: bool = False) -> str:
    """What a terminal gets."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=True, color_system="standard" if color else None, markup=False
    )
    console.print(report_table(report, ["the note"]))
    return file.getvalue()


def make_report(text: str) -> Report:
    """A report that has everything, with a text in all places."""
    return Report(
        chart=Stages([]),
        kind="profile",
        heading=f"heading {text}",
        label="Query: ",
        columns=[Column("#"), Column("document", "<", fills=True), Column("move")],
        rows=[[Cell("1"), Cell(f"first {text}"), Cell("+2", "up")], [Cell("2"), Cell("second"), Cell("-1", "down")]],
        sections=[Section("Lost most", [("-0.500", f"a query {text}")], "down")],
        warnings=[f"only two queries {text}"],
        notes=[f"measured here {text}"],
    )


def test_everything_a_report_says_is_shown() -> None:
    """Heading, table, sections, warnings and notes are printed, within the width."""
    shown = printed(make_report(""))
    for words in ("Query: heading", "document", "first", "+2", "Lost most:", "-0.500", "Warning: only two", "the note"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_texts_do_not_act_on_the_terminal() -> None:
    """Escape sequences and overrides are shown as escapes, and markup of rich is not obeyed."""
    shown = printed(make_report(HOSTILE))
    assert not set("\x1b\x07\u202e") & set(shown)
    assert shown.count("[red]") == 5


def test_moves_have_colours() -> None:
    """Up is green and down is red."""
    shown = printed(make_report(""), color=True)
    assert re.search(r"\x1b\[32m *\+2", shown)
    assert re.search(r"\x1b\[31m *-1", shown)


def test_long_texts_are_wrapped_and_figures_are_not() -> None:
    """In 60 columns a passage takes several lines, and the columns of figures stay whole."""
    shown = printed(make_report("word " * 40), width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert "-0.500" in shown


def make_comparison(
    text: str,
    *,
    initial_rank: int = 3,
    score: float | None = 0.5,
    answer: tuple[int, int] | None = None,
    **metadata: Any,
) -> Comparison:
    """A comparison with one document that was kept."""
    document = RankedDocument(text, metadata, initial_rank, 1, score, answer)
    return Comparison(query="?", documents=[document], model="bundled", retrieve_ms=1.0, rerank_ms=1.0)


def ranking(comparison: Comparison, *, width: int = 80, **kwargs: Any) -> str:
    """What a terminal gets of a ranking."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="standard")
    console.print(ranking_list(comparison, width=width, **kwargs))
    return file.getvalue()


def test_a_ranking_highlights_the_sentence_that_answers() -> None:
    """The sentence is bold, however far back in the passage it is; what surrounds it is cut between words."""
    text = f"{'Before it. ' * 40}The answer is nine. {'After it. ' * 40}"
    start = text.index("The answer")
    shown = ranking(make_comparison(text, answer=(start, start + len("The answer is nine."))))
    assert re.search(r"\x1b\[1mThe answer is nine\.", shown)
    assert 0 < shown.count("Before") < 4
    words = set(re.findall(r"[A-Za-z]+", re.sub(r"\x1b\[[\d;]*m", "", shown)))
    assert words == {"Before", "it", "The", "answer", "is", "nine", "After", "was", "unknown", "source"}
    assert re.search(r"\x1b\[32mwas 3 *\x1b", shown)
    assert "0.500" in shown


def test_a_ranking_marks_the_answer_where_nothing_is_bold() -> None:
    """In a pipe the sentence is between the marks that are asked for."""
    shown = ranking(make_comparison("It is nine. Yes.", answer=(0, 11)), emphasis="*")
    assert "*It is nine.*" in shown


def test_a_ranking_shows_the_start_of_a_passage_without_an_answer() -> None:
    """Without an answer the start of the passage is shown, safe for the terminal; a missing score is a dash."""
    shown = ranking(make_comparison(f"start \x1b]0;pwned\x07 {'more ' * 100}", score=None))
    assert "start \\x1b]0;pwned\\x07 more" in shown
    assert "\x07" not in shown
    assert re.search(r"was 3 *\S* *- ", shown)


def test_a_ranking_leaves_out_the_headings_that_a_chunk_carries() -> None:
    """What a chunk carries in front of its own text is not its start, and its source is named."""
    shown = ranking(make_comparison("1. Title\n\nIts own text.", carried=10, source="folder/a.pdf", page=4))
    assert "Title" not in shown
    assert "Its own text." in shown
    assert "a.pdf, page 5" in shown


@pytest.mark.parametrize("width", [30, 40, 50, 69, 70, 80, 200])
def test_a_ranking_loses_no_figure_in_a_narrow_terminal(width: int) -> None:
    """Places, scores and sources are whole in any width, logits and places of two digits too."""
    documents = [
        RankedDocument("Its own text.", {"source": "the_file.pdf", "page": 4}, 100 + rank, rank, -10 - rank / 8)
        for rank in range(1, 13)
    ]
    comparison = Comparison(query="?", documents=documents, model="bundled", retrieve_ms=1.0, rerank_ms=1.0)
    lines = re.sub(r"\x1b\[[\d;]*m", "", ranking(comparison, width=width)).splitlines()
    assert max(map(len, lines)) <= width
    for document in documents:
        head = f"{document.rank} +was {document.initial_rank} +{document.score:.3f}( |$)"
        (place,) = [number for number, line in enumerate(lines) if re.match(head, line)]
        assert "the_file.pdf, page 5" in lines[place] + lines[place + 1]
