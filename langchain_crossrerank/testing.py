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
    """A cross-encoder without a model: the share of the query's words that the passage has, plus a small tie-break.

    Scores lie between 0 and 1, depend on the texts alone, and need no files.

    Attributes:
        batches: The pairs of every batch that was scored, for tests to look at.
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
        wanted = set(re.findall(r"\w+", query.lower()))
        found = set(re.findall(r"\w+", passage.lower()))
        share = len(wanted & found) / max(1, len(wanted))
        digest = hashlib.blake2b(passage.encode(), digest_size=2).digest()
        return 0.99 * share + 0.01 * int.from_bytes(digest, "big") / 65536


class ScriptedCrossEncoder(CrossEncoder):
    """A cross-encoder that gives the scores a test wrote down for each passage.

    Args:
        scores: Score by passage; NaN and infinities may be among them.
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
    """Raise unless a cross-encoder keeps the promises of its contract.

    Checked: one finite plain float a pair; input order, however the pairs are shuffled or batched; equal pairs score
    equally; blank, long, emoji, right-to-left and lone-surrogate passages are scored; bad pairs are refused.

    Args:
        model: The cross-encoder to check.
        tolerance: How far a score may move when the pair is scored in other company.

    Raises:
        ScoringError: Naming the broken promise.
    """
    passages = ["a short one", "", "words " * 2000, "🙂 emoji", "שלום עולם", "lone \ud800 surrogate", "a short one"]
    pairs = [("a query", passage) for passage in passages]
    scores = model.score(pairs)
    if len(scores) != len(pairs) or not all(type(score) is float for score in scores):
        raise ScoringError(f"{model!r} gave {scores!r} for {len(pairs)} pairs; it must give one plain float a pair.")
    check_finite(scores, model.name)
    if scores[0] != scores[-1]:
        raise ScoringError(f"{model!r} scored the same pair {scores[0]!r} and {scores[-1]!r}.")
    if model.score([]) != []:
        raise ScoringError(f"{model!r} must give an empty list for no pairs.")
    alone = [model.score([pair])[0] for pair in pairs]
    backwards = model.score(pairs[::-1])[::-1]
    for company, others in (("alone", alone), ("in reversed order", backwards)):
        moved = [i for i, (a, b) in enumerate(zip(scores, others, strict=True)) if abs(a - b) > tolerance]
        if moved:
            raise ScoringError(f"{model!r} scores pairs {moved} otherwise {company}.", positions=moved)
    for bad in (["not a pair"], [("query", None)], [("", "passage")]):
        try:
            model.score(bad)  # type: ignore[arg-type]  # what a caller without a type checker may pass
        except InvalidInputError:
            continue
        raise ScoringError(f"{model!r} takes {bad!r} without an InvalidInputError.")
