"""Converts office files, books, web pages, notebooks and tables to Markdown with `markitdown`."""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

from langchain_crossrerank.extras import check_extra

CONVERTED = (".docx", ".pptx", ".xlsx", ".epub", ".html", ".htm", ".xhtml", ".ipynb", ".csv")
"""File types that the `documents` extra reads."""

_NEEDED = {
    ".docx": ("markitdown", "mammoth"),
    ".pptx": ("markitdown", "pptx"),
    ".xlsx": ("markitdown", "pandas", "openpyxl"),
}
_CONVERTERS = {
    ".docx": "DocxConverter",
    ".pptx": "PptxConverter",
    ".epub": "EpubConverter",
    ".html": "HtmlConverter",
    ".ipynb": "IpynbConverter",
    ".csv": "CsvConverter",
}
_HTML = (".html", ".htm", ".xhtml")
_NOT_CONTENT = (
    "script, style, noscript, template, nav, iframe, svg, input, select, textarea, [aria-hidden=true], "
    "[role=navigation], [role=search], [role=banner], [role=contentinfo], [role=complementary], [role=menu], "
    ".sphinxsidebar, .headerlink, .toc, .contents.topic, .breadcrumb, .breadcrumbs, .navheader, .navfooter, .related"
)
_NAVIGATION = (
    ":is(#nav, #navigation, .nav, .navbar, #sidebar, .sidebar, #toc, #footer, .footer)"
    ":not(body, :has(main, [role=main], article, h1))"
)
"""What is named like navigation, unless the content is inside it."""
_QUESTIONS = "h1, h2, h3, h4, h5, h6, summary, dt"
"""Elements in which a button is a title that opens the text below it."""
_MAIN = ("main", "[role=main]", "article")
_UNNAMED = re.compile(r"Unnamed: \d+|nan")
"""What pandas calls a column whose first cell is empty, or an error such as `#N/A`."""
_MIDNIGHT = re.compile(r"(?<=\d) 00:00:00(?= \|)")
_TABLE_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")


def needed_modules(suffix: str) -> tuple[str, ...]:
    """Return the modules that reading files of this type needs."""
    return _NEEDED.get(suffix, ("markitdown",))


def convert_to_markdown(path: Path, data: bytes) -> str:
    """Convert a file to Markdown.

    Args:
        path: The file, whose name says its type.
        data: Its content.

    Raises:
        MissingExtraError: If the `documents` extra is not installed.
        Exception: Whatever the converter raises for a broken file.
    """
    suffix = path.suffix.lower()
    check_extra("documents", needed_for=f"reading {suffix} files", modules=needed_modules(suffix), backend="documents")
    with warnings.catch_warnings():
        # Its optional parts warn at import about programs that only audio and video files need.
        warnings.simplefilter("ignore")
        from markitdown import StreamInfo, converters

        for name in ("pptx", "openpyxl"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if suffix in _HTML:
            data, suffix = _main_content(data), ".html"
        if suffix == ".xlsx":
            return _with_headers(_tables_of_workbook(data, converters.HtmlConverter()))
        # Text formats are UTF-8 here, as everywhere in this package; markitdown would guess from the first bytes.
        charset = "utf-8" if suffix in (".html", ".csv", ".ipynb") else None
        # The converter of this type alone: `MarkItDown` would take a broken file for plain text.
        converter = getattr(converters, _CONVERTERS[suffix])()
        converted = converter.convert(io.BytesIO(data), StreamInfo(extension=suffix, charset=charset))
    return _with_headers(re.sub(r"data:image/[^)\s]{100,}", "", converted.markdown))


def with_commas(table: str) -> str:
    """Return a CSV table with commas between its cells, where semicolons or tabs are, as its first line shows."""
    first = table.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    if delimiter == ",":
        return table
    written = io.StringIO(newline="")
    try:
        csv.writer(written).writerows(csv.reader(io.StringIO(table, newline=""), delimiter=delimiter))
    except csv.Error:
        # Its converter says what is wrong with it.
        return table
    return written.getvalue()


def _tables_of_workbook(data: bytes, html: Any) -> str:
    """Return each sheet below its name; markitdown's own converter writes NaN for empty cells and for "None" or "N/A".

    Args:
        data: The file's content.
        html: markitdown's converter of HTML.
    """
    import pandas

    sheets = pandas.read_excel(io.BytesIO(data), sheet_name=None, engine="openpyxl", na_filter=False)
    parts = []
    for name, table in sheets.items():
        table.columns = ["" if _UNNAMED.fullmatch(str(column)) else column for column in table.columns]
        markdown = html.convert_string(table.to_html(index=False, na_rep="")).markdown.strip()
        parts.append(f"## {name}\n{_MIDNIGHT.sub('', markdown)}")
    return "\n\n".join(parts).strip()


def _main_content(data: bytes) -> bytes:
    """Leave out what surrounds a web page's text: navigation, search, banners, footers."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(data, "html.parser")
    buttons, asides = f"button:not(:is({_QUESTIONS}) *)", f"aside:not(:is({', '.join(_MAIN)}) *)"
    for element in soup.select(f"{_NOT_CONTENT}, {_NAVIGATION}, {buttons}, {asides}"):
        element.decompose()
    mains = [found for main in _MAIN if (found := soup.select(f"{main}:not({main} *)"))]
    content = mains[0] if mains else [soup.body or soup]
    if not mains:
        for element in soup.find_all(["header", "footer"]):
            element.decompose()
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    body = "".join(str(element) for element in content)
    heading = "" if re.search(r"<h1[\s>]", body) or not title else f"<h1>{_escape(title)}</h1>"
    return f'<html><head><meta charset="utf-8"></head><body>{heading}{body}</body></html>'.encode()


def _with_headers(markdown: str) -> str:
    """Give tables their header: converters write an empty one, a title, or below a caption no rule at all."""
    done: list[str] = []
    table: list[str] = []
    in_code = False
    for line in [*markdown.splitlines(), ""]:
        in_code ^= line.startswith("```")
        if not in_code and line.startswith("| ") and line.endswith(" |"):
            table.append(line)
            continue
        done += _with_header(table) if len(table) > 1 else table
        done.append(line)
        table = []
    return "\n".join(done[:-1])


def _with_header(table: list[str]) -> list[str]:
    header, rule, *rows = table
    if not _TABLE_RULE.fullmatch(rule):
        columns = header.count(" | ") + 1
        return [header, f"|{' --- |' * columns}", rule, *rows]
    named = [name for name in header.strip("| ").split("|") if name.strip()]
    if len(named) > 1 or (named and rule.count("|") < 4):
        return table
    rows = [row for row in rows if row.strip("| ")]
    if rule.count("|") < 4:
        # Two columns without names are mostly names and values.
        return rows
    return [*(["", *named, ""] if named else []), *rows[:1], *([rule] if rows else []), *rows[1:]]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
