"""The contract of a cross-encoder, whatever the backend."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.cross_encoders.base import AdaptedCrossEncoder, CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, ScoringError, UnsupportedModelError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

Score = Callable[[CrossEncoder, Any], Awaitable[list[float]]]

GOOD = ("a query", "a passage")
MEGABYTE = 1 << 20


async def _score(model: CrossEncoder, text_pairs: Any) -> list[float]:
    return model.score(text_pairs)


async def _ascore(model: CrossEncoder, text_pairs: Any) -> list[float]:
    return await model.ascore(text_pairs)


@pytest.fixture(params=[_score, _ascore], ids=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, so that a promise made for one is kept by the other."""
    way: Score = request.param
    return way


class StockCrossEncoder(BaseCrossEncoder):
    """What LangChain's users have: a `score` and nothing else."""

    def __init__(self) -> None:
        self.calls: list[list[TextPair]] = []

    def score(self, text_pairs: list[TextPair]) -> Any:
        self.calls.append(list(text_pairs))
        return np.array([len(passage) for _, passage in text_pairs], dtype=np.float32)


class UntouchableCrossEncoder(FakeCrossEncoder):
    """A model that must not be asked anything."""

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        raise AssertionError(f"asked to encode {text_pairs!r}")

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        raise AssertionError(f"asked to score {batch!r}")


class BatchFault(FakeCrossEncoder):
    """A model that treats a batch with the passage "bad" in its own way; every pair is a batch of its own."""

    def __init__(self, fault: Callable[[], Any]) -> None:
        super().__init__(max_batch_tokens=1)
        self.fault = fault

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if any(item.text_pair[1] == "bad" for item in batch):
            scores: Sequence[float] = self.fault()
            return scores
        return super()._score_batch(batch)


def _raising(err: BaseException) -> Callable[[], Any]:
    def fault() -> Any:
        raise err

    return fault


async def test_scores_come_back_in_input_order(score: Score) -> None:
    """Sorting by length inside does not show outside."""
    model = FakeCrossEncoder(max_batch_tokens=40)
    pairs = [("alpha beta", "alpha " * n) for n in (30, 1, 12, 5)] + [("alpha beta", "alpha beta")]
    assert await score(model, pairs) == [model.score([pair])[0] for pair in pairs]
    assert len(model.batches) > 2


@pytest.mark.parametrize(
    ("text_pairs", "position", "value"),
    [
        pytest.param(["not a pair"], 0, "'not a pair'", id="string"),
        pytest.param("ab", 0, "'a'", id="one string for all"),
        pytest.param(GOOD, 0, "'a query'", id="one bare pair"),
        pytest.param([GOOD, None], 1, "None", id="none"),
        pytest.param([GOOD, {"query": "a"}], 1, "{'query': 'a'}", id="dict"),
        pytest.param([GOOD, ("a query",)], 1, "('a query',)", id="one element"),
        pytest.param([GOOD, GOOD, ("a", "b", "c")], 2, "('a', 'b', 'c')", id="three elements"),
        pytest.param([GOOD, ("a query", None)], 1, "None of type NoneType", id="passage none"),
        pytest.param([GOOD, ("a query", b"bytes")], 1, "b'bytes' of type bytes", id="passage bytes"),
        pytest.param([GOOD, ("a query", 3.5)], 1, "3.5 of type float", id="passage number"),
        pytest.param([GOOD, ("a query", Document("x"))], 1, "of type Document", id="passage document"),
    ],
)
async def test_a_bad_pair_is_refused_by_position_and_value(
    score: Score, text_pairs: Any, position: int, value: str
) -> None:
    """An element that is no pair of strings raises before any work, and the message says which one and what it is."""
    with pytest.raises(InvalidInputError) as raised:
        await score(UntouchableCrossEncoder(), text_pairs)
    assert f"text_pairs[{position}]" in str(raised.value)
    assert value in str(raised.value)


@pytest.mark.parametrize("query", [None, 3, b"bytes", "", " ", "\n\t\u2003"], ids=repr)
async def test_a_bad_query_is_refused_by_value(score: Score, query: Any) -> None:
    """A query that is no string, or blank, raises before any work, and the message shows it."""
    with pytest.raises(InvalidInputError, match="query") as raised:
        await score(UntouchableCrossEncoder(), [GOOD, GOOD, (query, "a passage")])
    assert repr(query) in str(raised.value)


@pytest.mark.parametrize("query", [None, " "], ids=repr)
async def test_a_bad_query_is_refused_by_position(score: Score, query: Any) -> None:
    """Among many pairs, the message says which one has the bad query."""
    with pytest.raises(InvalidInputError) as raised:
        await score(UntouchableCrossEncoder(), [GOOD, GOOD, (query, "a passage")])
    assert "text_pairs[2]" in str(raised.value)


@pytest.mark.parametrize("text_pairs", [None, 3], ids=repr)
async def test_text_pairs_that_cannot_be_iterated_are_refused(score: Score, text_pairs: Any) -> None:
    """What is no collection at all raises the same error as a bad element."""
    with pytest.raises(InvalidInputError, match=repr(text_pairs)):
        await score(UntouchableCrossEncoder(), text_pairs)


def test_an_error_message_does_not_carry_a_whole_passage() -> None:
    """A huge bad element is shown cut."""
    with pytest.raises(InvalidInputError) as raised:
        FakeCrossEncoder().score([["x" * MEGABYTE]])  # type: ignore[list-item]  # the fault under test
    assert len(str(raised.value)) < 300
    assert shorten("x" * MEGABYTE).endswith("...")


@pytest.mark.parametrize("form", [list, tuple, iter, lambda pairs: (list(pair) for pair in pairs)])
async def test_any_iterable_of_pairs_is_taken(score: Score, form: Callable[[Any], Iterable[Any]]) -> None:
    """Lists, tuples, iterators and generators of tuples or lists give the same scores."""
    pairs = [("alpha beta", "alpha"), ("alpha beta", "beta alpha"), ("gamma", "alpha")]
    assert await score(FakeCrossEncoder(), form(pairs)) == FakeCrossEncoder().score(pairs)


@pytest.mark.parametrize("nothing", [list, tuple, lambda: iter(())], ids=["list", "tuple", "iterator"])
async def test_no_pairs_give_no_scores(score: Score, nothing: Callable[[], Any]) -> None:
    """Nothing to score gives an empty list, and the model is not touched."""
    assert await score(UntouchableCrossEncoder(), nothing()) == []


async def test_equal_pairs_are_scored_once(score: Score) -> None:
    """A repeated pair costs nothing more and scores the same; another query with the same passage is another pair."""
    model = FakeCrossEncoder()
    pairs = [("alpha", "alpha beta"), ("beta", "gamma"), ("alpha", "alpha beta"), ("beta", "alpha beta")]
    scores = await score(model, pairs)
    assert scores[0] == scores[2]
    assert sorted(pair for batch in model.batches for pair in batch) == sorted(set(pairs))


async def test_blank_passages_are_scored_once(score: Score) -> None:
    """Passages of nothing but white space are one passage, the empty one."""
    model = FakeCrossEncoder()
    scores = await score(model, [("alpha", blank) for blank in ("", " ", "\n\n", "\t \u2003", "alpha")])
    assert len(set(scores[:4])) == 1
    assert sorted(pair for batch in model.batches for pair in batch) == [("alpha", ""), ("alpha", "alpha")]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=repr)
async def test_a_score_that_is_not_finite_raises_with_its_positions(score: Score, bad: float) -> None:
    """NaN and infinities raise and name every place, in the caller's order, that has one."""
    model = ScriptedCrossEncoder({"bad": bad, "a far longer passage that runs in an earlier batch": 2.0})
    passages = ["fine", "bad", "a far longer passage that runs in an earlier batch", "bad", "", "bad "]
    with pytest.raises(ScoringError, match=r"not finite at positions \[1, 3\] of 6") as raised:
        await score(model, [("query", passage) for passage in passages])
    assert raised.value.positions == (1, 3)


@pytest.mark.parametrize("scores", [[], [0.1, 0.2]], ids=["too few", "too many"])
async def test_a_wrong_number_of_scores_raises_with_the_positions(score: Score, scores: list[float]) -> None:
    """A batch with too few or too many scores raises and names the pairs it held, in the caller's order."""
    pairs = [("query", passage) for passage in ("bad", "fine", "also fine", "bad")]
    with pytest.raises(
        ScoringError, match=rf"returned {len(scores)} scores for 1 pairs at positions \[0, 3\]"
    ) as raised:
        await score(BatchFault(lambda: scores), pairs)
    assert raised.value.positions == (0, 3)


@pytest.mark.parametrize("err", [RuntimeError("boom"), MemoryError("full"), KeyError("logits")], ids=repr)
async def test_a_model_that_raises_is_a_scoring_error(score: Score, err: Exception) -> None:
    """Whatever the model raises becomes one error type that keeps the cause and names the pairs."""
    pairs = [("query", passage) for passage in ("fine", "bad", "also fine", "bad")]
    with pytest.raises(ScoringError, match=type(err).__name__) as raised:
        await score(BatchFault(_raising(err)), pairs)
    assert raised.value.__cause__ is err
    assert raised.value.positions == (1, 3)


@pytest.mark.parametrize("scores", [None, ["high"], [None], [[0.1, 0.2]]], ids=repr)
async def test_scores_that_are_no_numbers_are_a_scoring_error(score: Score, scores: Any) -> None:
    """A model that gives something else than numbers raises with the pairs, never a bare TypeError."""
    with pytest.raises(ScoringError) as raised:
        await score(BatchFault(lambda: scores), [("query", "fine"), ("query", "bad")])
    assert raised.value.positions == (1,)


async def test_a_tokenizer_that_raises_is_a_scoring_error(score: Score) -> None:
    """A failure while pairs are encoded is the same error as one while they are scored."""

    class BrokenTokenizer(FakeCrossEncoder):
        def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
            raise RuntimeError("tokenizer")

    with pytest.raises(ScoringError) as raised:
        await score(BrokenTokenizer(), [GOOD])
    assert isinstance(raised.value.__cause__, RuntimeError)


async def test_errors_of_this_package_pass_unwrapped(score: Score) -> None:
    """A backend that says what is wrong is not overruled."""
    err = UnsupportedModelError("an embedding model")
    with pytest.raises(UnsupportedModelError) as raised:
        await score(BatchFault(_raising(err)), [("query", "bad")])
    assert raised.value is err


def test_an_interrupt_is_not_taken_for_a_failure_of_the_model() -> None:
    """Ctrl-C stops scoring as Ctrl-C."""
    interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as raised:
        BatchFault(_raising(interrupt)).score([("query", "bad")])
    assert raised.value is interrupt


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("lone \ud800 surrogate", id="lone high surrogate"),
        pytest.param("\udfff", id="lone low surrogate"),
        pytest.param("🙂👩‍👩‍👧‍👦🏳️‍🌈", id="emoji"),
        pytest.param("שלום עולם \u202etxt", id="right to left"),
        pytest.param("a\u0000b\ufeff\uffff", id="control characters"),
        pytest.param("x" * MEGABYTE, id="one word of 1 MB"),
        pytest.param("word " * (MEGABYTE // 5), id="1 MB"),
    ],
)
async def test_odd_texts_are_scored(score: Score, text: str) -> None:
    """Any string is a passage and, if not blank, a query; the backend sees only text that can be encoded."""
    model = FakeCrossEncoder()
    scores = await score(model, [("query", text), (text, "a passage")])
    assert [type(value) for value in scores] == [float, float]
    assert all(part.encode() for batch in model.batches for pair in batch for part in pair)


async def test_a_stock_cross_encoder_gets_the_same_checks(score: Score) -> None:
    """Any `BaseCrossEncoder` is brought under the contract: order, plain floats, one call a batch, equal pairs once."""
    stock = StockCrossEncoder()
    model = AdaptedCrossEncoder(stock, max_batch_tokens=8)
    passages = ["one", "a rather long passage of some words", "", "one", "three"]
    scores = await score(model, [("q", passage) for passage in passages])
    assert scores == [3.0, 35.0, 0.0, 3.0, 5.0]
    assert {type(value) for value in scores} == {float}
    assert sorted(pair for call in stock.calls for pair in call) == sorted({("q", passage) for passage in passages})
    assert len(stock.calls) > 1
    with pytest.raises(InvalidInputError):
        await score(model, [("q", None)])


async def test_a_stock_cross_encoder_that_fails_is_a_scoring_error(score: Score) -> None:
    """What another's model raises is kept as the cause, under the name of that model."""

    class Broken(StockCrossEncoder):
        model_name = "somebody/else"

        def score(self, text_pairs: list[TextPair]) -> list[float]:
            raise ValueError("no")

    with pytest.raises(ScoringError, match="somebody/else") as raised:
        await score(AdaptedCrossEncoder(Broken()), [GOOD])
    assert isinstance(raised.value.__cause__, ValueError)


def test_only_foreign_models_are_wrapped() -> None:
    """A model of this package is given back as it is, any other is wrapped and named by its class."""
    ours, stock = FakeCrossEncoder(), StockCrossEncoder()
    assert as_cross_encoder(ours) is ours
    wrapped = as_cross_encoder(stock)
    assert isinstance(wrapped, AdaptedCrossEncoder)
    assert (wrapped.model, wrapped.name, wrapped.backend) == (stock, "StockCrossEncoder", "adapted")


@pytest.mark.parametrize(
    "model", ["bundled", Path("folder"), None, object(), FakeCrossEncoder], ids=lambda model: type(model).__name__
)
def test_what_is_not_a_model_is_refused_at_once(model: Any) -> None:
    """A name, a folder and whatever else has no scores raise where they are passed, with what to pass instead."""
    with pytest.raises(InvalidInputError, match=r"^model is .*load_cross_encoder"):
        as_cross_encoder(model)
    with pytest.raises(InvalidInputError, match="load_cross_encoder"):
        CachedCrossEncoder(model)


def test_the_error_for_an_address_hides_its_key() -> None:
    """An address passed for a model is shown without the secrets in it."""
    with pytest.raises(InvalidInputError) as raised:
        as_cross_encoder("https://rerank.example/v1?key=hunter2")  # type: ignore[arg-type]  # what the test is about
    assert "hunter2" not in str(raised.value)


def test_steps_yield_between_batches() -> None:
    """Between two yields at most one batch is scored, so others can have their turn."""
    model = FakeCrossEncoder(max_batch_tokens=1)
    done = [len(model.batches) for _ in model.score_steps([("q", str(n)) for n in range(5)])]
    assert done == [0, 1, 2, 3, 4, 5]


def test_steps_encode_a_bounded_number_of_pairs() -> None:
    """Encoding many pairs is cut into steps too."""

    class Recording(FakeCrossEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.encoded: list[int] = []

        def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
            self.encoded.append(len(text_pairs))
            return super()._encode(text_pairs)

    model = Recording()
    done = [sum(model.encoded) for _ in model.score_steps([("q", str(n)) for n in range(200)])]
    assert max(model.encoded) <= 64
    assert done[: len(model.encoded)] == [64, 128, 192, 200]


def test_steps_that_are_closed_do_no_more_work() -> None:
    """A caller who gives up stops the work at the step it is in."""
    model = FakeCrossEncoder(max_batch_tokens=1)
    steps = model.score_steps([("q", str(n)) for n in range(5)])
    next(steps)
    next(steps)
    steps.close()
    assert len(model.batches) == 1


def test_steps_return_what_is_known_beside_the_score() -> None:
    """The steps' result has a `PairScore` for each pair, in the caller's order."""
    pairs = [("alpha", "beta"), ("alpha", "alpha " * 50)]
    results = drain(FakeCrossEncoder().score_steps(pairs))
    assert results == [PairScore(score) for score in FakeCrossEncoder().score(pairs)]


@pytest.mark.parametrize(("logit", "expected"), [(0.0, 0.5), (1000.0, 1.0), (-1000.0, 0.0), (2.0, 0.8807970779778823)])
def test_a_probability_is_the_sigmoid_of_a_logit(logit: float, expected: float) -> None:
    """Logits map to 0..1 without overflow, and a score that is a probability already stays."""
    assert sigmoid(logit) == pytest.approx(expected)
    assert ScriptedCrossEncoder({}).probability(logit) == pytest.approx(expected)
    assert FakeCrossEncoder().probability(expected) == expected


@pytest.mark.parametrize(("setting", "value"), [("name", "other"), ("activation", "identity"), ("max_length", 64)])
def test_whatever_changes_scores_changes_the_fingerprint(setting: str, value: object) -> None:
    """Two models that may score a pair otherwise have different fingerprints, equal ones have the same."""
    model = FakeCrossEncoder()
    assert model.fingerprint == FakeCrossEncoder().fingerprint
    setattr(model, setting, value)
    assert model.fingerprint != FakeCrossEncoder().fingerprint


def test_repr_shows_what_decides_the_scores() -> None:
    """`repr` names the model, its backend, unit and limits."""
    expected = "FakeCrossEncoder('fake', backend='fake', activation='sigmoid', max_length=512, max_batch_tokens=7)"
    assert repr(FakeCrossEncoder(max_batch_tokens=7)) == expected


class WordReader(FakeCrossEncoder):
    """A model whose tokens are words, and which notes what it was given to encode."""

    max_length = 16
    _knows_tokens = True
    _frame_tokens = 3

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[TextPair] = []

    def _query_spans(self, query: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", query)]

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        self.encoded += text_pairs
        return super()._encode(text_pairs)


async def test_a_long_query_is_cut_before_it_is_encoded(score: Score, caplog: pytest.LogCaptureFixture) -> None:
    """A query that takes more than half of the tokens loses its middle, on any backend; a warning says so once."""
    model = WordReader()
    long = " ".join(f"w{number}" for number in range(50))
    with caplog.at_level(logging.WARNING):
        scores = await score(model, [(long, "w0 w49"), ("w0", "w0 w49"), (long, "other")])
        await score(model, [(long + " more", "w0")])
    assert {query for query, _ in model.encoded} == {
        "w0 w1 w2 w3 ... w47 w48 w49",
        "w0",
        "w0 w1 w2 w3 ... w48 w49 more",
    }
    assert scores[0] > scores[2]
    assert [record.getMessage().count("its middle was cut out") for record in caplog.records] == [1]


def test_a_cut_query_is_marked() -> None:
    """Each score says whether its query was cut, also if a short query equals what is left of a long one."""
    long = " ".join(f"w{number}" for number in range(50))
    queries = [long, "w0 w1 w2 w3 ... w47 w48 w49", "w0"]
    results = drain(WordReader().score_steps([(query, "w0") for query in queries]))
    assert [result.query_truncated for result in results] == [True, False, False]
    assert results[0].score == results[1].score


async def test_a_long_query_is_refused_if_asked(score: Score) -> None:
    """With `long_query="error"` a query is read whole as long as the passage has one token, and refused beyond."""
    model = WordReader()
    model.long_query = "error"
    await score(model, [("w " * 12, "passage")])
    assert model.encoded[0][0] == "w " * 12
    with pytest.raises(InvalidInputError, match="13 tokens, and 12 fit into the 16"):
        await score(model, [("w " * 13, "passage")])


async def test_a_huge_passage_is_cut_before_it_is_encoded(score: Score) -> None:
    """Of a megabyte the tokenizer gets what may be read, unless the model reads passages whole."""
    model = WordReader()
    await score(model, [("query", "word " * 200_000)])
    assert len(model.encoded[0][1]) < 500
    model._reads_whole_passages = True
    await score(model, [("query", "word " * 200_000)])
    assert len(model.encoded[1][1]) == len("word " * 200_000)


def test_a_limit_below_the_tokens_around_a_pair_is_refused() -> None:
    """A `max_length` that has no token for the passage raises whatever the query."""
    model = WordReader()
    model.max_length = 3
    with pytest.raises(InvalidInputError, match="max_length is 3"):
        model.score([("w", "passage")])
