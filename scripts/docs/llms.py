"""Writes `llms.txt`, the list of pages, and `llms-full.txt`, their text, for language models (see llmstxt.org)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import reference
import yaml

_DIRECTIVE = re.compile(r"^::: (\S+)\n((?: {4}.*\n|\n)*)", re.MULTILINE)


def write(config_file: Path, site: Path) -> None:
    """Write both files into the site's folder.

    Args:
        config_file: The configuration that the site was built from.
        site: The folder of the site.
    """
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    pages = config_file.parent / config["docs_dir"]
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", ""]
    texts = []
    for entry in config["nav"]:
        ((title, targets),) = entry.items()
        lines += [f"## {title}", ""]
        for target in [targets] if isinstance(targets, str) else targets:
            text = _without_front_matter((pages / target).read_text(encoding="utf-8"))
            name, summary = title_and_summary(text)
            url = config["site_url"] + target.removesuffix("md") + "html"
            lines.append(f"- [{name}]({url}){f': {summary}' if summary else ''}")
            texts.append(f"<!-- {url} -->\n\n{_with_docstrings(text).strip()}\n")
        lines.append("")
    site.joinpath("llms.txt").write_text("\n".join(lines), encoding="utf-8")
    site.joinpath("llms-full.txt").write_text("\n".join(texts), encoding="utf-8")


def title_and_summary(text: str) -> tuple[str, str]:
    """Return a page's heading and the first sentence of its first paragraph."""
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    if heading is None:
        return "", ""
    paragraph = next(_paragraphs(text[heading.end() :]), "")
    sentence = re.match(r".+?[.:?!](?=\s|$)", " ".join(paragraph.split()))
    plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", sentence[0] if sentence else paragraph)
    return heading[1], plain


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        if block.strip() and not block.strip().startswith((*"<|#!-:=[{", "```")):
            yield block.strip()


def _without_front_matter(text: str) -> str:
    return text.split("---\n", 2)[2].lstrip() if text.startswith("---\n") else text


def _with_docstrings(text: str) -> str:
    return _DIRECTIVE.sub(lambda found: reference.as_markdown(found[1]) + "\n", text)
