"""Makes text from documents, file names, queries and servers safe to print on a terminal."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline; ESC and CSI start sequences
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff"  # lone surrogates, which no encoding can write
    "]"
)


def neutralise(text: str) -> str:
    """Replace what could control a terminal with escapes that can be read.

    Newlines and tabs stay, so the text may have several lines; see `one_line` where a newline could forge a line.

    Args:
        text: Text of any origin.

    Returns:
        Text without control characters, bidirectional overrides and lone surrogates.
    """
    return _UNSAFE.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Replace what `neutralise` replaces, newlines and tabs as well.

    Args:
        text: Text of any origin, such as a file name.

    Returns:
        Text on one line.
    """
    return neutralise(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
