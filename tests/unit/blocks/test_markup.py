"""How the source of a text says what its marks are."""

from __future__ import annotations

import pytest

from langchain_crossrerank.blocks import markup_of


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
