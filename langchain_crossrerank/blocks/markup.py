"""How a text marks its structure, by the type of its file, and its text without inline markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

Markup = Literal["any", "markdown", "rst", "plain", "code"]
"""How a text marks its structure; `"any"` accepts the marks of Markdown and reStructuredText."""

MARKDOWN_SUFFIXES = (".md", ".markdown", ".html", ".htm", ".docx", ".pptx", ".xlsx", ".epub", ".ipynb", ".csv")
"""Types of files whose text is Markdown, as it is or once it is converted."""

CODE_SUFFIXES = (
    ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".scala", ".go", ".rs", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cs", ".swift", ".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".m", ".hs", ".ml", ".ex",
    ".erl", ".clj", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".toml", ".yaml", ".yml", ".ini", ".cfg",
)  # fmt: skip
"""Types of source files, whose text has no marks of structure but blank lines."""

_TAGS = (
    "a|abbr|article|aside|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|col|colgroup|dd|del|details|dfn|"
    "dialog|div|dl|dt|em|fieldset|figcaption|figure|font|footer|h[1-6]|hr|html|i|iframe|img|ins|kbd|li|main|mark|"
    "nav|noscript|ol|p|picture|pre|q|ruby|rp|rt|s|samp|script|section|small|span|strike|strong|sub|summary|sup|"
    "svg|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|var|video|wbr"
)
TAG = rf"(?:</?(?i:{_TAGS})(?:[\s/][^<>\n]{{0,2000}})?>|<[a-zA-Z][\w.-]{{0,40}}\s+[\w:@.-]{{1,60}}=[^<>\n]{{0,2000}}>)"
"""Pattern of an HTML tag; `<file>` and even `<source>` are placeholders unless they have attributes."""

_MARKUP = (
    (re.compile(r"<!--.{0,2000}?-->", re.DOTALL), ""),
    (re.compile(r"!\[[^\]\n]{0,500}\]\([^)\n]{0,2000}\)"), ""),
    (re.compile(r"\[([^\[\]\n]{1,500})\]\([^()\n]{0,2000}(?:\([^()\n]{0,200}\)[^()\n]{0,200})?\)"), r"\1"),
    (re.compile(r"\[([^\[\]\n]{1,500})\]\[[^\]\n]{0,200}\]"), r"\1"),
    (re.compile(TAG), ""),
    (re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]{1,500}?[^\s*]|\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<![\w_])(_{1,2})(?=[^\s_])([^_\n]{1,500}?[^\s_]|[^\s_])\1(?![\w_])"), r"\2"),
    (re.compile(r" ?\{#[\w-]{1,100}\}"), ""),
)
_LITERAL = re.compile(r"(?<!`)``(?!`)([^`\n]{1,500}?)``(?!`)")
_RST_MARKUP = (
    re.compile(r":[\w:.+-]{2,30}:`~?!?([^`<\n]{1,300}?)(?:\s*<[^>`\n]{1,500}>)?`"),
    re.compile(r"`([^`<\n]{1,300}?)\s*<[^>`\n]{1,500}>`_{1,2}"),
    re.compile(r"(?<!`)`([^`\n]{1,300})`_{1,2}"),
    re.compile(r"\|([\w -]{1,60})\|"),
)
_CODE = re.compile(r"(?<!`)`(?!`)([^`\n]{1,500}?)`(?!`)")
_AUTOLINK = re.compile(r"<((?:[a-zA-Z][\w+.-]{1,31}://|mailto:)[^\s<>]{1,2000}|[\w.+-]{1,64}@[\w.-]{1,255})>")
_KEPT = re.compile(r"\0(\d+)\0")

_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~'\"])")
_LONGEST_MARKED = 20_000
"""Characters of a text up to which inline markup is looked for."""


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


def plain_text(text: str, markup: Markup = "any") -> str:
    """Return a text without inline markup, on one line."""
    if markup in ("markdown", "rst", "any") and len(text) <= _LONGEST_MARKED:
        text = _without_markup(text.replace("\0", ""), markup)
    return " ".join(text.split())


def _without_markup(text: str, markup: Markup) -> str:
    # What code and addresses say is taken out first, so that no mark is looked for in it, and put back last.
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[1])
        return f"\0{len(kept) - 1}\0"

    def put_back(found: re.Match[str]) -> str:
        return _KEPT.sub(put_back, kept[int(found[1])])

    for pattern in (_LITERAL, *(_RST_MARKUP if markup != "markdown" else ()), _CODE, _AUTOLINK):
        text = pattern.sub(keep, text)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return _KEPT.sub(put_back, _ESCAPED.sub(r"\1", text))


def _is_manual_page(suffix: str) -> bool:
    return len(suffix) in (2, 3) and suffix[1:2].isdigit()
