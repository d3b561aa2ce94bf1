"""Contents: what only says where something is, told apart from prices, forms and results."""

from __future__ import annotations

import pytest

from langchain_crossrerank.blocks.contents import contents_lines

PRICES = ["Coffee . . . . . . 3", "Tea . . . . . . 2", "Water . . . . . . 4", "Cake . . . . . . 3"]


@pytest.mark.parametrize(
    "lines",
    [
        ["Contents", "", "The ferries 1", "The dogs 3", "", "The fares 12"],
        ["Inhalt", "------", "Die Fähren\tii", "Die Hunde\t3", "Die Preise\t3"],
        ["Table des matières", "Les bacs .... 1", "Les chiens .... 3", "Les prix 12"],
        ["It is late.", "1 The ferries 1", "2 The dogs 3", "2.1 The fares 12"],
    ],
)
def test_entries_without_leaders_are_contents_below_a_title_or_with_sections(lines: list[str]) -> None:
    """Three or more lines that end in pages that never fall."""
    assert contents_lines(lines) == [place for place, line in enumerate(lines) if line[-1:].isalnum() and place]


@pytest.mark.parametrize(
    "lines",
    [
        PRICES,
        [line.replace("3", "2.50") for line in PRICES],
        [f"{line} €" for line in PRICES],
        ["1 Ann 12", "2 Bob 15", "3 Eve 20"],
        ["Contents", "The ferries 1", "The dogs 3"],
        ["Contents", "The ferries 12", "The dogs 3", "The fares 1"],
        ["And so . . . . . . it went on."],
    ],
)
def test_prices_and_results_are_no_contents(lines: list[str]) -> None:
    """Their numbers fall, or are no pages, or nothing says that they are."""
    assert contents_lines(lines) == []
