"""Reads text files line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from langchain_crossrerank.errors import InvalidInputError


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank, with their numbers as an editor shows them."""
    if not file.is_file():
        raise InvalidInputError(
            f"there is no file {str(file)!r}; a BEIR folder has corpus.jsonl, queries.jsonl and qrels."
        )
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{file} is not UTF-8 text ({err}); convert it.") from err
