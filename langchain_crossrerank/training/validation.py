"""Held-out queries, and nDCG@10 of a model that reranks what BM25 found for them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ir_measures

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.data import TrainingExample
from langchain_crossrerank.training.mining import MinedExample, MinedSource

if TYPE_CHECKING:
    from langchain_crossrerank.training.models import Trainable

_MEASURE = ir_measures.nDCG @ 10

Scores = dict[str, list[dict[int, float]]]
"""By source, for each held-out example, the logit of each candidate by its position."""


def is_held_out(example: TrainingExample, share: float) -> bool:
    """Whether an example is for validation, which its unit, or else its query, decides alone."""
    key = f"{example.source}:{example.unit or example.query}"
    digest = int(hashlib.blake2b(key.encode(), digest_size=4).hexdigest(), 16)
    return digest < share * 2**32


@dataclass(frozen=True)
class HeldOut:
    """Examples to validate on, with the passages that BM25 found for each.

    Attributes:
        examples: Examples by source.
        passages: Passages by source.
        k: Candidates reranked for each query.
    """

    examples: Mapping[str, Sequence[MinedExample]]
    passages: Mapping[str, Sequence[str]]
    k: int = 20

    def score(self, model: Trainable) -> Scores:
        """Score all candidates with a model."""
        scores: Scores = {}
        for source, examples in self.examples.items():
            texts = self.passages[source]
            pairs = [(entry.example.query, texts[place]) for entry in examples for place in entry.candidates[: self.k]]
            found = iter(model.all_logits(pairs).tolist())
            scores[source] = [{place: next(found) for place in entry.candidates[: self.k]} for entry in examples]
        return scores

    def ndcg(self, scores: Scores) -> tuple[float, dict[str, float]]:
        """Measure the order that scores give.

        Returns:
            The mean of the sources' nDCG@10, and the nDCG@10 of each source.
        """
        means = {}
        for source, examples in self.examples.items():
            qrels = {str(number): {str(place): 1 for place in entry.positives} for number, entry in enumerate(examples)}
            run = {
                str(number): {str(place): logit for place, logit in found.items()}
                for number, found in enumerate(scores[source])
            }
            means[source] = round(float(ir_measures.calc_aggregate([_MEASURE], qrels, run)[_MEASURE]), 6)
        return sum(means.values()) / len(means), means

    def labelled(self, scores: Scores) -> tuple[list[float], list[bool]]:
        """Return every logit, and whether it is that of a positive."""
        found = [
            (logit, place in entry.positives)
            for source, examples in self.examples.items()
            for entry, places in zip(examples, scores[source], strict=True)
            for place, logit in places.items()
        ]
        return [logit for logit, _ in found], [relevant for _, relevant in found]


def hold_out(
    mined: Mapping[str, MinedSource], *, share: float, max_examples: int, k: int = 20, seed: int = 0
) -> tuple[dict[str, MinedSource], HeldOut]:
    """Divide mined examples into those to train on and those to validate on.

    Only examples with a positive among BM25's `k` best are validated on; for the others no order would be right.

    Args:
        mined: The examples by source.
        share: Approximate fraction of each source's examples to hold out.
        max_examples: Maximum number of held-out examples of a source.
        k: Candidates reranked for each query.
        seed: Decides which examples are used if there are more than `max_examples`.

    Returns:
        The examples to train on, and the held-out ones.

    Raises:
        InvalidInputError: If either would be empty.
    """
    training, held_out = {}, {}
    for source, found in mined.items():
        kept = [entry for entry in found.examples if not is_held_out(entry.example, share)]
        if kept:
            training[source] = MinedSource(kept, found.passages, found.idf)
        usable = [
            entry
            for entry in found.examples
            if is_held_out(entry.example, share) and set(entry.positives) & set(entry.candidates[:k])
        ]
        random.Random(seed).shuffle(usable)  # noqa: S311 - must be repeatable, not secret
        if usable:
            held_out[source] = usable[:max_examples]
    if not training or not held_out:
        purpose = "train" if not training else "validate"
        count = sum(len(found.examples) for found in mined.values())
        raise InvalidInputError(
            f"none of {count} queries is left to {purpose} on with held_out={share!r}; change it, or add queries."
        )
    return training, HeldOut(held_out, {source: mined[source].passages for source in held_out}, k)
