"""Long passages in windows."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import FakeCrossEncoder, check_cross_encoder

QUERY = "What is LoRA?"
ANSWER = "LoRA trains two small matrices beside each frozen weight matrix."
LONG = "The ferry leaves at nine. " * 60 + ANSWER + " The weather is nice." * 60


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    """The bundled model, reading few tokens so that windows are many and small."""
    return load_cross_encoder("bundled", max_length=64)


def test_the_answer_in_the_middle_is_found(model: CrossEncoder) -> None:
    """A long passage has its best window's score, and the window's characters contain the answer."""
    windowed = WindowedCrossEncoder(model)
    (best,) = drain(windowed.score_steps([(QUERY, LONG)]))
    (cut,) = drain(model.score_steps([(QUERY, LONG)]))
    assert best.window is not None
    start, end = best.window
    assert ANSWER[:20] in LONG[start:end]
    assert best.score > cut.score
    assert cut.truncated
    assert not best.truncated


def test_every_character_that_is_a_token_is_in_a_window(model: CrossEncoder) -> None:
    """Windows overlap and cover every word."""
    parts = model._encode_windows([(QUERY, LONG)], overlap=8)
    windows = [part.window for part in parts]
    assert all(window is not None for window in windows)
    spans = [window for window in windows if window is not None]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(LONG)
    assert all(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))
    assert all(part.tokens <= model.max_length for part in parts)


def test_a_passage_that_fits_is_scored_as_always(model: CrossEncoder) -> None:
    """Short passages have no window and the same score."""
    pairs = [(QUERY, ANSWER), (QUERY, "")]
    windowed = drain(WindowedCrossEncoder(model).score_steps(pairs))
    assert [scored.window for scored in windowed] == [None, None]
    assert [scored.score for scored in windowed] == pytest.approx(model.score(pairs), abs=1e-6)


def test_metadata_tells_the_window_or_the_truncation(model: CrossEncoder) -> None:
    """The reranker passes on what a caller needs to highlight the window, or to know that the end was not read."""
    (windowed,) = CrossEncoderReranker(model=WindowedCrossEncoder(model)).compress_documents([Document(LONG)], QUERY)
    (cut,) = CrossEncoderReranker(model=model).compress_documents([Document(LONG)], QUERY)
    start, end = windowed.metadata["best_window"]
    assert "LoRA" in LONG[start:end]
    assert "truncated" not in windowed.metadata
    assert cut.metadata["truncated"] is True


def test_truncation_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A model that cuts passages says so in the log, once."""
    fresh = OnnxCrossEncoder(find_source("bundled"), max_length=64)
    with caplog.at_level(logging.WARNING):
        fresh.score([(QUERY, LONG)])
        fresh.score([(QUERY, LONG)])
    assert len([record for record in caplog.records if "WindowedCrossEncoder" in record.getMessage()]) == 1


def test_the_contract_holds_in_windows(model: CrossEncoder) -> None:
    """The contract holds for windowed models."""
    check_cross_encoder(WindowedCrossEncoder(model))


@pytest.mark.parametrize("overlap", [-1, 32, 1000, 2.5, "2", True])
def test_an_overlap_that_leaves_no_progress_is_refused(model: CrossEncoder, overlap: Any) -> None:
    """The overlap must be a whole number of tokens, and smaller than half of what the model reads."""
    with pytest.raises(InvalidInputError, match=f"overlap is {overlap!r}; pass"):
        WindowedCrossEncoder(model, overlap=overlap)


def test_a_long_query_leaves_windows_enough(model: CrossEncoder) -> None:
    """A query is cut so far that windows with their overlap can move on through the passage."""
    # A window begins one token after the other, so a passage of a few windows is long enough.
    (scored,) = drain(WindowedCrossEncoder(model, overlap=31).score_steps([("word " * 60, LONG[:400])]))
    assert scored.query_truncated
    assert scored.window is not None


def test_a_backend_without_tokens_says_so() -> None:
    """Windows need a tokenizer; the error of a backend without one says what to do."""
    with pytest.raises(InvalidInputError, match="onnx or torch"):
        WindowedCrossEncoder(FakeCrossEncoder()).score([(QUERY, LONG)])


@pytest.mark.parametrize(
    "wrap", [CachedCrossEncoder, lambda model: CascadeCrossEncoder(FakeCrossEncoder(), model)], ids=["cache", "cascade"]
)
def test_windows_that_would_bypass_a_wrapper_are_refused(wrap: Callable[[CrossEncoder], CrossEncoder]) -> None:
    """Windows would bypass a cache or a cascade inside them, and the error says what to do instead."""
    with pytest.raises(InvalidInputError, match="put the windows inside"):
        WindowedCrossEncoder(wrap(FakeCrossEncoder()))
