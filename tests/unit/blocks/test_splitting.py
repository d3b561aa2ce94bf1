"""Blocks of a text: what is a heading, an item, code, and what says nothing."""

from __future__ import annotations

import pytest

from langchain_crossrerank.blocks import Markup, block_text, split_blocks


def described(text: str, markup: Markup = "any") -> list[tuple[str, str]]:
    """Kind and text of each block."""
    return [(block.kind, block_text(text, block, markup)) for block in split_blocks(text, markup)]


@pytest.mark.parametrize(
    "text",
    [
        "## Warranty of the *pump*\n\nIt lasts.",
        "Warranty of the pump\n--------------------\n\nIt lasts.",
        "====================\nWarranty of the pump\n====================\n\nIt lasts.",
        '### <a href="https://example.org" class="x">Warranty of the pump</a>\n\nIt lasts.',
        "## [Warranty](#id1) of the `pump` {#warranty}\n\nIt lasts.",
        "---\ntitle: x\n---\n\n# Warranty of the pump #\n\nIt lasts.",
    ],
)
def test_a_heading_is_found_without_its_marks(text: str) -> None:
    """Markdown, reStructuredText and HTML headings give their title, and the text below them is a paragraph."""
    found = [pair for pair in described(text) if pair[0] != "noise"]
    assert found == [("heading", "Warranty of the pump"), ("paragraph", "It lasts.")]


def test_levels_of_headings() -> None:
    """Levels are counted from 1: hashes in Markdown, the order of appearance in reStructuredText."""
    markdown = split_blocks("# A\n\n### B\n\n## C\n", "markdown")
    rst = split_blocks("A\n===\n\nB\n---\n\nC\n===\n", "rst")
    assert [block.level for block in markdown] == [1, 3, 2]
    assert [block.level for block in rst] == [1, 2, 1]


def test_lines_of_a_card_are_items_and_wrapped_prose_is_not() -> None:
    """Lines that end early belong to a card; lines that are full are one paragraph."""
    card = "Keys of the editor\n\nC-k kill to the end of the line\nC-y yank the most recently killed text\nC-t swap\n"
    prose = "The editor keeps a history of its lines. Edited lines are written to\na file when the session ends.\n"
    assert [kind for kind, _ in described(card)] == ["paragraph", "item", "item", "item"]
    assert [kind for kind, _ in described(prose)] == ["paragraph"]


def test_an_item_is_led_by_the_line_above_the_list() -> None:
    """An item points at the last sentence of the paragraph that introduces it, and loses its bullet."""
    text = "It is late. The timetable is this:\n\n- Ferry: 09:00\n  every day\n2. Bus: 10:30\n"
    _, first, second = split_blocks(text)
    assert [block_text(text, block) for block in (first, second)] == ["Ferry: 09:00 every day", "Bus: 10:30"]
    assert first.lead is not None
    assert text[slice(*first.lead)] == "The timetable is this:"


@pytest.mark.parametrize(
    "lines",
    [
        ["--verbose   print what is done", "--quiet     print nothing at all", "--force     overwrite what is there"],
        ["Menu", "Coffee . . . . . 2.50", "Tea . . . . . . . 2.00"],
        ["Ferry\t5 euros for each adult and dog", "Bus\t2 euros for each adult and dog"],
    ],
)
def test_lines_in_columns_are_items(lines: list[str]) -> None:
    """However long they are, and although nothing longer is around them."""
    assert [kind for kind, _ in described("\n".join(lines))] == ["item"] * len(lines)


def leads(text: str, markup: Markup = "markdown") -> list[tuple[str, str]]:
    """Each item with what leads it."""
    found = [block for block in split_blocks(text, markup) if block.kind == "item"]
    return [(text[slice(*block.lead)] if block.lead else "", block_text(text, block, markup)) for block in found]


def test_an_inner_item_is_led_by_the_item_around_it() -> None:
    """And an outer one by the paragraph above the list."""
    text = "Fares:\n\n- On Mondays:\n  - Adults: 5\n  - Dogs: 0\n- On Sundays:\n  - Adults: 6\n- None in May\n"
    monday, sunday = "On Mondays:", "On Sundays:"
    assert [lead for lead, _ in leads(text)] == ["Fares:", monday, monday, "Fares:", sunday, "Fares:"]


def test_a_paragraph_of_an_item_leads_no_other_item() -> None:
    """It says more of its own item."""
    text = "Do this:\n\n1. Buy a ticket.\n\n   It is cheap.\n\n2. Walk on.\n"
    assert leads(text) == [("Do this:", "Buy a ticket."), ("Do this:", "Walk on.")]


def test_a_paragraph_leads_no_item_to_the_left_of_those_it_introduces() -> None:
    """A chunk that begins with inner items begins with the item around them, and goes on with the next outer one."""
    assert leads("On Mondays:\n\n  - Dogs: 0\n- None in May\n") == [("On Mondays:", "Dogs: 0"), ("", "None in May")]


def test_a_term_and_its_definition_are_one_item() -> None:
    """In Markdown, as web pages are converted to it."""
    text = "Ferry\n:   It swims.\n\nDog\n:   It barks\n    at night.\n:   It sleeps.\n"
    assert leads(text) == [("", "Ferry: It swims."), ("", "Dog: It barks at night. It sleeps.")]


@pytest.mark.parametrize(
    "text",
    [
        "2.2 Files . . . . . . . . 11",
        "Index ........ 12",
        "Ferries ........ 12, 14",
        "Name: ..........",
        "- [The fares](#fares)",
        "2. [The fares](#fares)",
        "---------",
        "<!-- a note -->",
        "![A boat](boat.png)",
        "<br>",
        '</details> <Tabs id="x">',
    ],
)
def test_what_says_nothing_is_noise(text: str) -> None:
    """Contents lines, rules, comments, images and tags alone hold no statement."""
    assert [kind for kind, _ in described(text)] == ["noise"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".. note:: The ferry leaves at nine.\n", ["The ferry leaves at nine."]),
        (
            ".. warning:: Never leave the\n   ferry alone.\n\n   It sinks.\n",
            ["Never leave the ferry alone.", "It sinks."],
        ),
        (".. tip::\n   :class: x\n\n   It is late.\n", ["It is late."]),
        (".. list-table:: Fares\n   :header-rows: 1\n\n   * - Dogs\n", ["Fares", "- Dogs"]),
        (".. versionadded:: 2.1 It floats.\n", ["2.1 It floats."]),
        (".. py:function:: sail(ferry)\n\n   It leaves.\n", ["sail(ferry)", "It leaves."]),
        (".. [1] The ferry is white.\n", ["The ferry is white."]),
        (".. only:: html\n\n   It is late.\n", ["It is late."]),
        (".. a comment: x\n   that goes on\n\nIt is late.\n", ["It is late."]),
        (".. |ferry| replace:: the ferry\n", []),
    ],
)
def test_text_beside_a_directive_is_text(text: str, said: list[str]) -> None:
    """Only a directive's name and its options are markup; comments and substitutions say nothing."""
    assert [body for kind, body in described(text, "rst") if kind != "noise"] == said


def test_code_keeps_its_lines() -> None:
    """A fenced block and a directive's block are code, and a comment in it is no heading."""
    assert described("```python\n# a comment\nx = 1\n```\n", "markdown") == [("code", "# a comment\nx = 1")]
    found = described(".. code-block:: python\n\n   x = 1\n", "rst")
    assert ("code", "   x = 1") in found


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("1 How the pump\nis cleaned", "1 How the pump is cleaned"),
        ("4.1 How the pump\n\nis cleaned?", "How the pump is cleaned?"),
        ("Cleaning", "Cleaning"),
    ],
)
def test_headings_that_are_known_are_taken(text: str, title: str) -> None:
    """Titles from a PDF's outline mark their lines, also where a title has a number and is broken over two lines."""
    heading, paragraph = split_blocks(f"{text}\nUse water.", "plain", [(0, 2, title)])
    assert (heading.kind, heading.level, heading.words) == ("heading", 2, (title,))
    assert (heading.start, heading.end) == (0, len(text))
    assert paragraph.start == len(text) + 1


@pytest.mark.parametrize(
    "text",
    [
        "." + " " * 100_000,
        "." * 100_000,
        "|" * 50_000,
        "`" * 50_000,
        "[" * 50_000,
        "<a " * 30_000,
        "-- " * 30_000,
        "=\n" * 9000,
    ],
    ids=["spaces", "dots", "pipes", "ticks", "brackets", "tags", "dashes", "rules"],
)
def test_a_text_made_to_be_slow_is_divided(text: str) -> None:
    """Blocks lie inside the text, in order."""
    blocks = split_blocks(text)
    assert all(0 <= block.start <= block.end <= len(text) for block in blocks)
    assert all(len(block_text(text, block)) <= len(text) for block in blocks)


@pytest.mark.parametrize(
    "line", [" " * 100_000 + "x", " " * 100_000 + "-|x", "| " * 50_000 + "-x", "- " * 50_000 + "|x"]
)
def test_a_line_of_any_shape_is_read_in_one_pass(line: str) -> None:
    """Patterns that try every division of a run of spaces would take hours."""
    assert split_blocks(f"{line}\n{line}", "any")


@pytest.mark.parametrize(
    "text", ["1" + ".1" * 100_000, "1 " * 100_000, "Fares\n" + "-\n" * 100_000], ids=["number", "figures", "rules"]
)
def test_the_lines_of_a_known_heading_are_read_in_one_pass(text: str) -> None:
    """A number is looked for at the beginning alone, and each line is compared once."""
    (heading, *_) = split_blocks(text, "plain", [(0, 1, "Fares of the ferry")])
    assert (heading.kind, heading.start, heading.words) == ("heading", 0, ("Fares of the ferry",))


def test_blank_lines_before_code_are_left_out() -> None:
    """However many there are."""
    text = ".. code-block:: python\n" + "\n" * 300_000 + "   x = 1\n"
    assert ("code", "   x = 1") in described(text, "rst")


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nIt is late.\n\n---\n\nIt rains.",
        "---\nIt is late.\n\nIt is dark.\n\n---\n",
        "---\ntitle: Ferries\nIt is late.\n\n---\n",
        "---\n# It is late.\n---\n",
    ],
)
def test_text_between_two_rules_is_no_metadata(text: str) -> None:
    """A text may begin with a rule; only what looks like YAML is left out."""
    assert any("It is late." in said for kind, said in described(text, "markdown") if kind != "noise")


@pytest.mark.parametrize(
    "metadata",
    [
        '---\ntitle: Ferries\n\ntags:\n- sea\n  - "x"\n"by": a\n---',
        "---\ntitle: Ferries\n# a comment\nby: a\n...",
        '+++\ntitle = "Ferries"\n\n[params]\nby = "a"\n+++',
    ],
    ids=["YAML", "YAML to dots", "TOML"],
)
def test_metadata_of_a_file_is_left_out(metadata: str) -> None:
    """Keys, lists, indented values, comments, and blank lines between them."""
    text = f"{metadata}\n\nIt is late."
    assert described(text, "markdown")[1:] == [("paragraph", "It is late.")]


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("1. Buy\n\n    It is late.\n\n        x = 1\n", "markdown"),
        ("- Buy\n\n  - Pay\n\n    It is late.\n\n        x = 1\n", "markdown"),
        ("1.  Buy\n\n    It is late.\n\n    ```sh\n    x = 1\n    ```\n", "markdown"),
        ("!!! note\n\n    It is late.\n\n        x = 1\n", "markdown"),
        (".. note::\n\n    It is late.\n\n        x = 1\n", "rst"),
        (".. note::\n   :class: x\n\n   It is late::\n\n     x = 1\n", "rst"),
        ("- It is late::\n\n    x = 1\n", "rst"),
    ],
    ids=["item", "inner item", "fence", "admonition", "directive", "literal block", "literal block of an item"],
)
def test_indentation_counts_from_the_content_around(text: str, markup: Markup) -> None:
    """A paragraph of an item or directive is no code; what is indented further is, by four, or after `::`."""
    found = [(kind, said.strip()) for kind, said in described(text, markup)]
    assert [said for kind, said in found if kind == "code"] == ["x = 1"]
    assert any("It is late" in said for kind, said in found if kind in ("paragraph", "item"))


@pytest.mark.parametrize("text", ["- Buy\n\nIt is late.\n\n    x = 1\n", "    x = 1\n"])
def test_code_after_a_list_is_code(text: str) -> None:
    """Once a line is outside the item, its content counts no more."""
    assert [said.strip() for kind, said in described(text, "markdown") if kind == "code"] == ["x = 1"]


def test_comments_without_an_end_are_text() -> None:
    """So is one whose end is pages away; one inside a paragraph is left out."""
    far = f"It is <!-- {'x' * 3000} --> late."
    assert described(far, "markdown") == [("paragraph", far)]
    text = "It is late. " + "<!-- " * 3900
    assert described(text, "markdown") == [("paragraph", text.strip())]
    assert described("It is <!-- a\nnote --> late.", "markdown") == [("paragraph", "It is late.")]
