"""Mines hard negatives: passages that a first stage ranks high for a query but that do not answer it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.lexical import LexicalIndex, words
from langchain_crossrerank.training.data import TrainingData, TrainingExample
from langchain_crossrerank.training.embeddings import model_key, unit_vectors

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

MARGIN = 0.1
"""How much closer to the query than its best positive, in cosine, a passage may be and still count as a negative."""

_NEAR_DUPLICATE = 0.6

_EMBEDDED_AT_ONCE = 1024


@dataclass(frozen=True)
class MinedExample:
    """A training example with its passages as positions in its source's list.

    Attributes:
        example: The query and what belongs to it.
        positives: Positions of its positives.
        candidates: What BM25 found, best first, positives included.
        negatives: What may be used as negatives, hardest first.
        rejected: What a first stage found and probably answers the query, so that it is never used as a negative.
    """

    example: TrainingExample
    positives: tuple[int, ...]
    candidates: tuple[int, ...]
    negatives: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class MinedSource:
    """The mined examples of one source, and its passages.

    Attributes:
        examples: Examples that have a negative.
        passages: All passages of the source.
        idf: Inverse document frequency of a word in them.
    """

    examples: list[MinedExample]
    passages: Sequence[str]
    idf: Callable[[str], float] = field(repr=False)


def mine(
    data: TrainingData,
    *,
    k: int = 50,
    embeddings: Embeddings | None = None,
    file: Path | None = None,
    progress: Callable[[Sequence[Any]], Iterator[Any]] = iter,
) -> dict[str, MinedSource]:
    """Mine negatives with BM25 and, if one is passed, with a bi-encoder.

    Excluded are positives, near-duplicates of them, passages that contain one of the example's answers and, with a
    bi-encoder, passages closer to the query than its best positive by more than `MARGIN`: they are probably answers
    that nobody marked, and no random negatives either. Examples without any negative are left out. The examples of the
    same query are merged first.

    Args:
        data: Examples and passages.
        k: Candidates of each first stage.
        embeddings: The bi-encoder.
        file: Where to keep the result; read again if data, `k` and bi-encoder are the same.
        progress: Wraps the sequences that are worked through, to show progress.

    Returns:
        The mined examples by source.

    Raises:
        InvalidInputError: If no example is left.
        TrainingError: If `file` cannot be written.
    """
    data = data.merged()
    mined = {}
    key = _key(data, k, embeddings)
    known: Mapping[str, Sequence[_Places]] = _read(file, key)
    places: dict[str, list[_Places]] = {}
    for source, passages in data.passages.items():
        examples = [example for example in data.examples if example.source == source]
        index = LexicalIndex(passages)
        if source in known and _fits(known[source], len(examples), len(passages)):
            places[source] = list(known[source])
        else:
            miner = _Miner(passages, index, k, embeddings, progress)
            places[source] = [miner.mine(example) for example in progress(examples)]
        found = (MinedExample(example, *map(tuple, row)) for example, row in zip(examples, places[source], strict=True))
        kept = [entry for entry in found if entry.negatives]
        if kept:
            mined[source] = MinedSource(kept, passages, index.idf)
        if file is not None and places[source] != known.get(source):
            _keep(file, json.dumps({"key": key, "sources": places}))
    if not mined:
        raise InvalidInputError(
            f"no negatives were found for any of {len(data.examples)} queries; add passages on similar subjects to "
            "mine from, or negatives to the training file."
        )
    return mined


def mined_digest(mined: Mapping[str, MinedSource]) -> str:
    """Return a hash of everything that groups are drawn from."""
    digest = hashlib.blake2b(digest_size=8)
    for source, found in mined.items():
        digest.update(repr((source, found.passages)).encode())
        for entry in found.examples:
            digest.update(repr((entry.example.query, entry.positives, entry.negatives, entry.rejected)).encode())
    return digest.hexdigest()


_Places = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


_Kept = list[NonNegativeInt]


class _MinedFile(BaseModel):
    key: str
    sources: dict[str, list[tuple[_Kept, _Kept, _Kept, _Kept]]]


def _key(data: TrainingData, k: int, embeddings: Embeddings | None) -> str:
    """Return a hash of everything that mining depends on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((k, embeddings and model_key(embeddings), data.passages)).encode())
    for example in data.examples:
        digest.update(repr(example).encode())
    return digest.hexdigest()


def _keep(file: Path, content: str) -> None:
    try:
        write_whole(file, content)
    except OSError as err:
        raise TrainingError(f"cannot write {file} ({err}); free some space and run the same command again.") from err


def _read(file: Path | None, key: str) -> Mapping[str, Sequence[_Places]]:
    if file is None or not file.is_file():
        return {}
    try:
        kept = _MinedFile.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        # A damaged file only costs the time to mine again.
        return {}
    return kept.sources if kept.key == key else {}


def _fits(rows: Sequence[_Places], examples: int, passages: int) -> bool:
    """Whether kept positions can be those of this many examples and passages."""
    return len(rows) == examples and all(place < passages for row in rows for part in row for place in part)


class _Miner:
    def __init__(
        self,
        passages: Sequence[str],
        index: LexicalIndex,
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
            self._vectors = unit_vectors([vector for part in parts for vector in part])

    def mine(self, example: TrainingExample) -> _Places:
        """Return the positions of the positives, candidates, negatives (those from the data first) and rejected."""
        positives = tuple(self._place[text] for text in example.positives)
        candidates = tuple(self._index.search(example.query, self._k))
        found = ranked = candidates
        if self._embeddings is not None:
            found, ranked = self._with_nearest(self._embeddings.embed_query(example.query), candidates, positives)
        mined = [place for place in ranked if not self._may_answer(place, positives, example.answers)]
        own = [self._place[text] for text in example.negatives]
        negatives = tuple(dict.fromkeys([*own, *mined]))
        used = {*positives, *negatives}
        return positives, candidates, negatives, tuple(place for place in found if place not in used)

    def _with_nearest(
        self, vector: Sequence[float], found: Sequence[int], positives: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what either first stage found, and that without what is too close to the query."""
        closeness = self._vectors @ unit_vectors([vector])[0]
        nearest = np.argsort(-closeness, kind="stable")[: self._k].tolist()
        limit = max(closeness[place] for place in positives) + MARGIN
        by_turns = [place for rank in range(self._k) for both in (found, nearest) for place in both[rank : rank + 1]]
        both_found = tuple(dict.fromkeys(by_turns))
        return both_found, tuple(place for place in both_found if closeness[place] <= limit)

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
