"""Chooses what each training step sees; a pure function of the seed and the step, so that a resumed run repeats it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training.mining import Mined
from langchain_crossrerank.training.windows import window

WINDOW_SIZES = (0, 0, 0, 0, 1, 2, 2, 3, 3, 4)
"""Sentences of each passage that a group sees, drawn evenly; 0 stands for the whole passage."""

_HARDNESS = 6


@dataclass(frozen=True)
class GroupSampler:
    """Gives the group of pairs at each place of an endless sequence.

    The sources take turns by their shares, and each source's examples come in an order of its own that is drawn anew
    for each pass. A group is a positive, negatives that are the likelier the higher the first stage ranked them, and
    one passage drawn from all, which teaches what is not relevant at all.

    Attributes:
        mined: Examples with negatives, by source.
        shares: Weight of each source.
        negatives: Passages of a group beside its positive.
        window_sizes: Sentences of each passage that a group sees, drawn evenly; 0 for whole passages.
        seed: Of every draw.
    """

    mined: Mapping[str, Mined]
    shares: Mapping[str, float]
    negatives: int = 7
    window_sizes: Sequence[int] = WINDOW_SIZES
    seed: int = 0

    def group(self, place: int) -> list[TextPair]:
        """Give the pairs at `place`; the first holds the positive."""
        draw = random.Random(f"{self.seed}:{place}")  # noqa: S311 - the draw is to be repeatable, not secret
        names = list(self.shares)
        source = self.mined[draw.choices(names, [self.shares[name] for name in names])[0]]
        found = draw.choice(source.examples)
        query, passages = found.example.query, source.passages
        hardest = list(found.negatives)
        chosen: list[int] = []
        while hardest and len(chosen) < self.negatives - 1:
            chosen.append(hardest.pop(min(int(draw.expovariate(1 / _HARDNESS)), len(hardest) - 1)))
        taken = {*chosen, *found.positives}
        while len(chosen) < self.negatives:
            other = draw.randrange(len(passages))
            # A source of few passages may have no other left.
            if other not in taken or len(taken) >= len(passages):
                chosen.append(other)
                taken.add(other)
        texts = [passages[place] for place in (draw.choice(found.positives), *chosen)]
        size = draw.choice(self.window_sizes)
        return [(query, window(query, text, size, source.weight, draw)) for text in texts]


def check_shares(shares: Mapping[str, float] | None, mined: Mapping[str, Mined]) -> dict[str, float]:
    """Give each source's share; where none are named, by the square root of its examples.

    Raises:
        InvalidInputError: If a share names no source, or is not positive.
    """
    if shares is None:
        return {name: len(source.examples) ** 0.5 for name, source in mined.items()}
    strangers = sorted(set(shares) - set(mined))
    if strangers:
        raise InvalidInputError(f"shares names {strangers}, which are no sources; the sources are {sorted(mined)}.")
    chosen = {name: float(shares.get(name, 0)) for name in mined}
    if min(chosen.values()) < 0 or not sum(chosen.values()):
        raise InvalidInputError(f"shares is {dict(shares)!r}; a share is at least 0, and one must be above it.")
    return {name: share for name, share in chosen.items() if share}
