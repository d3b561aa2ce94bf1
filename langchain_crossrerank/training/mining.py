"""Finds hard negatives: passages that a first stage ranks high for a query and that do not answer it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.training.bm25 import BM25, words
from langchain_crossrerank.training.data import TrainingData, TrainingExample
from langchain_crossrerank.training.vectors import described, unit

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

MARGIN = 0.1
"""How much closer to the query than the best positive, in cosine, a candidate may be before it counts as an answer."""

_NEAR_DUPLICATE = 0.6

_EMBEDDED_AT_ONCE = 1024


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
    file: Path | None = None,
    progress: Callable[[Sequence[Any]], Iterator[Any]] = iter,
) -> dict[str, Mined]:
    """Mine negatives with BM25, and with a bi-encoder where one is given.

    Left out are positives, near-duplicates of them, passages that contain one of the example's answers and, with a
    bi-encoder, passages that are like the query by `MARGIN` more than its best positive is: they are likely to be
    answers that nobody marked. An example for which nothing is left is left out itself.

    Args:
        data: Examples and passages.
        k: Candidates of each first stage.
        embeddings: The bi-encoder.
        file: Where to keep what was mined; taken from there by the next call for the same data, `k` and bi-encoder.
        progress: Wraps what is worked through, to show how far mining is.

    Returns:
        For each source what was mined.

    Raises:
        InvalidInputError: If no example is left.
    """
    mined = {}
    key = _key(data, k, embeddings)
    known = _read(file, key)
    places: dict[str, list[_Places]] = {}
    for source, passages in data.passages.items():
        examples = [example for example in data.examples if example.source == source]
        index = BM25(passages)
        if source in known:
            places[source] = known[source]
        else:
            miner = _Miner(passages, index, k, embeddings, progress)
            places[source] = [miner.mine(example) for example in progress(examples)]
        found = (MinedExample(example, *map(tuple, row)) for example, row in zip(examples, places[source], strict=True))
        kept = [entry for entry in found if entry.negatives]
        if kept:
            mined[source] = Mined(kept, passages, index.idf)
        if file is not None and source not in known:
            _keep(file, json.dumps({"key": key, "sources": places}))
    if not mined:
        raise InvalidInputError(
            f"no negatives were found for any of {len(data.examples)} queries; add passages on like subjects to mine "
            "from, or negatives to the training file."
        )
    return mined


def digest_of(mined: Mapping[str, Mined]) -> str:
    """Give a hash of everything that groups are drawn from."""
    digest = hashlib.blake2b(digest_size=8)
    for source, found in mined.items():
        digest.update(repr((source, found.passages)).encode())
        for entry in found.examples:
            digest.update(repr((entry.example.query, entry.positives, entry.negatives)).encode())
    return digest.hexdigest()


_Places = tuple[Sequence[int], Sequence[int], Sequence[int]]


def _key(data: TrainingData, k: int, embeddings: Embeddings | None) -> str:
    """Give a hash of all that mining depends on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((k, embeddings and described(embeddings), data.passages)).encode())
    for example in data.examples:
        digest.update(repr(example).encode())
    return digest.hexdigest()


def _keep(file: Path, content: str) -> None:
    try:
        write_whole(file, content)
    except OSError as err:
        raise TrainingError(
            f"{file} could not be written ({err}); free some space and run the same command again."
        ) from err


def _read(file: Path | None, key: str) -> dict[str, list[_Places]]:
    if file is None or not file.is_file():
        return {}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        found: dict[str, list[_Places]] = kept["sources"] if kept["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        # A damaged file costs the time to mine again, and nothing else.
        return {}
    return found


class _Miner:
    def __init__(
        self,
        passages: Sequence[str],
        index: BM25,
        k: int,
        embeddings: Embeddings | None,
        progress: Callable[[Sequence[Any]], Iterator[Any]],
    ) -> None:
        self._index = index
        self._passages = passages
        self._place = {passage: place for place, passage in enumerate(passages)}
        self._words: dict[int, frozenset[str]] = {}
        self._k = k
        self._embeddings = embeddings
        self._vectors: Any = None
        if embeddings is not None:
            starts = progress(range(0, len(passages), _EMBEDDED_AT_ONCE))
            parts = [embeddings.embed_documents(list(passages[start : start + _EMBEDDED_AT_ONCE])) for start in starts]
            self._vectors = unit([vector for part in parts for vector in part])

    def mine(self, example: TrainingExample) -> _Places:
        """Find the places of an example's positives, candidates and negatives; the negatives it brings come first."""
        positives = tuple(self._place[text] for text in example.positives)
        candidates = tuple(self._index.search(example.query, self._k)[0].tolist())
        ranked: Sequence[int] = candidates
        if self._embeddings is not None:
            ranked = self._with_nearest(self._embeddings.embed_query(example.query), candidates, positives)
        mined = [place for place in ranked if not self._may_answer(place, positives, example.answers)]
        own = [self._place[text] for text in example.negatives]
        return positives, candidates, tuple(dict.fromkeys([*own, *mined]))

    def _with_nearest(self, vector: Sequence[float], found: Sequence[int], positives: Sequence[int]) -> Sequence[int]:
        closeness = self._vectors @ unit([vector])[0]
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


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(len(first | second), 1)
