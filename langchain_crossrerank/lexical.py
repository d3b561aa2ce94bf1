"""BM25 over passages in memory, from `bm25s`: a first stage that needs no model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import bm25s

MOST_QUERY_WORDS = 1000
"""Words of a query that are searched for; each takes a pass over the passages that have it."""

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Split a text into lower-case words without the plural `s`."""
    found = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in found]


class LexicalIndex:
    """A BM25 index with the parameters that suit passages (`k1=0.9`, `b=0.4`, as in Anserini).

    Args:
        passages: The passages; results name them by position.
    """

    def __init__(self, passages: Sequence[str]) -> None:
        tokens = [words(passage) for passage in passages]
        self._index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        self._index.index(tokens, show_progress=False)
        self._passages = len(passages)
        self._frequency = Counter(word for found in tokens for word in set(found))

    def idf(self, word: str) -> float:
        """Return a word's inverse document frequency, as in Lucene; an unknown word counts as the rarest."""
        frequency = max(self._frequency[word], 1)
        return math.log(1 + (self._passages - frequency + 0.5) / (frequency + 0.5))

    def search(self, query: str, k: int) -> list[int]:
        """Return the positions of the `k` best passages that share a word with the query, best first.

        Of a longer query, the first `MOST_QUERY_WORDS` words are searched for.
        """
        found = self._index.retrieve([words(query)[:MOST_QUERY_WORDS]], k=min(k, self._passages), show_progress=False)
        places, scores = found.documents[0].tolist(), found.scores[0].tolist()
        return [place for place, score in zip(places, scores, strict=True) if score > 0]
