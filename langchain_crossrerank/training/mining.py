"""Finds hard negatives: passages that a first stage ranks high for a query and that do not answer it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.bm25 import BM25, words
from langchain_crossrerank.training.data import TrainingData, TrainingExample

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

MARGIN = 0.1
"""How much closer to the query than the best positive, in cosine, a candidate may be before it counts as an answer."""

_NEAR_DUPLICATE = 0.6


@dataclass(frozen=True)
class MinedExample:
    """A training example with its passages as places in its source's list.

    Attributes:
        example: The query and what belongs to it.
        positives: Places of its positives.
        candidates: What BM25 found, best first, positives among them.
        negatives: What may serve as negatives, hardest first.
    """

    example: TrainingExample
    positives: tuple[int, ...]
    candidates: tuple[int, ...]
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Mined:
    """One source's mined examples and its passages.

    Attributes:
        examples: Examples that have a negative.
        passages: All passages of the source.
        weight: A word's idf over them.
    """

    examples: list[MinedExample]
    passages: Sequence[str]
    weight: Callable[[str], float] = field(repr=False)


def mine(
    data: TrainingData,
    *,
    k: int = 50,
    embeddings: Embeddings | None = None,
    progress: Callable[[Sequence[TrainingExample]], Iterator[TrainingExample]] = iter,
) -> dict[str, Mined]:
    """Mine negatives with BM25, and with a bi-encoder where one is given.

    Left out are positives, near-duplicates of them, passages that contain one of the example's answers and, with a
    bi-encoder, passages that are like the query by `MARGIN` more than its best positive is: they are likely to be
    answers that nobody marked. An example for which nothing is left is left out itself.

    Args:
        data: Examples and passages.
        k: Candidates of each first stage.
        embeddings: The bi-encoder.
        progress: Wraps the examples of a source to show how far mining is.

    Returns:
        For each source what was mined.

    Raises:
        InvalidInputError: If no example is left.
    """
    mined = {}
    for source, passages in data.passages.items():
        miner = _Miner(passages, k, embeddings)
        examples = [example for example in data.examples if example.source == source]
        found = [miner.mine(example) for example in progress(examples)]
        kept = [entry for entry in found if entry.negatives]
        if kept:
            mined[source] = Mined(kept, passages, miner.index.idf)
    if not mined:
        raise InvalidInputError(
            f"no negatives were found for any of {len(data.examples)} queries; add passages on like subjects to mine "
            "from, or negatives to the training file."
        )
    return mined


class _Miner:
    def __init__(self, passages: Sequence[str], k: int, embeddings: Embeddings | None) -> None:
        self.index = BM25(passages)
        self._passages = passages
        self._place = {passage: place for place, passage in enumerate(passages)}
        self._words: dict[int, frozenset[str]] = {}
        self._k = k
        self._embeddings = embeddings
        self._vectors = None if embeddings is None else _unit(embeddings.embed_documents(list(passages)))

    def mine(self, example: TrainingExample) -> MinedExample:
        """Find an example's negatives; those it brings itself come first."""
        positives = tuple(self._place[text] for text in example.positives)
        candidates = tuple(self.index.search(example.query, self._k)[0].tolist())
        ranked: Sequence[int] = candidates
        if self._embeddings is not None:
            ranked = self._with_nearest(self._embeddings.embed_query(example.query), candidates, positives)
        mined = [place for place in ranked if not self._may_answer(place, positives, example.answers)]
        own = [self._place[text] for text in example.negatives]
        return MinedExample(example, positives, candidates, tuple(dict.fromkeys([*own, *mined])))

    def _with_nearest(self, vector: Sequence[float], found: Sequence[int], positives: Sequence[int]) -> Sequence[int]:
        closeness = self._vectors @ _unit([vector])[0]
        nearest = np.argsort(-closeness, kind="stable")[: self._k].tolist()
        limit = max(closeness[place] for place in positives) + MARGIN
        by_turns = [place for rank in range(self._k) for both in (found, nearest) for place in both[rank : rank + 1]]
        return [place for place in dict.fromkeys(by_turns) if closeness[place] <= limit]

    def _may_answer(self, place: int, positives: Sequence[int], answers: Sequence[str]) -> bool:
        if place in positives:
            return True
        text = self._passages[place]
        if any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) for answer in answers):
            return True
        words_here = self._words_of(place)
        return any(_overlap(words_here, self._words_of(other)) > _NEAR_DUPLICATE for other in positives)

    def _words_of(self, place: int) -> frozenset[str]:
        if place not in self._words:
            self._words[place] = frozenset(words(self._passages[place]))
        return self._words[place]


def _unit(vectors: Sequence[Sequence[float]]) -> Any:
    array = np.asarray(vectors, dtype=np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(len(first | second), 1)
