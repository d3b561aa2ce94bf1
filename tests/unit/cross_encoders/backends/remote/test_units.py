"""The unit of a server's scores, probabilities or logits, and the scores of blank passages in it."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CascadeCrossEncoder, CrossEncoderReranker
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import ScoringError
from tests.unit.cross_encoders.backends.remote.conftest import PAIRS, SCORES, Connect, Reply, Serve, scored


def refuse_blanks(body: Any) -> Reply:
    """Answer like servers that want no empty text."""
    return scored(body) if all(text.strip() for text in body["documents"]) else (400, {"message": "empty string"})


@pytest.mark.parametrize(
    ("activation", "logits", "blank"),
    [(None, False, 0.0), ("sigmoid", False, 0.0), ("identity", True, math.nextafter(-3, -math.inf))],
)
def test_blank_passages_are_not_sent(
    activation: Any, logits: bool, blank: float, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get 0 among probabilities and a score just below the lowest of the call among logits."""
    if logits:
        monkeypatch.setitem(SCORES, "beta", -3.0)
    server = serve(refuse_blanks)
    model = connect(f"{server.url}/rerank", activation=activation)
    pairs = [("lora", "alpha"), ("lora", ""), ("lora", "beta"), ("lora", " \n")]
    expected = [0.75, blank, SCORES["beta"], blank]
    assert model.score(pairs) == expected
    assert asyncio.run(model.ascore(pairs)) == expected
    assert all(
        body["documents"] == ["alpha", "beta"] or set(body["documents"]) == {"alpha", "beta"} for body in server.bodies
    )


@pytest.mark.parametrize("activation", [None, "identity"])
def test_nothing_but_blank_passages_needs_no_server(activation: Any, connect: Connect) -> None:
    """The score is finite and nobody is asked."""
    model = connect("http://127.0.0.1:9/rerank", activation=activation)
    assert model.score([("lora", ""), ("lora", "  ")]) == [0.0, 0.0]


@pytest.mark.parametrize("activation", [None, "sigmoid", "identity"])
@pytest.mark.parametrize("score", [0.75, 0.0, -3.0])
def test_a_blank_passage_never_comes_first(
    activation: Any, score: float, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is below every other, whatever the unit and whatever its place among the candidates."""
    monkeypatch.setitem(SCORES, "alpha", score)
    reranker = CrossEncoderReranker(model=connect(f"{serve().url}/rerank", activation=activation), top_n=None)
    result = reranker.compress_documents([Document(""), Document("alpha")], "lora")
    assert [document.page_content for document in result] == ["alpha", ""]


def test_logits_are_noticed(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score outside 0 to 1 makes all of them logits, with one warning; probabilities are computed from then on."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    monkeypatch.setitem(SCORES, "beta", -2.5)
    model = connect(f"{serve().url}/rerank")
    before = model.fingerprint
    assert model.activation == "sigmoid"
    assert model.score(PAIRS) == model.score(PAIRS) == [7.5, -2.5, 0.25]
    assert model.activation == CachedCrossEncoder(model).activation == "identity"
    assert 0.99 < model.probability(7.5) < 1
    assert model.fingerprint != before
    (record,) = caplog.records
    assert "activation='identity'" in record.getMessage()


def test_an_error_of_rounding_is_no_logit(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score a little outside 0 to 1 is rounded, without a word."""
    monkeypatch.setitem(SCORES, "alpha", 1.0000001)
    monkeypatch.setitem(SCORES, "beta", -1e-7)
    model = connect(f"{serve().url}/rerank")
    assert model.score(PAIRS) == [1.0, 0.0, 0.25]
    assert model.activation == "sigmoid"
    assert caplog.records == []


def test_a_score_that_is_no_number_changes_no_unit(serve: Serve, connect: Connect) -> None:
    """The call fails, and the unit is still that of probabilities."""
    model = connect(f"{serve().url}/rerank", read_answer=lambda answer, expected: [float("nan")] * expected)
    with pytest.raises(ScoringError, match="not finite"):
        model.score(PAIRS)
    assert model.activation == "sigmoid"


def test_a_unit_that_was_given_is_kept(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's word holds, with one warning where the scores contradict it."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    model = connect(f"{serve().url}/rerank", activation="sigmoid")
    model.score(PAIRS)
    model.score(PAIRS)
    assert model.activation == "sigmoid"
    (record,) = caplog.records
    assert "activation='identity'" in record.getMessage()


def test_a_cascade_of_logits_ranks_what_it_ruled_out_last(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the sign of the scores, survivors come first."""
    for text, score in {"alpha": -2.0, "beta": -9.0, "gamma": -5.0}.items():
        monkeypatch.setitem(SCORES, text, score)
    model = connect(f"{serve().url}/rerank")
    first, second, third = CascadeCrossEncoder(model, model, keep=2).score(PAIRS)
    assert first > third > second


def test_scores_found_in_a_cache_belong_to_the_unit(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was scored while the unit turned out to be another is kept under the new unit."""
    monkeypatch.setitem(SCORES, "alpha", 7.5)
    server = serve()
    cached = CachedCrossEncoder(connect(f"{server.url}/rerank"))
    assert cached.score(PAIRS) == cached.score(PAIRS)
    assert cached.counts.hits == 3
    fresh = CachedCrossEncoder(connect(f"{server.url}/rerank"), cached.cache)
    assert fresh.score(PAIRS[1:]) == [0.5, 0.25]
    assert fresh.counts.hits == 0
