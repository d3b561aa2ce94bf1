"""What can reach a terminal."""

from __future__ import annotations

import unicodedata

import pytest

from langchain_crossrerank._terminal import neutralise, one_line

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("what \udcff", "what \\udcff"),
        ("one\r\ntwo\rthree", "one\ntwo\\x0dthree"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_controls_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    """Escape sequences, C1 controls, overrides and surrogates become visible, and the text around them stays."""
    assert neutralise(text) == shown


def test_no_control_character_is_left() -> None:
    """Of all characters, newline and tab are the only controls that pass."""
    every = "".join(map(chr, range(0x110000)))
    left = {character for character in neutralise(every) if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}}
    assert left == {"\n", "\t"}
    assert not set(BIDI) & set(neutralise(every))


def test_ordinary_text_is_unchanged() -> None:
    """Letters of any script, emoji with joiners and layout by newline and tab stay the same."""
    text = "Fähre\tאנייה \u200f 猫\n👩\u200d🔬 می\u200cخواهم"
    assert neutralise(text) == text


def test_one_line_has_no_line_break() -> None:
    """A newline in a file name cannot forge a second line."""
    assert one_line("x\n[1] 0.999\ttrusted.pdf\x85y") == "x\\n[1] 0.999\\ttrusted.pdf\\x85y"
    assert len(one_line("".join(map(chr, range(0x3000)))).splitlines()) == 1
