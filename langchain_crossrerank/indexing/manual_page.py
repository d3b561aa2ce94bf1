"""Reads the source of a manual page (`man` and `mdoc` macros) as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_CHARACTERS = {
    "em": "—", "en": "–", "lq": "“", "rq": "”", "oq": "‘", "cq": "’", "aq": "'", "dq": '"', "bu": "•", "co": "©",
    "rg": "®", "ha": "^", "ti": "~", "rs": "\\", "bv": "|", "mu": "×", "->": "→", "<=": "≤", ">=": "≥", "ga": "`",
}  # fmt: skip
_SPECIAL = re.compile(r"\\\((..)|\\\[([^\]\s]{1,20})\]")
_FONT = re.compile(
    r"\\f(?:\[[^\]]{0,40}\]|\(..|.)|\\[smkF](?:[+-]?\d|\[[^\]]{0,40}\])|\\[&|^/,:%]|\\[hvwz]'[^']{0,100}'"
)
_WORDS = re.compile(r'"([^"]*(?:""[^"]*)*)"|(\S+)')
_LONGEST_LINE = 10_000
"""Characters of a line up to which macros and escapes are looked for."""
_FONTS = {"B", "I", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB"}
_MDOC_TEXT = {
    "Nm", "Fl", "Ar", "Pa", "Cm", "Op", "Xr", "Em", "Sy", "Li", "Dq", "Sq", "Ql", "Ev", "Va", "Dv", "Fn", "Nd", "Ic",
    "Er", "Ft", "Vt", "Fa", "Ad", "Aq", "Bq", "Pq", "Qq", "Tn", "Bx", "Ux", "Nx", "Ox", "Fx", "An", "Rs", "No", "Ns",
}  # fmt: skip
_PUNCTUATION = (".", ",", ";", ":", ")")


def manual_page_to_markdown(source: str) -> str:
    """Convert a manual page's source to Markdown: sections become headings, options become a list.

    Macros that only lay text out are dropped; lines between `.nf` and `.fi` become code. Lines of more than 10,000
    characters stay as they are.
    """
    return "\n".join(_Page(source.replace("\\\n", "").splitlines()).lines()) + "\n"


class _Page:
    def __init__(self, source: list[str]) -> None:
        self.source = iter(source)
        self.is_code = False
        self.tag: str | None = None
        # What the page describes; a bare `.Nm` says its name.
        self.name = ""

    def lines(self) -> Iterator[str]:
        for line in self.source:
            if line.startswith((".", "'")) and len(line) <= _LONGEST_LINE:
                name, _, rest = line[1:].strip().partition(" ")
                yield from self._macro(name, rest.strip())
            else:
                yield from self._text(_plain(line))
        if self.is_code:
            yield "```"

    def _text(self, text: str) -> Iterator[str]:
        if self.tag is None:
            yield text if self.is_code else text.strip()
        elif self.tag == "":
            # The line after `.TP` is what the following text explains.
            self.tag = text.strip()
        else:
            yield f"- {self.tag}: {text.strip()}"
            self.tag = None

    def _end_tag(self) -> Iterator[str]:
        if self.tag:
            yield f"- {self.tag}"
        self.tag = None

    def _macro(self, name: str, rest: str) -> Iterator[str]:
        if name in ("TH", "Dt"):
            words = _split(rest)
            if words:
                yield f"# {words[0].lower()}({words[1] if len(words) > 1 else ''})"
        elif name in ("SH", "SS", "Sh", "Ss"):
            yield from self._end_tag()
            title = " ".join(_split(rest)) or _plain(next(self.source, ""))
            yield from (
                "",
                f"{'##' if name.upper() == 'SH' else '###'} {title.capitalize() if title.isupper() else title}",
                "",
            )
        elif name in ("PP", "P", "LP", "Pp", "sp", "RE"):
            yield from (*self._end_tag(), "")
        elif name in ("TP", "TQ"):
            yield from (*self._end_tag(), "")
            self.tag = ""
        elif name in ("IP", "It"):
            yield from (*self._end_tag(), "")
            words = _split(rest)
            self.tag = (words[0] if name == "IP" else self._mdoc(rest)) if words else None
            if self.tag in ("•", "*", "-", "o"):
                self.tag = None
        elif name in ("nf", "EX", "Bd"):
            yield from (*self._end_tag(), "```")
            self.is_code = True
        elif name in ("fi", "EE", "Ed") and self.is_code:
            yield "```"
            self.is_code = False
        elif name in _FONTS:
            words = _split(rest)
            yield from self._text(("" if len(name) == 2 and name not in ("SM", "SB") else " ").join(words))
        elif name in _MDOC_TEXT:
            said = self._mdoc(f"{name} {rest}")
            yield from self._text(said) if said else ()
        elif name in ("UR", "MT", "URL"):
            yield from self._text(" ".join(_split(rest)[:1]))

    def _mdoc(self, rest: str) -> str:
        """Return what a line of `mdoc` macros says."""
        words: list[str] = []
        dash = ""
        line = _split(rest)
        for word, following in zip(line, [*line[1:], "."], strict=True):
            if word in _MDOC_TEXT:
                dash = "-" if word == "Fl" else ""
                is_bare = following in _MDOC_TEXT or following in _PUNCTUATION
                if word == "Nm" and is_bare and self.name:
                    words.append(self.name)
                elif word == "Nm" and not is_bare:
                    self.name = self.name or following
            elif word in _PUNCTUATION and words:
                words[-1] += word
            else:
                words.append(dash + word)
                dash = ""
        return " ".join(words)


def _split(rest: str) -> list[str]:
    return [_plain(quoted.replace('""', '"') or bare) for quoted, bare in _WORDS.findall(rest)]


def _plain(text: str) -> str:
    if len(text) > _LONGEST_LINE:
        return text
    text = re.sub(r'(?:^|(?<=[^\\]))\\["#].*', "", text)
    character: Callable[[re.Match[str]], str] = lambda found: _CHARACTERS.get(found[1] or found[2], "")  # noqa: E731
    text = _SPECIAL.sub(character, text)
    text = _FONT.sub("", text)
    return text.replace("\\-", "-").replace("\\ ", " ").replace("\\~", " ").replace("\\e", "\\").replace("\\'", "'")
