"""How documents are named for people, and numbered for a language model."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from langchain_core.documents import Document

from langchain_crossrerank._terminal import one_line

_SOURCE_KEYS = ("source", "file_path", "url", "path", "filename", "file_name")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WINDOWS = re.compile(r"[a-zA-Z]:[\\/]|\\\\")
_LONGEST = 120
_HEADER_LIKE = re.compile(r"^([\s\u200b-\u200f\u2060\ufeff]*)\[\s*(\d+)\s*\](?=\s*\()")


def describe_source(document: Document) -> str:
    """Name a document's source on one line, for people and for prompts.

    Returns:
        The name of a file (`"report.pdf, page 3"`), with the page label that is printed on it if it differs
        (`"report.pdf, p. iv, sheet 4"`); the address of a web page without its scheme and fragment; the title if the
        document names no source; `"unknown source"` if it has neither.
    """
    metadata = document.metadata
    name = next((_name(str(metadata[key])) for key in _SOURCE_KEYS if metadata.get(key)), "")
    if not name:
        name = str(metadata.get("title") or "unknown source")
    name = one_line(" ".join(name.split(" ")))
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]}...{name[-_LONGEST // 2 :]}"
    return name + _page(metadata)


def number_passage(number: int, document: Document, *, note: str = "") -> str:
    """Return a document as a passage of a prompt: a header with its number and source, and its text below.

    A line of the text that looks like the header of another passage is changed, so that a document cannot speak for
    another source.

    Args:
        number: The number by which the passage is cited.
        document: The document.
        note: What the header says after the source.
    """
    lines = document.page_content.splitlines(keepends=True)
    text = "".join(_HEADER_LIKE.sub(r"\1(\2)", line) for line in lines)
    return f"[{number}] ({describe_source(document)}{note})\n{text}"


def _name(source: str) -> str:
    """A short name, or the source as it is where it is not a valid address or nothing of it would be left."""
    try:
        return _short_name(source) or source
    except ValueError:
        return source


def _short_name(source: str) -> str:
    """The last part of a path; the whole of a web address but for user, password, scheme and fragment."""
    if _WEB.match(source):
        address = urlsplit(source)
        host = address.hostname or ""
        port = f":{address.port}" if address.port else ""
        query = f"?{address.query}" if address.query else ""
        return f"{host}{port}{unquote(address.path).rstrip('/')}{query}"
    if _ADDRESS.match(source):
        return PurePosixPath(unquote(urlsplit(source).path)).name
    if _WINDOWS.match(source):
        return PureWindowsPath(source).name
    return PurePosixPath(source).name


def _page(metadata: dict[str, Any]) -> str:
    page, number, label = (metadata.get(key) for key in ("page", "page_number", "page_label"))
    sheet = page + 1 if isinstance(page, int) and _is_number(page) else number
    printed = one_line(str(label)) if isinstance(label, str | int) and not isinstance(label, bool) else ""
    if not _is_number(sheet):
        return f", p. {printed}" if printed else ""
    return f", p. {printed}, sheet {sheet}" if printed and printed != str(sheet) else f", page {sheet}"


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
