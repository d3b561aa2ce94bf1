"""A text in blocks — headings, paragraphs, list items, table rows, code — each with its place in the text."""

from __future__ import annotations

from langchain_crossrerank.blocks.lines import Block, Kind
from langchain_crossrerank.blocks.markup import CODE_SUFFIXES, MARKDOWN_SUFFIXES, Markup, markup_of, plain_text
from langchain_crossrerank.blocks.splitting import block_text, split_blocks

__all__ = [
    "CODE_SUFFIXES",
    "MARKDOWN_SUFFIXES",
    "Block",
    "Kind",
    "Markup",
    "block_text",
    "markup_of",
    "plain_text",
    "split_blocks",
]
