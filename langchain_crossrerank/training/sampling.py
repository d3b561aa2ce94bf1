"""Chooses what each training step sees, from the seed and the step alone, so that a resumed run repeats it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.mining import MinedSource
from langchain_crossrerank.training.sentence_windows import sentence_window

WINDOW_SIZES = (0, 0, 0, 0, 1, 2, 2, 3, 3, 4)
"""Default choice of how many sentences of each passage a group sees; 0 is the whole passage."""

_HARDNESS = 6


@dataclass(frozen=True)
class GroupSampler:
    """Draws the group of pairs at each position of an endless sequence.

    A group is a positive, negatives that are more likely the higher the first stage ranked them, and one passage drawn
    from the whole source, which teaches what is not relevant at all. What mining rejected is not drawn.

    Attributes:
        mined: Examples with their negatives, by source.
        weights: How often each source is drawn, relative to the others.
        negatives: Negatives in a group.
        window_sizes: Numbers of sentences to choose from, each equally likely; 0 for whole passages.
        seed: Seed of every draw.
    """

    mined: Mapping[str, MinedSource]
    weights: Mapping[str, float]
    negatives: int = 7
    window_sizes: Sequence[int] = WINDOW_SIZES
    seed: int = 0

    def group(self, position: int) -> list[TextPair]:
        """Return the pairs at a position; the first pair has the positive."""
        draw = random.Random(f"{self.seed}:{position}")  # noqa: S311 - must be repeatable, not secret
        names = list(self.weights)
        source = self.mined[draw.choices(names, [self.weights[name] for name in names])[0]]
        found = draw.choice(source.examples)
        query, passages = found.example.query, source.passages
        hardest = list(found.negatives)
        chosen: list[int] = []
        while hardest and len(chosen) < self.negatives - 1:
            chosen.append(hardest.pop(min(int(draw.expovariate(1 / _HARDNESS)), len(hardest) - 1)))
        taken = {*chosen, *found.positives, *found.rejected}
        while len(chosen) < self.negatives:
            if len(taken) >= len(passages):
                # A small source has no other passage left.
                chosen.append(draw.choice(found.negatives))
            elif (other := draw.randrange(len(passages))) not in taken:
                chosen.append(other)
                taken.add(other)
        texts = [passages[place] for place in (draw.choice(found.positives), *chosen)]
        size = draw.choice(self.window_sizes)
        return [(query, sentence_window(query, text, size, source.idf, draw)) for text in texts]


def check_source_weights(weights: Mapping[str, float] | None, mined: Mapping[str, MinedSource]) -> dict[str, float]:
    """Return the weight of each source; by default the square root of its number of examples.

    Args:
        weights: Numbers of at least 0 by source; those left out are 0.
        mined: The sources.

    Raises:
        InvalidInputError: If a name is not a source, or all weights are 0.
    """
    if weights is None:
        return {name: len(source.examples) ** 0.5 for name, source in mined.items()}
    unknown = sorted(set(weights) - set(mined))
    if unknown:
        raise InvalidInputError(
            f"source_weights names {unknown}, but there is no such source; the sources are {sorted(mined)}."
        )
    chosen = {name: float(weights.get(name, 0)) for name in mined}
    if not any(chosen.values()):
        raise InvalidInputError(f"source_weights is {dict(weights)!r}; one must be above 0.")
    return {name: weight for name, weight in chosen.items() if weight}
