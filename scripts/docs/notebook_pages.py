"""Turns notebooks into pages, with their outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import MarkdownExporter

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
_RELATIVE_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s]+)(?=\))")
_REPOSITORY = "https://github.com/langchain-crossrerank/langchain-crossrerank/blob/main/notebooks"
_PLACE = re.compile(r"(\d+)_")


def convert_all(source: Path, target: Path) -> None:
    """Write a page for each notebook of a folder, and list the pages in `index.md`.

    Args:
        source: The folder of notebooks.
        target: The folder of pages. Its `index.md` gets a table in place of `<!-- notebooks -->`.
    """
    rows = ["| | Notebook | |", "|---|---|---|"]
    for file in sorted(source.glob("*.ipynb")):
        title, summary = convert(file, target)
        number = _PLACE.match(file.name)
        rows.append(f"| {int(number[1]) if number else ''} | [{title}]({_slug(file)}.md) | {summary} |")
    index = target / "index.md"
    text = index.read_text(encoding="utf-8").replace("<!-- notebooks -->", "\n".join(rows))
    index.write_text(text, encoding="utf-8")


def convert(file: Path, target: Path) -> tuple[str, str]:
    """Write a notebook's page and its pictures, and return its title and first sentence."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _RELATIVE_LINK.sub(_link, cell.source)
        for output in cell.get("outputs", []):
            _tidy(output)
    body, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": _slug(file), "output_files_dir": f"{_slug(file)}_files"}
    )
    for name, data in resources["outputs"].items():
        picture = target / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(data)
    body = _TERMINAL_CODES.sub("", body)
    heading = re.search(r"^# (.+)$", body, re.MULTILINE)
    title = heading[1] if heading else _slug(file).replace("-", " ")
    rest = body[heading.end() :] if heading else body
    number = _PLACE.match(file.name)
    front = f"---\norder: {int(number[1]) if number else 99}\n---\n\n"
    page = f"{front}# {title}\n\n[Open this notebook in the repository]({_REPOSITORY}/{file.name}).\n{rest}"
    (target / f"{_slug(file)}.md").write_text(page, encoding="utf-8")
    first = re.search(r"^(?![#<|`\[\-*])\S.+?[.?!](?=\s|$)", rest.strip(), re.MULTILINE | re.DOTALL)
    return title, " ".join(first[0].split()) if first else ""


def _link(found: re.Match[str]) -> str:
    """Point a link to another notebook at its page, and one to any other file at the repository."""
    path, _, anchor = found[1].partition("#")
    if path.endswith(".ipynb"):
        return f"{_slug(Path(path))}.md" + (f"#{anchor}" if anchor else "")
    return f"{_REPOSITORY}/{found[1]}"


def _slug(file: Path) -> str:
    return file.stem.replace("_", "-")


def _tidy(output: Any) -> None:
    """Keep a table's HTML whole: a blank line would end it in Markdown."""
    data = output.get("data", {})
    if "text/html" in data:
        lines = [line.strip() for line in data["text/html"].splitlines() if line.strip()]
        data["text/html"] = f'<div class="output">{" ".join(lines)}</div>'
