"""Manual pages as Markdown."""

from __future__ import annotations

import pytest

from langchain_crossrerank.indexing.manual_page import manual_page_to_markdown


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (".TH LS 1", "# ls(1)"),
        ('.SH "SEE ALSO"', "## See also"),
        (".SS Options", "### Options"),
        (".TP\n\\fB\\-a\\fR, \\fB\\-\\-all\\fR\ndo not ignore entries", "- -a, --all: do not ignore entries"),
        (".IP \\-v 4\nbe verbose", "- -v: be verbose"),
        (".BR ls (1)", "ls(1)"),
        (".B one two", "one two"),
        ("a \\(em b \\(lqc\\(rq", "a — b “c”"),
        ('.\\" a comment\ntext', "text"),
        (".Sh NAME\n.Nm cat\n.Nd concatenate", "## Name\n\ncat\nconcatenate"),
        (".It Fl v Ar file", ""),
        (".nf\n  x = 1\n.fi", "```\n  x = 1\n```"),
    ],
)
def test_macros_become_markdown(source: str, expected: str) -> None:
    """Sections are headings, options are items, fonts and comments are dropped."""
    assert manual_page_to_markdown(source).strip() == expected


def test_an_mdoc_option_is_an_item() -> None:
    """`.It Fl` names the option with its dash."""
    assert manual_page_to_markdown(".It Fl v Ar file\nBe verbose.").strip() == "- -v file: Be verbose."
