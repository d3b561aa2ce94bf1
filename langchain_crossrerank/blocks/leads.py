"""What introduces an item or a piece of code: the item that it is inside, or the paragraph above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from langchain_crossrerank.blocks.lines import Block


@dataclass
class _Opening:
    """What may introduce the blocks below it.

    Attributes:
        indent: How far it is indented; a paragraph as far as the first item below it, once there is one.
    """

    indent: int
    lead: tuple[int, int]
    is_item: bool
    is_bound: bool = False


def with_leads(text: str, blocks: Sequence[Block], bullet: Callable[[str], int]) -> list[Block]:
    """Give items, and code, the last sentence of what introduces them.

    Args:
        text: The text.
        blocks: Its blocks.
        bullet: Tells how many characters in front of an item's text are its bullet.
    """
    opened: list[_Opening] = []
    done: list[Block] = []
    for block in blocks:
        lead = block.lead
        if block.kind == "heading":
            opened.clear()
        elif block.kind in ("paragraph", "item", "code"):
            indent = _indent(text, block)
            while opened and _is_closed(opened[-1], indent, block):
                opened.pop()
            if block.kind != "paragraph" and lead is None and opened:
                lead = opened[-1].lead
            if block.kind == "item":
                if opened and not opened[-1].is_bound:
                    opened[-1].indent, opened[-1].is_bound = max(indent, opened[-1].indent), True
                opened.append(_Opening(indent, _last_sentence(text, block, bullet), is_item=True, is_bound=True))
            elif block.kind == "paragraph":
                opened.append(_Opening(indent, _last_sentence(text, block, bullet), is_item=False))
        done.append(block if lead == block.lead else replace(block, lead=lead))
    return done


def _is_closed(opening: _Opening, indent: int, block: Block) -> bool:
    """Whether a block is outside of what is open: to the left of it, or the next one of its kind."""
    is_sibling = opening.is_item or block.kind == "paragraph"
    return indent < opening.indent or (indent == opening.indent and is_sibling)


def _indent(text: str, block: Block) -> int:
    line = text.rfind("\n", 0, block.start) + 1
    body = text[block.start : block.end]
    return block.start - line + len(body) - len(body.lstrip(" \t"))


def _last_sentence(text: str, block: Block, bullet: Callable[[str], int]) -> tuple[int, int]:
    body = text[block.start : block.end].rstrip()
    first = bullet(body) if block.kind == "item" else 0
    cut = max(body.rfind(mark, first, len(body) - 2) for mark in (". ", ".\n", "! ", "? ", "。"))
    start = block.start + (cut + 1 if cut >= 0 else first)
    while start < block.end and text[start].isspace():
        start += 1
    return start, block.start + len(body)
