"""Queries held apart from training, and nDCG@10 of a model that reranks what BM25 found for them."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.data import TrainingExample
from langchain_crossrerank.training.mining import Mined, MinedExample

if TYPE_CHECKING:
    from langchain_crossrerank.training.models import Trainable

_DEPTH = 10

Scores = dict[str, list[dict[int, float]]]
"""Of each source, for each example held apart, the logit of each candidate's place."""


def is_held_apart(example: TrainingExample, share: float) -> bool:
    """Whether an example is kept for validation; decided by its unit, or else its query, and nothing else."""
    key = f"{example.source}:{example.unit or example.query}"
    digest = int(hashlib.blake2b(key.encode(), digest_size=4).hexdigest(), 16)
    return digest < share * 2**32


@dataclass(frozen=True)
class HeldApart:
    """Examples to validate on, with the passages that BM25 found for each.

    Attributes:
        examples: For each source its examples.
        passages: For each source its passages.
        k: Candidates reranked for a query.
    """

    examples: Mapping[str, Sequence[MinedExample]]
    passages: Mapping[str, Sequence[str]]
    k: int = 20

    def score(self, model: Trainable) -> Scores:
        """Score all candidates with a model; for each source and example the logit of each place."""
        scores: Scores = {}
        for source, examples in self.examples.items():
            texts = self.passages[source]
            pairs = [(entry.example.query, texts[place]) for entry in examples for place in entry.candidates[: self.k]]
            found = iter(model.all_logits(pairs).tolist())
            scores[source] = [{place: next(found) for place in entry.candidates[: self.k]} for entry in examples]
        return scores

    def ndcg(self, scores: Scores) -> tuple[float, dict[str, float]]:
        """Rerank by scores.

        Returns:
            The mean over sources of nDCG@10, and each source's.
        """
        means = {}
        for source, examples in self.examples.items():
            values = [
                _ndcg(sorted(found, key=found.__getitem__, reverse=True), entry.positives)
                for entry, found in zip(examples, scores[source], strict=True)
            ]
            means[source] = round(sum(values) / len(values), 6)
        return sum(means.values()) / len(means), means

    def labelled(self, scores: Scores) -> tuple[list[float], list[bool]]:
        """Give every logit, and whether it is a positive's."""
        found = [
            (logit, place in entry.positives)
            for source, examples in self.examples.items()
            for entry, places in zip(examples, scores[source], strict=True)
            for place, logit in places.items()
        ]
        return [logit for logit, _ in found], [relevant for _, relevant in found]


def hold_apart(
    mined: Mapping[str, Mined], *, share: float, most: int, k: int = 20, seed: int = 0
) -> tuple[dict[str, Mined], HeldApart]:
    """Divide mined examples into those to train on and those to validate on.

    Only examples with a positive among BM25's `k` best are validated on: on others no order could be right.

    Args:
        mined: The examples by source.
        share: Of the examples of each source, roughly.
        most: Examples of a source at most.
        k: Candidates reranked for a query.
        seed: Decides which examples are taken where there are more than `most`.

    Returns:
        What is left to train on, and what is held apart.

    Raises:
        InvalidInputError: If one side would be empty.
    """
    training, apart = {}, {}
    for source, found in mined.items():
        kept = [entry for entry in found.examples if not is_held_apart(entry.example, share)]
        if kept:
            training[source] = Mined(kept, found.passages, found.weight)
        usable = [
            entry
            for entry in found.examples
            if is_held_apart(entry.example, share) and set(entry.positives) & set(entry.candidates[:k])
        ]
        random.Random(seed).shuffle(usable)  # noqa: S311 - to be repeatable, not secret
        if usable:
            apart[source] = usable[:most]
    if not training or not apart:
        side = "train" if not training else "validate"
        count = sum(len(found.examples) for found in mined.values())
        raise InvalidInputError(
            f"of {count} queries none is left to {side} on with held_apart={share!r}; change it, or bring more queries."
        )
    return training, HeldApart(apart, {source: mined[source].passages for source in apart}, k)


def _ndcg(ranked: Sequence[int], positives: Sequence[int]) -> float:
    gain = sum(1 / math.log2(rank + 2) for rank, place in enumerate(ranked[:_DEPTH]) if place in positives)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(len(set(positives)), _DEPTH)))
    return gain / best
