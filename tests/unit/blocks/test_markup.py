"""How the source of a text says what its marks are."""

from __future__ import annotations

import pytest

from langchain_crossrerank.blocks import Markup, markup_of, plain_text


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "any"),
        ({"source": "a.md"}, "markdown"),
        ({"source": "a.docx"}, "markdown"),
        ({"source": "ls.1.gz"}, "markdown"),
        ({"source": "a.rst"}, "rst"),
        ({"source": "a.py"}, "code"),
        ({"source": "a.pdf"}, "plain"),
        ({"source": "a.pdf", "page": 3}, "plain"),
        ({"source": "https://a.org/b"}, "any"),
        ({"source": "notes.txt"}, "any"),
    ],
)
def test_the_source_says_how_structure_is_marked(metadata: dict[str, object], expected: str) -> None:
    """A PDF's text has no marks, a Markdown file's has, and an unknown one may have any."""
    assert markup_of(metadata) == expected


@pytest.mark.parametrize(
    ("text", "markup", "said"),
    [
        ("Run `git clone <url>`.", "markdown", "Run git clone <url>."),
        ("The `__init__` method of **`a_b_c`**", "markdown", "The __init__ method of a_b_c"),
        ("See [`x[0]`](#x) and `**kwargs`, `a\\*`", "markdown", "See x[0] and **kwargs, a\\*"),
        ("Open <https://x.org/a_b_c> or <me@x.org>, <br>now", "markdown", "Open https://x.org/a_b_c or me@x.org, now"),
        ("``<url>`` and :meth:`~__init__`, `the docs <https://x.org>`_", "rst", "<url> and __init__, the docs"),
        ("*Now* `_one_` and ``__two__`` \\*", "any", "Now _one_ and __two__ *"),
        ("`1` \x000\x00 `2`", "markdown", "1 0 2"),
    ],
)
def test_code_and_addresses_are_said_as_they_are_written(text: str, markup: Markup, said: str) -> None:
    """Marks around them go, and what looks like a mark inside them stays."""
    assert plain_text(text, markup) == said


@pytest.mark.parametrize("markup", ["markdown", "rst", "any"])
def test_a_placeholder_is_no_tag(markup: Markup) -> None:
    """Only names of HTML elements, and what has attributes, are tags; `<source>` is more often a placeholder."""
    said = "Usage: cp <source> <target>. The option <n> takes List<String> from <your name>."
    assert plain_text(said, markup) == said
    tags = '<p align="left">It <B>is</B> <Tip id="x">late<br/>,<br /> <source src="a">now.</p>'
    assert plain_text(tags, markup) == "It is late, now."
