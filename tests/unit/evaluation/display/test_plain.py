"""Results as text: lines that keep to their width, and characters that act on no terminal."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank.evaluation.display.plain import clip, cut_words
from tests.unit.evaluation.display.made_results import (
    CONTROLS,
    LONG,
    comparison,
    evaluation,
    every_hostile,
    profile_result,
    sweep_result,
)


@pytest.mark.parametrize("width", [46, 60, 80, 110, 200])
@pytest.mark.parametrize("query", ["q", LONG], ids=["short", "long"])
def test_the_comparisons_text_keeps_to_its_width(width: int, query: str) -> None:
    """No line is wider than asked, and a wide one is made use of."""
    lines = comparison([*range(2, 31), 1], query=query, text=LONG).to_text(width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert max(len(line) for line in lines) > width - 10


@pytest.mark.parametrize("width", [-1, 0, 1, 10, 24, 30, 45])
def test_a_terminal_too_narrow_for_columns_gets_the_narrowest(width: int) -> None:
    """Below the room that the heads need, the text is as wide as they are."""
    narrow = comparison([2, 1], text=LONG).to_text(width)
    assert max(len(line) for line in narrow.splitlines()) <= 46
    assert narrow == comparison([2, 1], text=LONG).to_text(46)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("exactly 10", 10, "exactly 10"),
        ("more than 10", 10, "more th..."),
        ("  one\n two\t three ", 20, "one two three"),
        ("", 5, ""),
    ],
)
def test_clip_puts_a_text_on_one_line(text: str, width: int, expected: str) -> None:
    """White space becomes single spaces, and what does not fit ends in dots."""
    assert clip(text, width) == expected


@pytest.mark.parametrize("result", [evaluation(), evaluation(1), profile_result(), sweep_result()])
def test_tables_of_figures_fit_a_terminal(result: Any) -> None:
    """The table, without the sentences around it, fits 80 columns."""
    lines = result.to_text().splitlines()
    rule = next(number for number, line in enumerate(lines) if set(line) == {"-"})
    end = lines.index("", rule)
    assert max(len(line) for line in lines[rule - 1 : end]) <= 80


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("one two three", 12, "one two ..."),
        ("unbreakable", 8, "unbr ..."),
    ],
)
def test_words_are_not_cut(text: str, width: int, expected: str) -> None:
    """What does not fit ends between words, unless there is only one."""
    assert cut_words(text, width) == expected


@every_hostile
@pytest.mark.parametrize("width", [None, 60])
def test_no_text_acts_on_the_terminal(result: Any, width: int | None) -> None:
    """Escape sequences, control characters and bidirectional overrides are shown as escapes, and forge no line."""
    shown = result.to_text(width)
    assert CONTROLS.findall(shown) == []
    assert "\\x1b" in shown
    assert not any(line.startswith("1  first") for line in shown.splitlines())
    assert shown.encode()
