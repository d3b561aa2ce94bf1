"""A cross-encoder of two models: a cheap one rules candidates out, the full one decides among the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.checks import check_whole_numbers, shorten
from langchain_crossrerank.cross_encoders.base import ScoreSteps, as_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair, check_text_pairs
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.base import WrapperCrossEncoder
from langchain_crossrerank.errors import InvalidInputError

_CHEAP_COST = 0.25
"""What a pair is taken to cost the cheap model, in units of its cost to the full one. The bundled judge takes about a
seventh (`benchmarks/cascade.py`), a model in eight bits more."""


class CascadeCrossEncoder(WrapperCrossEncoder):
    """Scores every pair with a cheap model, and the best pairs of each query with the full one.

    Survivors have exactly the full model's scores. Passages that were ruled out come after all survivors of their
    query, in the cheap model's order, and are marked `pruned`: their score says nothing else, and they never pass a
    threshold. A passage that belongs to the first `top_n` is lost only if the cheap model does not rank it among the
    first `keep`; `choose_keep` measures how often that happens.

    The idea is that of Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features" (CVPR
    2001), and of Wang, Lin and Metzler, "A Cascade Ranking Model for Efficient Ranked Retrieval" (SIGIR 2011).

    Args:
        cheap: A fast model: a smaller cross-encoder, or the same one in eight bits.
        full: The model that decides.
        keep: Candidates of a query that the full model reads. A query with no more than that skips the cheap model.

    Raises:
        InvalidInputError: If `keep` is not positive.
    """

    def __init__(self, cheap: BaseCrossEncoder, full: BaseCrossEncoder, *, keep: int = 15) -> None:
        super().__init__(full)
        check_whole_numbers(keep=(keep, 1))
        self.cheap = as_cross_encoder(cheap)
        self.keep = keep

    @property
    def scores_pairs_alone(self) -> bool:  # type: ignore[override]  # read-only here
        """Always `False`: which passages survive depends on the others."""
        return False

    @property
    def fingerprint(self) -> str:
        """Both models' fingerprints and `keep`."""
        return f"cascade-{self.keep}:{self.cheap.fingerprint}:{self.inner.fingerprint}"

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        """Score all pairs with the cheap model, then the best of each query with the full one."""
        pairs = check_text_pairs(text_pairs)
        by_query: dict[str, list[TextPair]] = {}
        for pair in dict.fromkeys(pairs):
            by_query.setdefault(pair[0], []).append(pair)
        many = [pair for group in by_query.values() if len(group) > self.keep for pair in group]
        cheap, full = _CHEAP_COST * len(many), sum(min(len(group), self.keep) for group in by_query.values())
        turn = cheap / (cheap + full) if many else 0.0
        guesses: dict[TextPair, PairScore] = {}
        if many:
            guesses = dict(zip(many, (yield from _as_part(self.cheap.score_steps(many), 0.0, turn)), strict=True))
        ranked = {query: _ranked(group, guesses) for query, group in by_query.items()}
        survivors = [pair for group in ranked.values() for pair in group[: self.keep]]
        found = yield from _as_part(self.inner.score_steps(survivors), turn, 1.0)
        scores = dict(zip(survivors, found, strict=True))
        for group in ranked.values():
            lowest = min(scores[pair].score for pair in group[: self.keep])
            scores |= self._below(lowest, group[self.keep :])
        return [scores[pair] for pair in pairs]

    def _below(self, lowest: float, pruned: Sequence[TextPair]) -> dict[TextPair, PairScore]:
        # Evenly spaced below the lowest survivor, and not below 0 where scores are probabilities.
        height = lowest if self.activation == "sigmoid" and lowest >= 0 else 1.0
        step = height / (len(pruned) + 1)
        return {pair: PairScore(lowest - step * place, pruned=True) for place, pair in enumerate(pruned, start=1)}

    def __repr__(self) -> str:
        return f"CascadeCrossEncoder({self.cheap!r}, {self.inner!r}, keep={self.keep})"


def recall_of_cheap(
    cheap: BaseCrossEncoder, full: BaseCrossEncoder, samples: Mapping[str, Sequence[str]], *, top_n: int = 5
) -> dict[int, float]:
    """Measure which share of the full model's best passages a cascade keeps, for every `keep`.

    Args:
        cheap: The cheap model.
        full: The full model.
        samples: Candidate passages by query, as the first stage returns them; a few dozen queries.
        top_n: How many documents the reranker keeps.

    Returns:
        For each `keep`, from 1 to the length of the longest list, the mean share of the full model's first `top_n`
        that the cheap model ranks among its own first `keep`.

    Raises:
        InvalidInputError: If there are no samples, a query's are empty or a string, or `top_n` is not positive.
    """
    check_whole_numbers(top_n=(top_n, 1))
    if not samples:
        raise InvalidInputError("there are no samples; pass at least one query with its passages.")
    for query, passages in samples.items():
        if isinstance(passages, str) or not passages:
            raise InvalidInputError(f"the passages of {shorten(query)} are {shorten(passages)}; pass a list of them.")
    found: list[list[float]] = []
    widest = max(len(set(passages)) for passages in samples.values())
    for query, passages in samples.items():
        pairs = [(query, passage) for passage in dict.fromkeys(passages)]
        quick, exact = (
            _ranked(pairs, dict(zip(pairs, drain(as_cross_encoder(model).score_steps(pairs)), strict=True)))
            for model in (cheap, full)
        )
        best = exact[:top_n]
        found.append([len(set(best) & set(quick[:keep])) / len(best) for keep in range(1, widest + 1)])
    return {keep: sum(shares) / len(shares) for keep, shares in enumerate(zip(*found, strict=True), start=1)}


def choose_keep(
    cheap: BaseCrossEncoder,
    full: BaseCrossEncoder,
    samples: Mapping[str, Sequence[str]],
    *,
    top_n: int = 5,
    recall: float = 0.99,
) -> int:
    """Find the smallest `keep` with which a cascade loses little of what the full model would choose.

    Args:
        cheap: The cheap model.
        full: The full model.
        samples: Candidate passages by query; the result holds for queries like these.
        top_n: How many documents the reranker keeps.
        recall: Mean share of the full model's first `top_n` that must survive.

    Returns:
        The smallest such `keep`; the length of the longest list if nothing less is enough.

    Raises:
        InvalidInputError: If `recall` is not above 0 and at most 1, or for what `recall_of_cheap` raises it.
    """
    if not isinstance(recall, int | float) or not 0 < recall <= 1:
        raise InvalidInputError(f"recall is {shorten(recall)}; pass a share above 0 and at most 1.")
    measured = recall_of_cheap(cheap, full, samples, top_n=top_n)
    return next((keep for keep, share in measured.items() if share >= recall), max(measured))


def _ranked(pairs: Sequence[TextPair], scores: Mapping[TextPair, PairScore]) -> list[TextPair]:
    return sorted(pairs, key=lambda pair: -scores[pair].score) if scores and pairs[0] in scores else list(pairs)


def _as_part(steps: ScoreSteps, begin: float, end: float) -> ScoreSteps:
    """Do steps as that part of a larger work which begins and ends at these shares of it."""
    with closing(steps):
        while True:
            try:
                share = next(steps)
            except StopIteration as stop:
                scores: list[PairScore] = stop.value
                return scores
            yield begin + (end - begin) * (share or 0.0)
