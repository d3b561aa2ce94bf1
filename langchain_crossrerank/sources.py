"""How a document's source is named for people: file, page, section."""

from __future__ import annotations

from pathlib import Path

from langchain_core.documents import Document

from langchain_crossrerank._terminal import one_line


def describe_source(document: Document) -> str:
    """Name a document's file and page, for people: `"report.pdf, page 3"`, or `"unknown source"`.

    The name is one line without control characters, so that it cannot forge another source or passage.
    """
    source = document.metadata.get("source")
    name = one_line(Path(str(source)).name) if source else "unknown source"
    page = document.metadata.get("page")
    return f"{name}, page {page + 1}" if isinstance(page, int) else name
