"""The test doubles that ship with the package, and the check of a cross-encoder's contract."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.base import AdaptedCrossEncoder, CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder, check_cross_encoder


class StockCrossEncoder(BaseCrossEncoder):
    """A cross-encoder with LangChain's contract and nothing else."""

    def score(self, text_pairs: list[TextPair]) -> list[float]:
        return [float(len(passage)) for _, passage in text_pairs]


def test_the_fake_scores_by_shared_words() -> None:
    """The fake is deterministic, lies in 0..1, and puts the passage with more of the query's words first."""
    pairs = [("low rank adaptation", text) for text in ("low rank adaptation", "a LOW rank", "rank", "the weather", "")]
    scores = FakeCrossEncoder().score(pairs)
    assert scores == FakeCrossEncoder().score(pairs)
    assert scores[:3] == sorted(scores, reverse=True)[:3]
    assert all(0 <= value <= 1 for value in scores)
    assert scores[2] > max(scores[3:])


def test_the_scripted_model_gives_what_was_written_down() -> None:
    """Scores come by passage, and any other passage gets the default."""
    model = ScriptedCrossEncoder({"a": 3.0, "": -1.0}, default=0.25)
    assert model.score([("q", "b"), ("q", "a"), ("other", "a"), ("q", " ")]) == [0.25, 3.0, 3.0, -1.0]


@pytest.mark.parametrize(
    "model",
    [
        FakeCrossEncoder(),
        FakeCrossEncoder(max_batch_tokens=1),
        ScriptedCrossEncoder({}),
        AdaptedCrossEncoder(StockCrossEncoder()),
    ],
    ids=repr,
)
def test_good_models_pass_the_check(model: CrossEncoder) -> None:
    """What ships for others' tests keeps the contract itself."""
    assert check_cross_encoder(model) is None  # type: ignore[func-returns-value]  # the promise is that it returns


class SortedScores(FakeCrossEncoder):
    """Gives a batch's scores best first."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return sorted(super()._score_batch(batch), reverse=True)


class ReversedScores(FakeCrossEncoder):
    """Gives a batch's scores back to front."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return list(super()._score_batch(batch))[::-1]


class StatefulScores(FakeCrossEncoder):
    """Scores move a little with every batch."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return [value + 0.001 * len(self.batches) for value in super()._score_batch(batch)]


class CompanyScores(FakeCrossEncoder):
    """Padding leaks: a score depends on the longest pair of its batch."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        longest = max(item.tokens for item in batch)
        return [value + 0.001 * longest for value in super()._score_batch(batch)]


class PlaceScores(FakeCrossEncoder):
    """A score depends on the pair's row in its batch."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return [value + 0.001 * row for row, value in enumerate(super()._score_batch(batch))]


class LastScoreLost(FakeCrossEncoder):
    """Gives one score too few."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return list(super()._score_batch(batch))[:-1]


class NanForBlank(FakeCrossEncoder):
    """Divides by the length of the passage."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        return [
            value if item.text_pair[1] else math.nan
            for item, value in zip(batch, super()._score_batch(batch), strict=True)
        ]


class RaisesForBlank(FakeCrossEncoder):
    """Cannot take an empty passage."""

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if not all(item.text_pair[1] for item in batch):
            raise ZeroDivisionError("no tokens")
        return super()._score_batch(batch)


class NumpyScores(FakeCrossEncoder):
    """Goes round the contract with scores that are not plain floats."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        return [np.float64(value) for value in super().score(text_pairs)]


class RoundedScores(FakeCrossEncoder):
    """Goes round the contract with whole numbers."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        return [round(value) for value in super().score(text_pairs)]


class DropsRepeats(FakeCrossEncoder):
    """Goes round the contract with one score for all equal pairs."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        return super().score(dict.fromkeys(text_pairs))


class RepeatsDiffer(FakeCrossEncoder):
    """Goes round the contract with a bonus for early pairs."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        return [value - 0.001 * place for place, value in enumerate(super().score(text_pairs))]


class NoneForNothing(FakeCrossEncoder):
    """Goes round the contract where there is nothing to score."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        return super().score(text_pairs) or None  # type: ignore[return-value]  # the planted fault


class TakesBadPairs(FakeCrossEncoder):
    """Goes round the contract by scoring what cannot be scored."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        try:
            return super().score(text_pairs)
        except InvalidInputError:
            return [0.0]


class TakesBlankQueries(FakeCrossEncoder):
    """Goes round the contract for a blank query alone."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        pairs = list(text_pairs)
        return [0.0] if pairs == [("", "passage")] else super().score(pairs)


@pytest.mark.parametrize(
    ("faulty", "promise"),
    [
        (SortedScores, "change with the batch"),
        (ReversedScores, "change with the batch"),
        (StatefulScores, "change with the batch"),
        (CompanyScores, "change with the batch"),
        (PlaceScores, "change with the batch"),
        (LastScoreLost, "exactly one score for each pair"),
        (NanForBlank, "not finite"),
        (RaisesForBlank, "ZeroDivisionError"),
        (NumpyScores, "one plain float per pair"),
        (RoundedScores, "one plain float per pair"),
        (DropsRepeats, "one plain float per pair"),
        (RepeatsDiffer, "for equal pairs"),
        (NoneForNothing, "an empty list for no pairs"),
        (TakesBadPairs, "must raise an InvalidInputError"),
        (TakesBlankQueries, r"accepts \[\('', 'passage'\)\]; it must raise an InvalidInputError"),
    ],
)
def test_a_planted_fault_fails_the_check(faulty: type[FakeCrossEncoder], promise: str) -> None:
    """Each promise of the contract has a fault that the check finds and names."""
    with pytest.raises(ScoringError, match=promise):
        check_cross_encoder(faulty())


class NanPastTheChecks(FakeCrossEncoder):
    """Goes round the contract with a NaN."""

    def score(self, text_pairs: Iterable[TextPair]) -> list[float]:
        pairs = list(text_pairs)
        return [value if pair[1] else math.nan for pair, value in zip(pairs, super().score(pairs), strict=True)]


def test_a_nan_that_goes_round_the_contract_fails_the_check() -> None:
    """The check promises finite scores, so a model that overrides `score` and gives NaN fails it."""
    with pytest.raises(ScoringError, match="finite"):
        check_cross_encoder(NanPastTheChecks())
