"""Cuts passages into sentences, and finds the few sentences that have most to do with a query."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache

from langchain_crossrerank.training.bm25 import words

_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"“'(-])")


@lru_cache(maxsize=200_000)
def sentences(passage: str) -> tuple[str, ...]:
    """Cut a passage after `.`, `!` or `?` before what can begin a sentence."""
    return tuple(part for part in _END.split(passage) if part.strip())


def window(query: str, passage: str, size: int, weight: Callable[[str], float], random: random.Random) -> str:
    """Give the `size` neighbouring sentences around the one that shares the weightiest words with the query.

    Args:
        query: What the passage is read for.
        passage: The passage; one of at most `size` sentences is given whole.
        size: Sentences to give; 0 for the whole passage.
        weight: A word's weight, such as its idf.
        random: Decides where in the window the best sentence stands.
    """
    parts = sentences(passage)
    if size == 0 or len(parts) <= size:
        return passage
    asked = set(words(query))
    shared = [sum(map(weight, asked.intersection(words(part)))) for part in parts]
    best = shared.index(max(shared))
    start = max(0, min(best - random.randrange(size), len(parts) - size))
    return " ".join(parts[start : start + size])
