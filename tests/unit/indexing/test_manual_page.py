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
        ('.BR "say ""no"" to" it', 'say "no" toit'),
        ("a\\f[B]b\\s[10]c\\h'1i'd", "abcd"),
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


@pytest.mark.parametrize("line", ['.B "' + '""' * 2_000_000, "\\f[" * 1_000_000, "\\h'" * 1_000_001])
def test_a_line_that_no_person_wrote_stays_as_it_is(line: str) -> None:
    """Its macros and escapes would take gigabytes or hours."""
    assert manual_page_to_markdown(f"{line}\n.SH Files\n{line}") == f"{line}\n\n## Files\n\n{line}\n"
    assert manual_page_to_markdown(f".SH\n{line}").strip().startswith("## ")


def test_many_lines_of_escapes_are_read_in_one_pass() -> None:
    """An escape that does not end on its line is looked at once."""
    page = ("\\s[" * 3000 + "\n") * 500
    assert manual_page_to_markdown(page) == page


def test_a_bare_name_macro_says_the_name() -> None:
    """A page of BSD names itself once, and its sentences stay whole."""
    source = (
        ".Dt FERRY 1\n.Sh NAME\n.Nm ferry\n.Nd cross the sea\n.Sh DESCRIPTION\nThe\n.Nm\nutility and\n.Nm ,\nsails.\n"
    )
    text = manual_page_to_markdown(source)
    assert "The\nferry\nutility and\nferry,\nsails." in text
    assert "ferry\ncross the sea" in text
