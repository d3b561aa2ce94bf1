"""Divides a text into its blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from langchain_crossrerank.blocks.contents import contents_lines
from langchain_crossrerank.blocks.leads import with_leads
from langchain_crossrerank.blocks.lines import Block, Line, lines_of, noise
from langchain_crossrerank.blocks.markup import TAG, Markup, plain_text
from langchain_crossrerank.blocks.tables import (
    column_rows,
    grid_rows,
    headless_rows,
    is_column_rule,
    is_grid_rule,
    is_header_rule,
    pipe_rows,
)

_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")
_ATX = re.compile(r" {0,3}(#{1,6})\s+(?=\S)(.*)")
_UNDERLINE = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*")
_RULE = re.compile(r"[-*_=~+#.:|\s]{3,}|[┌-╿\s]+")
_ITEM = re.compile(r"\s*(?:[-*+•◦▪‣·–●○■□✓➢]|\(?\d{1,3}[.)]|\(?[a-z][)]|#\.)\s+(?=\S)")
_BULLET_ALONE = re.compile(r"\s*[•◦▪‣·●○■□✓➢]\s*")
_DEFINITION = re.compile(r"\s*\n {0,3}:[ \t]+(?=\S)")
_DIRECTIVE = re.compile(r"\s*\.\.(?:\s|$)")
_CODE_DIRECTIVE = re.compile(r"\s*\.\.\s+(?:code-block|code|sourcecode|highlight|literalinclude|parsed-literal)::")
_QUIET_DIRECTIVE = re.compile(r"\s*\.\.\s+(?:toctree|index|image|figure|contents|_|\||include|raw|math)")
_DIRECTIVE_MARK = re.compile(
    r"\s*\.\.\s+(?:(?:only|ifconfig|class|rst-class|container|role|default-role|program|currentmodule|tabularcolumns"
    r"|(?:section|code|module)author)::.*|(?:[\w:+.-]+::|\[[^\]\s]+\])(?:\s+|$))"
)
"""What of a directive's line is markup: its name, or all of it where what follows is no text."""
_COMMENT = re.compile(r"\s*<!--.*?-->\s*|\s*<!--.*")
_IMAGE = re.compile(r"\s*!\[[^\]]*\]\([^)]*\)\s*")
_TAG_ALONE = re.compile(rf"\s*(?:{TAG}\s*)+")
_LINK_ALONE = re.compile(r"\s*(?:(?:[-*+]|\d{1,3}\.)\s{1,20})?\[[^\[\]]*\]\(#[^()\s]*\)\s*")
"""A link to a place in the same text, such as an entry of its contents."""
_FIELD = re.compile(r"\s*:[\w -]+:(\s|$)")
_ADMONITION = re.compile(r"\s*(?:///|:::|!!!|\?\?\?)")
_METADATA_KEY = re.compile(r"""["']?[\w.-]+["']?\s*(?::(?:\s|$)|=)""")
_METADATA = re.compile(rf"""\s|-\s|#|\[|{_METADATA_KEY.pattern}""")
_TERMINAL = (".", "!", "?", ":", ";", "。", "！", "？", "：", "।", "…")
_NUMBER = re.compile(r"^\s*(?:[\dA-Z]{1,3}(?:\.\d+)*\.?)\s+")
_COLUMN_GAP = re.compile(r"\S(?: {3,}|\t| ?(?<!\.)(?<!\. )(?:\. ?){4,})(?=[^\s.])")
"""What is between the columns of a card; two spaces are in justified prose, too."""
_LONGEST_CARD_LINE = 66
"""Characters of the longest line of a card; prose is wrapped wider."""


def split_blocks(
    text: str, markup: Markup = "any", headings: Sequence[tuple[int, int, str]] | None = None
) -> list[Block]:
    """Divide a text into blocks, in the order of the text.

    Args:
        text: The text.
        markup: How its structure is marked.
        headings: Headings that are known already, each with its first character, its level and its title.

    Returns:
        Blocks that do not overlap; what is between them is white space or markup.
    """
    lines = list(lines_of(text))
    known = {start: (level, title) for start, level, title in headings or ()}
    if markup == "code":
        return list(_code_blocks(lines))
    return with_leads(text, list(_Parser(lines, markup, known).blocks()), _bullet)


def block_text(text: str, block: Block, markup: Markup = "any") -> str:
    """Return what a block says: without bullets and markup, on one line; code keeps its lines."""
    body = text[block.start : block.end]
    if block.kind == "code":
        return body.strip("\n")
    if block.kind == "heading":
        return block.words[0] if block.words else plain_text(body, markup)
    if block.kind == "row":
        return plain_text(" | ".join(cell for cell in block.words if cell), markup)
    if block.kind == "item":
        body = _DEFINITION.sub(" ", _DEFINITION.sub(": ", body[_bullet(body) :], count=1))
    body = re.sub(r"^\s*>+ ?", "", body, flags=re.MULTILINE) if body.lstrip().startswith(">") else body
    return plain_text(body, markup)


def _code_blocks(lines: Sequence[Line]) -> Iterator[Block]:
    """Source text: a block for each run of lines without a blank one between."""
    run: list[Line] = []
    for line in [*lines, Line("", 0)]:
        if not line.is_blank:
            run.append(line)
        elif run:
            yield Block("code", run[0].start, run[-1].end)
            run = []


class _Parser:
    """Reads lines from the top; each method takes what it knows and moves on."""

    def __init__(self, lines: Sequence[Line], markup: Markup, headings: Mapping[int, tuple[int, str]]) -> None:
        self.lines = lines
        self.markup = markup
        self.headings = headings
        self.contents = {lines[place].start for place in contents_lines([line.text for line in lines])}
        self.at = 0
        self.underlines: list[str] = []
        # Where the contents of the items and directives that are open begin, the innermost last.
        self.margins: list[int] = []
        lengths = sorted(len(line.text) for line in lines if not line.is_blank)
        # The width to which prose is wrapped: nearly the longest line.
        self.width = lengths[int(len(lengths) * 0.9)] if lengths else 0

    @property
    def line(self) -> Line:
        return self.lines[self.at]

    @property
    def margin(self) -> int:
        return self.margins[-1] if self.margins else 0

    def peek(self, by: int = 1) -> Line | None:
        place = self.at + by
        return self.lines[place] if 0 <= place < len(self.lines) else None

    def blocks(self) -> Iterator[Block]:
        readers = (self._known_heading, self._code, self._heading, self._table, self._noise, self._item)
        if self.markup == "plain":
            readers = (self._known_heading, self._noise, self._item)  # type: ignore[assignment]
        elif self.markup != "rst":
            readers = (*readers, self._definition)  # type: ignore[assignment]
        yield from self._front_matter()
        while self.at < len(self.lines):
            if self.line.is_blank:
                self.at += 1
                continue
            while self.margins and self.line.indent < self.margins[-1]:
                self.margins.pop()
            for read in readers:
                found = read()
                if found is not None:
                    yield from found
                    break
            else:
                yield from self._paragraph()

    def _front_matter(self) -> Iterator[Block]:
        """Skip the metadata between two lines of `---` or `+++` at the top of a Markdown file."""
        first = self.lines[0].text.rstrip() if self.lines else ""
        if first in ("---", "+++") and self.markup in ("markdown", "any"):
            closing = (first, "...")
            ends = [place for place, line in enumerate(self.lines[1:40], start=1) if line.text.rstrip() in closing]
            if ends and _is_metadata(self.lines[1 : ends[0]]):
                self.at = ends[0] + 1
                yield Block("noise", 0, self.lines[ends[0]].end)

    def _known_heading(self) -> list[Block] | None:
        known = self.headings.get(self.line.start)
        if known is None:
            return None
        level, title = known
        first = last = self.line
        self.at += 1
        # A long title is broken over lines, which may be set apart like paragraphs.
        wanted, read = _bare(title), _bare(f"{first.text} ")
        length = len(read) if wanted.startswith(read) else len(wanted)
        while length < len(wanted):
            ahead = [line for line in self.lines[self.at : self.at + 2] if not line.is_blank]
            read = _letters(ahead[0].text) if ahead else ""
            if not ahead or not wanted.startswith(read, length):
                break
            last = ahead[0]
            length += len(read)
            self.at = self.lines.index(last, self.at) + 1
        return [Block("heading", first.start, last.end, level, words=(title,))]

    def _code(self) -> list[Block] | None:
        first = self.line
        fence = self._fence(first)
        if fence and self.markup != "rst":
            self.at += 1
            inside = self._until(lambda line: line.text.strip().startswith(fence[1]) and not line.text.strip(" `~"))
            self.at += 1
            return [Block("code", inside[0].start, inside[-1].end)] if inside else [noise(first)]
        if self.markup in ("rst", "any") and _CODE_DIRECTIVE.match(first.text):
            self.at += 1
            inside = self._indented(first.indent)
            body = [line for line in inside if not _FIELD.match(line.text)]
            return [noise(first), *([Block("code", body[0].start, body[-1].end)] if body else [])]
        previous = self.peek(-1)
        after_gap = previous is None or previous.is_blank
        least = self.margin + (1 if self.markup == "rst" and self._follows_colons() else 4)
        if after_gap and first.indent >= least and self.markup != "any" and not _ITEM.match(first.text):
            inside = self._indented(least - 1)
            return [Block("code", inside[0].start, inside[-1].end)] if inside else None
        return None

    def _fence(self, line: Line) -> re.Match[str] | None:
        return _FENCE.match(line.text[min(self.margin, line.indent) :])

    def _follows_colons(self) -> bool:
        """Whether the last line that says something ends like a paragraph that introduces a literal block."""
        above = (self.lines[place] for place in range(self.at - 1, -1, -1))
        said = next((line for line in above if not line.is_blank), None)
        return said is not None and said.text.rstrip().endswith("::")

    def _open(self, first: Line) -> None:
        """What is indented below a line that was just read is its content, and not code."""
        below = (self.lines[place] for place in range(self.at, len(self.lines)))
        following = next((line for line in below if not line.is_blank), first)
        if following.indent > first.indent:
            self.margins.append(following.indent)

    def _heading(self) -> list[Block] | None:
        first = self.line
        atx = _ATX.match(first.text) if self.markup != "rst" else None
        if atx is None:
            return self._underlined_heading()
        self.at += 1
        title = plain_text(atx[2].rstrip("# ") or atx[2])
        return [Block("heading", first.start, first.end, len(atx[1]), words=(title,)) if title else noise(first)]

    def _underlined_heading(self) -> list[Block] | None:
        first, following, under = self.line, self.peek(), self.peek(2)
        overline = _UNDERLINE.fullmatch(first.text)
        if overline and following and under and not following.is_blank and under.text.rstrip() == first.text.rstrip():
            self.at += 3
            level = self._level(overline[1] * 2)
            return [Block("heading", first.start, under.end, level, words=(plain_text(following.text),))]
        if following is None or not self._is_underlined(first, following):
            return None
        self.at += 2
        level = self._level(following.text[:1])
        return [Block("heading", first.start, following.end, level, words=(plain_text(first.text),))]

    def _is_underlined(self, title: Line, under: Line) -> bool:
        mark = _UNDERLINE.fullmatch(under.text)
        is_text = not (
            _UNDERLINE.fullmatch(title.text) or title.indent > 3 or "|" in title.text or _ITEM.match(title.text)
        )
        previous = self.peek(-1)
        follows_gap = previous is None or previous.is_blank or self.markup != "rst"
        return bool(mark) and is_text and follows_gap and len(under.text.rstrip()) * 2 >= len(title.text.rstrip())

    def _level(self, mark: str) -> int:
        if self.markup == "markdown":
            return 1 if mark.startswith("=") else 2
        if mark not in self.underlines:
            self.underlines.append(mark)
        return self.underlines.index(mark) + 1

    def _table(self) -> list[Block] | None:
        first, following = self.line, self.peek()
        if following is None:
            return None
        if is_grid_rule(first) and "|" in following.text:
            return grid_rows(self._until(lambda line: line.is_blank))
        if is_column_rule(first) and not following.is_blank:
            rows = self._until(lambda line: line.is_blank and not self._in_column_table())
            return column_rows(rows) or [noise(first)]
        text = first.text.strip()
        if "|" in text and is_header_rule(following):
            return pipe_rows(self._until(lambda line: line.is_blank or "|" not in line.text))
        if text.startswith("|") and text.endswith("|") and len(text) > 2:
            return headless_rows(self._until(lambda line: not line.text.strip().startswith("|")))
        return None

    def _in_column_table(self) -> bool:
        following = self.peek()
        return following is not None and is_column_rule(following)

    def _noise(self) -> list[Block] | None:
        first = self.line
        if self.markup != "plain":
            if first.text.lstrip().startswith("<!--") and "-->" not in first.text:
                inside = self._until(lambda line: "-->" in line.text)
                self.at += 1
                return [Block("noise", first.start, inside[-1].end)]
            if _DIRECTIVE.match(first.text) and self.markup != "markdown":
                return self._directive()
            marks = (_COMMENT, _IMAGE, _TAG_ALONE, _LINK_ALONE)
            is_admonition = _ADMONITION.match(first.text) is not None
            if is_admonition or any(mark.fullmatch(first.text) for mark in marks):
                self.at += 1
                if is_admonition:
                    self._open(first)
                return [noise(first)]
        if _RULE.fullmatch(first.text) or first.start in self.contents:
            self.at += 1
            return [noise(first)]
        return None

    def _directive(self) -> list[Block]:
        """A directive's name and options say nothing; the text beside its name is a paragraph."""
        first = last = self.line
        self.at += 1
        mark = _DIRECTIVE_MARK.match(first.text)
        if mark is None or _QUIET_DIRECTIVE.match(first.text):
            self._indented(first.indent)
            self._open(first)
            return [noise(first)]
        blocks = [Block("noise", first.start, first.start + mark.end())]

        def is_outside(line: Line) -> bool:
            return line.is_blank or line.indent <= first.indent

        if mark.end() < len(first.text.rstrip()):
            beside = self._until(lambda line: is_outside(line) or _FIELD.match(line.text) or self._starts_something())
            last = beside[-1] if beside else first
            blocks.append(Block("paragraph", blocks[0].end, last.end))
        blocks += map(noise, self._until(lambda line: is_outside(line) or not _FIELD.match(line.text)))
        self._open(first)
        return blocks

    def _item(self) -> list[Block] | None:
        first = self.line
        item = _ITEM.match(first.text) or (_BULLET_ALONE.fullmatch(first.text) if self.markup == "plain" else None)
        if item is None:
            return None
        self.margins.append(item.end())
        last = first
        self.at += 1
        while self.at < len(self.lines):
            line = self.line
            if line.is_blank or _ITEM.match(line.text) or line.start in self.headings or self._fence(line):
                break
            if self.markup != "plain" and _ATX.match(line.text):
                break
            if self.markup == "plain" and _BULLET_ALONE.fullmatch(line.text):
                break
            last = line
            self.at += 1
        return [Block("item", first.start, last.end)]

    def _definition(self) -> list[Block] | None:
        """A term, and what is said about it on the lines below that begin with a colon."""
        first = last = self.line
        following = self.peek()
        if following is None or not _DEFINITION.match(f"\n{following.text}"):
            return None
        self.at += 1
        while self.at < len(self.lines) and not self.line.is_blank:
            last = self.line
            self.at += 1
        self.margins.append(4)
        return [Block("item", first.start, last.end)]

    def _paragraph(self) -> Iterator[Block]:
        run = [self.line]
        self.at += 1
        while self.at < len(self.lines) and not self.line.is_blank and not self._starts_something():
            run.append(self.line)
            self.at += 1
        if len(run) > 1 and self._is_ragged(run):
            yield from (Block("item", line.start, line.end) for line in run)
        else:
            yield Block("paragraph", run[0].start, run[-1].end)

    def _starts_something(self) -> bool:
        line = self.line
        if line.start in self.headings or line.start in self.contents:
            return True
        if self.markup == "plain":
            return bool(_BULLET_ALONE.fullmatch(line.text)) or (
                bool(_ITEM.match(line.text)) and not line.text[0].isdigit()
            )
        if self._fence(line) or _ITEM.match(line.text) or _DIRECTIVE.match(line.text):
            return True
        if self.markup != "rst" and _ATX.match(line.text):
            return True
        following = self.peek()
        is_title = following is not None and bool(_UNDERLINE.fullmatch(following.text)) and self.markup != "markdown"
        return is_title or ("|" in line.text and line.text.strip().startswith("|"))

    def _is_ragged(self, run: Sequence[Line]) -> bool:
        """Whether lines are lines of a card or a verse: in columns, or the next word would have fitted on the line."""
        columns = sum(_COLUMN_GAP.search(line.text.strip()) is not None for line in run)
        if columns >= max(2, len(run) - 1):
            return True
        if max(len(line.text.rstrip()) for line in run) > _LONGEST_CARD_LINE:
            return False
        breaks = ends = 0
        for line, following in pairwise(run):
            first_word = following.text.split(maxsplit=1)[0]
            fitted = len(line.text.rstrip()) + 1 + len(first_word) <= self.width
            goes_on = first_word.isalpha() and first_word.islower() and "  " not in following.text.strip()
            breaks += fitted and not goes_on
            ends += line.text.rstrip().endswith(_TERMINAL)
        return breaks * 2 >= len(run) - 1 and ends * 2 < len(run)

    def _until(self, stop: Any) -> list[Line]:
        taken: list[Line] = []
        while self.at < len(self.lines) and not stop(self.line):
            taken.append(self.line)
            self.at += 1
        return taken

    def _indented(self, indent: int) -> list[Line]:
        """The lines from here that are indented by more than `indent`, without blank ones at either end."""
        taken = self._until(lambda line: not line.is_blank and line.indent <= indent)
        while taken and taken[-1].is_blank:
            taken.pop()
        return taken[next((place for place, line in enumerate(taken) if not line.is_blank), 0) :]


def _is_metadata(lines: Sequence[Line]) -> bool:
    """Whether lines look like YAML or TOML, and not like a text between two rules."""
    has_keys = any(_METADATA_KEY.match(line.text) for line in lines)
    return has_keys and not lines[0].is_blank and all(line.is_blank or _METADATA.match(line.text) for line in lines)


def _bullet(body: str) -> int:
    found = _ITEM.match(body)
    return found.end() if found else 0


def _bare(title: str) -> str:
    """A title without the number in front, spaces and punctuation, to compare it with another."""
    return _letters(_NUMBER.sub("", title, count=1))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
