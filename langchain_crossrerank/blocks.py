"""Divides a text into blocks — headings, paragraphs, list items, table rows, code — each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath
from typing import Any, Literal

Markup = Literal["any", "markdown", "rst", "plain", "code"]
"""How a text marks its structure; `"any"` accepts the marks of Markdown and reStructuredText."""

Kind = Literal["heading", "paragraph", "item", "row", "code", "noise"]

MARKDOWN_SUFFIXES = (".md", ".markdown", ".html", ".htm", ".docx", ".pptx", ".xlsx", ".epub", ".ipynb", ".csv")
"""Types of files whose text is Markdown, as it is or once it is converted."""

CODE_SUFFIXES = (
    ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".scala", ".go", ".rs", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cs", ".swift", ".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".m", ".hs", ".ml", ".ex",
    ".erl", ".clj", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".toml", ".yaml", ".yml", ".ini", ".cfg",
)  # fmt: skip
"""Types of source files, whose text has no marks of structure but blank lines."""


@dataclass(frozen=True)
class Line:
    """A line of a text, without its line break."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """The first character after the line's text."""
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is on the line."""
        return not self.text.strip()

    @property
    def indent(self) -> int:
        """Characters of white space at the front."""
        return len(self.text) - len(self.text.lstrip())


@dataclass(frozen=True)
class Block:
    """A part of a text that belongs together.

    Attributes:
        kind: What it is; `"noise"` is what holds no statement: rules, contents lines, comments, images.
        start: Its first character in the text.
        end: The first character after it.
        level: A heading's level, starting at 1; otherwise 0.
        lead: Where the header row of a table or the line that introduces a list is in the text, as `(start, end)`.
        words: A heading's title; a row's cells.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    lead: tuple[int, int] | None = None
    words: tuple[str, ...] = ()


_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")
_ATX = re.compile(r" {0,3}(#{1,6})\s+(?=\S)(.*)")
_UNDERLINE = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*")
_RULE = re.compile(r"\s*(?:[-*_=~+#.:|\s]{3,}|[┌-╿\s]+)")
# The long form first: then no run of dots is tried from each of its dots.
_LEADERS = re.compile(r"(?:\. ?){6,}|(?:\. ?){4,5}\s{0,20}[\divxlcIVXLC]{0,6}\s{0,20}$")
_ITEM = re.compile(r"\s*(?:[-*+•◦▪‣·–●○■□✓➢]|\(?\d{1,3}[.)]|\(?[a-z][)]|#\.)\s+(?=\S)")
_BULLET_ALONE = re.compile(r"\s*[•◦▪‣·●○■□✓➢]\s*")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-{1,}:?\s*(?:\|\s*:?-{1,}:?\s*)*\|?\s*")
_GRID_RULE = re.compile(r"\s*\+(?:[-=]{2,}\+)+\s*")
_SIMPLE_RULE = re.compile(r"\s*={2,}(?:\s+={2,})+\s*")
_DIRECTIVE = re.compile(r"\s*\.\.(?:\s|$)")
_CODE_DIRECTIVE = re.compile(r"\s*\.\.\s+(?:code-block|code|sourcecode|highlight|literalinclude|parsed-literal)::")
_QUIET_DIRECTIVE = re.compile(r"\s*\.\.\s+(?:toctree|index|image|figure|contents|_|\||\[|include|raw|math)")
_COMMENT = re.compile(r"\s*<!--.*?-->\s*|\s*<!--.*")
_IMAGE = re.compile(r"\s*!\[[^\]]*\]\([^)]*\)\s*")
_TAG_ALONE = re.compile(r"\s*(?:</?[a-zA-Z][^<>]*>\s*)+")
_FIELD = re.compile(r"\s*:[\w -]+:(\s|$)")
_ADMONITION = re.compile(r"\s*(?:///|:::|!!!|\?\?\?)")
_TERMINAL = (".", "!", "?", ":", ";", "。", "！", "？", "：", "।", "…")

_MARKUP = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"!\[[^\]\n]{0,500}\]\([^)\n]{0,2000}\)"), ""),
    (re.compile(r"\[([^\[\]\n]{1,500})\]\([^()\n]{0,2000}(?:\([^()\n]{0,200}\)[^()\n]{0,200})?\)"), r"\1"),
    (re.compile(r"\[([^\[\]\n]{1,500})\]\[[^\]\n]{0,200}\]"), r"\1"),
    (re.compile(r"</?[a-zA-Z][^<>\n]{0,2000}>"), ""),
    (re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]{1,500}?)\1(?!`)"), r"\2"),
    (re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]{1,500}?[^\s*]|\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w_])(_{1,2})(?=[^\s_])([^_\n]{1,500}?[^\s_]|[^\s_])\1(?![\w_])"), r"\2"),
    (re.compile(r" ?\{#[\w-]{1,100}\}"), ""),
)
_RST_MARKUP = (
    (re.compile(r":[\w:.+-]{2,30}:`~?!?([^`<\n]{1,300}?)(?:\s*<[^>`\n]{1,500}>)?`"), r"\1"),
    (re.compile(r"`([^`<\n]{1,300}?)\s*<[^>`\n]{1,500}>`_{1,2}"), r"\1"),
    (re.compile(r"(?<!`)`([^`\n]{1,300})`_{1,2}"), r"\1"),
    (re.compile(r"\|([\w -]{1,60})\|"), r"\1"),
)

_NUMBER = re.compile(r"\s*(?:[\dA-Z]{1,3}(?:\.\d+)*\.?)\s+")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~'\"])")
_LONGEST_CARD_LINE = 66
"""Characters of the longest line of a card; prose is wrapped wider."""
_LONGEST_MARKED = 20_000
"""Characters of a block up to which inline markup is looked for."""


def markup_of(metadata: Mapping[str, Any]) -> Markup:
    """Return how a document's text marks its structure, by the metadata.

    Args:
        metadata: A document's metadata; without `source` the markup is `"any"`.
    """
    if "page" in metadata:
        return "plain"
    source = metadata.get("source")
    if not isinstance(source, str):
        return "any"
    suffix = PurePath(source.removesuffix(".gz")).suffix.lower()
    if suffix in MARKDOWN_SUFFIXES or _is_manual_page(suffix):
        return "markdown"
    if suffix in (".rst", ".rest"):
        return "rst"
    if suffix == ".pdf":
        return "plain"
    return "code" if suffix in CODE_SUFFIXES else "any"


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
    lines = list(_lines(text))
    known = {start: (level, title) for start, level, title in headings or ()}
    if markup == "code":
        return list(_code_blocks(lines))
    return _with_leads(text, list(_Parser(lines, markup, known).blocks()))


def plain_text(text: str, markup: Markup = "any") -> str:
    """Return a text without inline markup, on one line."""
    if markup in ("markdown", "rst", "any") and len(text) <= _LONGEST_MARKED:
        for pattern, replacement in (*(_RST_MARKUP if markup != "markdown" else ()), *_MARKUP):
            text = pattern.sub(replacement, text)
        text = _ESCAPED.sub(r"\1", text)
    return " ".join(text.split())


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
        body = _ITEM.sub("", body, count=1) if _ITEM.match(body) else body
    body = re.sub(r"^\s*>+ ?", "", body, flags=re.MULTILINE) if body.lstrip().startswith(">") else body
    return plain_text(body, markup)


def _is_manual_page(suffix: str) -> bool:
    return len(suffix) in (2, 3) and suffix[1:2].isdigit()


def _lines(text: str) -> Iterator[Line]:
    start = 0
    for whole in text.splitlines(keepends=True):
        yield Line(whole.rstrip("\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), start)
        start += len(whole)


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
        self.at = 0
        self.underlines: list[str] = []
        lengths = sorted(len(line.text) for line in lines if not line.is_blank)
        # The width to which prose is wrapped: nearly the longest line.
        self.width = lengths[int(len(lengths) * 0.9)] if lengths else 0

    @property
    def line(self) -> Line:
        return self.lines[self.at]

    def peek(self, by: int = 1) -> Line | None:
        place = self.at + by
        return self.lines[place] if 0 <= place < len(self.lines) else None

    def blocks(self) -> Iterator[Block]:
        readers = (self._known_heading, self._code, self._heading, self._table, self._noise, self._item)
        if self.markup == "plain":
            readers = (self._known_heading, self._noise, self._item)  # type: ignore[assignment]
        yield from self._front_matter()
        while self.at < len(self.lines):
            if self.line.is_blank:
                self.at += 1
                continue
            for read in readers:
                found = read()
                if found is not None:
                    yield from found
                    break
            else:
                yield from self._paragraph()

    def _front_matter(self) -> Iterator[Block]:
        """Skip the metadata between two lines of `---` at the top of a Markdown file."""
        if self.lines and self.lines[0].text.rstrip() == "---" and self.markup in ("markdown", "any"):
            ends = [place for place, line in enumerate(self.lines[1:40], start=1) if line.text.rstrip() == "---"]
            if ends:
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
        read = first.text
        while len(_bare(read)) < len(_bare(title)):
            ahead = [line for line in self.lines[self.at : self.at + 2] if not line.is_blank]
            if not ahead or not _bare(title).startswith(_bare(f"{read} {ahead[0].text}")):
                break
            last = ahead[0]
            read = f"{read} {last.text}"
            self.at = self.lines.index(last, self.at) + 1
        return [Block("heading", first.start, last.end, level, words=(title,))]

    def _code(self) -> list[Block] | None:
        first = self.line
        fence = _FENCE.match(first.text)
        if fence and self.markup != "rst":
            self.at += 1
            inside = self._until(lambda line: line.text.strip().startswith(fence[1]) and not line.text.strip(" `~"))
            self.at += 1
            return [Block("code", inside[0].start, inside[-1].end)] if inside else [_noise(first)]
        if self.markup in ("rst", "any") and _CODE_DIRECTIVE.match(first.text):
            self.at += 1
            inside = self._indented(first.indent)
            body = [line for line in inside if not _FIELD.match(line.text)]
            return [_noise(first), *([Block("code", body[0].start, body[-1].end)] if body else [])]
        previous = self.peek(-1)
        after_gap = previous is None or previous.is_blank
        if after_gap and first.indent >= 4 and self.markup != "any" and not _ITEM.match(first.text):
            inside = self._indented(3)
            return [Block("code", inside[0].start, inside[-1].end)] if inside else None
        return None

    def _heading(self) -> list[Block] | None:
        first = self.line
        atx = _ATX.match(first.text) if self.markup != "rst" else None
        if atx is None:
            return self._underlined_heading()
        self.at += 1
        title = plain_text(atx[2].rstrip("# ") or atx[2])
        return [Block("heading", first.start, first.end, len(atx[1]), words=(title,)) if title else _noise(first)]

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
        first = self.line
        following = self.peek()
        if _GRID_RULE.fullmatch(first.text) and following and "|" in following.text:
            rows = self._until(lambda line: line.is_blank)
            return _grid_rows(rows)
        if _SIMPLE_RULE.fullmatch(first.text) and following and not following.is_blank:
            return self._simple_table()
        if "|" not in first.text or following is None or "|" not in first.text.strip().strip("|") + "|":
            return None
        if "-" in following.text and _TABLE_RULE.fullmatch(following.text) and "|" in following.text:
            rows = self._until(lambda line: line.is_blank or "|" not in line.text)
            header = rows[0]
            body = [line for line in rows[2:] if _cells(line.text)]
            names = _cells(header.text)
            return [
                Block("row", header.start, rows[1].end, 1, words=names),
                *(
                    Block("row", line.start, line.end, lead=(header.start, rows[1].end), words=_cells(line.text))
                    for line in body
                ),
            ]
        if first.text.strip().startswith("|") and first.text.strip().endswith("|") and len(first.text.strip()) > 2:
            # Rows whose header is not here, such as a chunk from the middle of a table.
            rows = self._until(lambda line: not line.text.strip().startswith("|"))
            return [
                _noise(line)
                if _TABLE_RULE.fullmatch(line.text) or not _cells(line.text)
                else Block("row", line.start, line.end, words=_cells(line.text))
                for line in rows
            ]
        return None

    def _simple_table(self) -> list[Block]:
        rule = self.line
        columns = [(mark.start(), mark.end()) for mark in re.finditer(r"=+", rule.text)]
        rows = self._until(lambda line: line.is_blank and not self._in_simple_table())
        found: list[Block] = []
        has_header = sum(1 for line in rows if _SIMPLE_RULE.fullmatch(line.text)) > 2
        header: list[Line] = []
        for line in rows[1:]:
            if line.is_blank or re.fullmatch(r"[\s\-]+", line.text):
                continue
            if _SIMPLE_RULE.fullmatch(line.text):
                has_header = False
            elif has_header:
                header.append(line)
            else:
                starts = [start for start, _ in columns]
                cells = tuple(
                    line.text[start:stop].strip() for start, stop in zip(starts, [*starts[1:], None], strict=True)
                )
                lead = (header[0].start, header[-1].end) if header else None
                if found and not cells[0] and found[-1].kind == "row":
                    joined = zip(found[-1].words, cells, strict=True)
                    words = tuple(f"{above} {below}".strip() for above, below in joined)
                    found[-1] = replace(found[-1], end=line.end, words=words)
                else:
                    found.append(Block("row", line.start, line.end, lead=lead, words=cells))
        if header:
            names = tuple(" ".join(re.split(r"\s{2,}", line.text.strip())) for line in header)
            found.insert(0, Block("row", header[0].start, header[-1].end, 1, words=names))
        return found or [_noise(rule)]

    def _in_simple_table(self) -> bool:
        following = self.peek()
        return following is not None and bool(_SIMPLE_RULE.fullmatch(following.text))

    def _noise(self) -> list[Block] | None:
        first = self.line
        if self.markup != "plain":
            if first.text.lstrip().startswith("<!--") and "-->" not in first.text:
                inside = self._until(lambda line: "-->" in line.text)
                self.at += 1
                return [Block("noise", first.start, inside[-1].end)]
            if _DIRECTIVE.match(first.text) and self.markup != "markdown":
                self.at += 1
                if _QUIET_DIRECTIVE.match(first.text) or "::" not in first.text:
                    self._indented(first.indent)
                return [_noise(first)]
            marks = (_COMMENT, _IMAGE, _TAG_ALONE, _ADMONITION)
            if any(mark.fullmatch(first.text) for mark in marks) or _ADMONITION.match(first.text):
                self.at += 1
                return [_noise(first)]
        if _RULE.fullmatch(first.text) or _LEADERS.search(first.text):
            self.at += 1
            return [_noise(first)]
        return None

    def _item(self) -> list[Block] | None:
        first = self.line
        if not _ITEM.match(first.text) and not (self.markup == "plain" and _BULLET_ALONE.fullmatch(first.text)):
            return None
        last = first
        self.at += 1
        while self.at < len(self.lines):
            line = self.line
            if line.is_blank or _ITEM.match(line.text) or line.start in self.headings or _FENCE.match(line.text):
                break
            if self.markup != "plain" and _ATX.match(line.text):
                break
            if self.markup == "plain" and _BULLET_ALONE.fullmatch(line.text):
                break
            last = line
            self.at += 1
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
        if line.start in self.headings or _LEADERS.search(line.text):
            return True
        if self.markup == "plain":
            return bool(_BULLET_ALONE.fullmatch(line.text)) or (
                bool(_ITEM.match(line.text)) and not line.text[0].isdigit()
            )
        if _FENCE.match(line.text) or _ITEM.match(line.text) or _DIRECTIVE.match(line.text):
            return True
        if self.markup != "rst" and _ATX.match(line.text):
            return True
        following = self.peek()
        is_title = following is not None and bool(_UNDERLINE.fullmatch(following.text)) and self.markup != "markdown"
        return is_title or ("|" in line.text and line.text.strip().startswith("|"))

    def _is_ragged(self, run: Sequence[Line]) -> bool:
        """Whether lines are lines of a card or a verse: the next word would mostly have fitted on the line before."""
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
        while taken and taken[0].is_blank:
            taken.pop(0)
        return taken


def _noise(line: Line) -> Block:
    return Block("noise", line.start, line.end)


def _cells(row: str) -> tuple[str, ...]:
    cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")))
    return cells if any(cells) else ()


def _grid_rows(lines: Sequence[Line]) -> list[Block]:
    """A reStructuredText grid table: cells may go over several lines, and `===` ends the header."""
    groups: list[list[Line]] = [[]]
    header_ends = 0
    for line in lines:
        if _GRID_RULE.fullmatch(line.text):
            if "=" in line.text and groups[-1]:
                header_ends = len(groups)
            groups.append([])
        elif "|" in line.text:
            groups[-1].append(line)
    rows: list[Block] = []
    header: tuple[int, int] | None = None
    for number, group in enumerate(groups, start=1):
        if not group:
            continue
        split = [_cells(line.text) for line in group]
        columns = max(map(len, split))
        words = tuple(" ".join(row[c] for row in split if c < len(row) and row[c]) for c in range(columns))
        is_header = number <= header_ends
        rows.append(Block("row", group[0].start, group[-1].end, int(is_header), None if is_header else header, words))
        if is_header:
            header = (group[0].start, group[-1].end)
    return rows


def _with_leads(text: str, blocks: list[Block]) -> list[Block]:
    """Give each item, and code, the last line of the paragraph that introduces it."""
    lead: tuple[int, int] | None = None
    done: list[Block] = []
    for block in blocks:
        if block.kind == "paragraph":
            lead = _last_sentence(text, block)
        elif block.kind == "heading":
            lead = None
        if block.kind in ("item", "code") and block.lead is None:
            done.append(replace(block, lead=lead))
        else:
            done.append(block)
    return done


def _last_sentence(text: str, block: Block) -> tuple[int, int]:
    body = text[block.start : block.end].rstrip()
    cut = max(body.rfind(mark, 0, len(body) - 2) for mark in (". ", ".\n", "! ", "? ", "。"))
    start = block.start + cut + 1 if cut >= 0 else block.start
    while start < block.end and text[start].isspace():
        start += 1
    return start, block.start + len(body)


def _bare(title: str) -> str:
    """A title without the number in front, spaces and punctuation, to compare it with another."""
    return "".join(filter(str.isalnum, _NUMBER.sub("", title, count=1).lower()))
