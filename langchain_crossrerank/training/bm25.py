"""BM25 over passages held in memory, as a first stage to mine hard negatives from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Cut a text into lower-case words, a plural `s` taken off."""
    found = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in found]


class BM25:
    """An inverted index with BM25 weights (Robertson and Zaragoza, 2009; the idf of Lucene).

    Args:
        passages: The passages; their place is their id.
        k1: How soon a repeated word stops to count.
        b: How much a long passage is discounted, from 0 to 1.
    """

    def __init__(self, passages: Sequence[str], *, k1: float = 0.9, b: float = 0.4) -> None:
        self._number: dict[str, int] = {}
        self._passages = len(passages)
        terms: list[int] = []
        counts: list[int] = []
        distinct, lengths = np.zeros(len(passages), dtype=np.int64), np.zeros(len(passages))
        for place, passage in enumerate(passages):
            found = Counter(words(passage))
            terms += [self._number.setdefault(word, len(self._number)) for word in found]
            counts += found.values()
            distinct[place], lengths[place] = len(found), sum(found.values())
        order = np.argsort(np.array(terms, dtype=np.int64), kind="stable")
        frequency = np.bincount(np.array(terms, dtype=np.int64), minlength=len(self._number))
        self._starts = np.concatenate([[0], np.cumsum(frequency)])
        self._idf = np.log(1 + (len(passages) - frequency + 0.5) / (frequency + 0.5))
        self._places = np.repeat(np.arange(len(passages)), distinct)[order]
        count = np.array(counts, dtype=np.float64)[order]
        relative = lengths[self._places] / max(lengths.mean(), 1) if len(passages) else lengths
        saturated = count * (k1 + 1) / (count + k1 * (1 - b + b * relative))
        self._weights = saturated * np.repeat(self._idf, frequency)

    def idf(self, word: str) -> float:
        """Give a word's idf; one that no passage has weighs as the rarest."""
        number = self._number.get(word)
        return float(self._idf.max(initial=0.0) if number is None else self._idf[number])

    def search(self, query: str, k: int) -> tuple[Any, Any]:
        """Find the `k` best passages that share a word with the query.

        Returns:
            Two arrays, places and scores, best first; of equals the earlier.
        """
        scores = np.zeros(self._passages)
        for word in words(query):
            if (number := self._number.get(word)) is not None:
                postings = slice(self._starts[number], self._starts[number + 1])
                scores[self._places[postings]] += self._weights[postings]
        k = min(k, int((scores > 0).sum()))
        if not k:
            return np.empty(0, dtype=np.int64), np.empty(0)
        # Everything as good as the k-th, so that which of equals is found does not depend on the partition.
        least = np.partition(scores, -k)[-k]
        best = np.flatnonzero(scores >= least)
        best = best[np.lexsort((best, -scores[best]))][:k]
        return best, scores[best]
