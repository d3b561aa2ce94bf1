"""Test doubles for code that uses this package, and a check for cross-encoders that others write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.scores import Activation, check_finite
from langchain_crossrerank.errors import InvalidInputError, ScoringError


class FakeCrossEncoder(CrossEncoder):
    """A cross-encoder without a model: scores are the share of query words in the passage, plus a small tie-break.

    Scores lie between 0 and 1 and depend on the texts alone.

    Attributes:
        batches: The pairs of every batch that was scored, for tests to inspect.
    """

    name = "fake"
    backend = "fake"
    activation: Activation = "sigmoid"
    max_length = 512

    def __init__(self, *, max_batch_tokens: int = 2048) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.batches: list[list[TextPair]] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.batches.append([item.text_pair for item in batch])
        return [self._overlap(*item.text_pair) for item in batch]

    @staticmethod
    def _overlap(query: str, passage: str) -> float:
        query_words = set(re.findall(r"\w+", query.lower()))
        passage_words = set(re.findall(r"\w+", passage.lower()))
        share = len(query_words & passage_words) / max(1, len(query_words))
        digest = hashlib.blake2b(passage.encode(), digest_size=2).digest()
        return 0.99 * share + 0.01 * int.from_bytes(digest, "big") / 65536


class ScriptedCrossEncoder(CrossEncoder):
    """A cross-encoder that returns the score a test chose for each passage.

    Args:
        scores: Score by passage; may be NaN or infinite.
        default: Score of any other passage.
    """

    name = "scripted"
    backend = "fake"
    activation: Activation = "identity"
    max_length = 512

    def __init__(self, scores: dict[str, float], *, default: float = 0.0) -> None:
        self.scores = scores
        self.default = default

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return [self.scores.get(item.text_pair[1], self.default) for item in batch]


def check_cross_encoder(model: CrossEncoder, *, tolerance: float = 1e-4) -> None:
    """Raise unless a cross-encoder fulfils its contract.

    Checked: one finite plain float per pair; scores in input order, regardless of the order and number of pairs; equal
    scores for equal pairs; scores for blank, long, emoji, right-to-left and lone-surrogate passages; an error for
    invalid pairs.

    Args:
        model: The cross-encoder to check.
        tolerance: How much a score may change with the other pairs of the call.

    Raises:
        ScoringError: Naming the part of the contract that is broken.
    """
    passages = ["a short one", "", "words " * 2000, "🙂 emoji", "שלום עולם", "lone \ud800 surrogate", "a short one"]
    pairs = [("a query", passage) for passage in passages]
    scores = model.score(pairs)
    if len(scores) != len(pairs) or not all(type(score) is float for score in scores):
        raise ScoringError(
            f"{model!r} returned {scores!r} for {len(pairs)} pairs; it must return one plain float per pair."
        )
    check_finite(scores, model.name)
    if scores[0] != scores[-1]:
        raise ScoringError(f"{model!r} returned {scores[0]!r} and {scores[-1]!r} for equal pairs.")
    if model.score([]) != []:
        raise ScoringError(f"{model!r} must return an empty list for no pairs.")
    alone = [model.score([pair])[0] for pair in pairs]
    backwards = model.score(pairs[::-1])[::-1]
    for how, others in (("with the batch", alone), ("with the order of the pairs", backwards)):
        changed = [i for i, (a, b) in enumerate(zip(scores, others, strict=True)) if abs(a - b) > tolerance]
        if changed:
            raise ScoringError(f"{model!r}: the scores of pairs {changed} change {how}.", positions=changed)
    for bad in (["not a pair"], [("query", None)], [("", "passage")]):
        try:
            model.score(bad)  # type: ignore[arg-type]  # what a caller without a type checker may pass
        except InvalidInputError:
            continue
        raise ScoringError(f"{model!r} accepts {bad!r}; it must raise an InvalidInputError.")
