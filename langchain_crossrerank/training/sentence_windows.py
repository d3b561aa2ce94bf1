"""Cuts passages to the few sentences that are closest to a query, so that a model also learns from short passages."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache

from langchain_crossrerank.lexical import words

_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"“'(-])")


@lru_cache(maxsize=200_000)
def sentences(passage: str) -> tuple[str, ...]:
    """Split a passage after `.`, `!` or `?` where the next word can start a sentence."""
    return tuple(part for part in _END.split(passage) if part.strip())


def sentence_window(query: str, passage: str, size: int, idf: Callable[[str], float], random: random.Random) -> str:
    """Return `size` neighbouring sentences around the one that shares the rarest words with the query.

    Args:
        query: The search text.
        passage: The passage; returned whole if it has no more than `size` sentences.
        size: Number of sentences; 0 for the whole passage.
        idf: Inverse document frequency of a word.
        random: Decides at which place in the window the best sentence is.
    """
    parts = sentences(passage)
    if size == 0 or len(parts) <= size:
        return passage
    query_words = set(words(query))
    shared = [sum(map(idf, query_words.intersection(words(part)))) for part in parts]
    best = shared.index(max(shared))
    start = max(0, min(best - random.randrange(size), len(parts) - size))
    return " ".join(parts[start : start + size])
