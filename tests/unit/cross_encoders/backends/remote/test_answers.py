"""Answers of many servers, read as scores."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

from langchain_crossrerank.cross_encoders.backends.remote.answers import (
    Answer,
    UnreadableAnswerError,
    find_complaint,
    find_results,
    read_scores,
)

SCORES = [0.25, 1.0, -2.5]

ANSWERS: dict[str, Any] = {
    "Cohere v2": {"id": "x", "results": [{"index": i, "relevance_score": s} for i, s in enumerate(SCORES)], "meta": {}},
    "vLLM": {"results": [{"index": i, "document": {"text": "t"}, "relevance_score": s} for i, s in enumerate(SCORES)]},
    "vLLM score": {"object": "list", "data": [{"index": i, "score": s} for i, s in enumerate(SCORES)]},
    "Voyage": {"object": "list", "data": [{"relevance_score": s, "index": i} for i, s in enumerate(SCORES)]},
    "Pinecone": {"model": "m", "data": [{"index": i, "document": {}, "score": s} for i, s in enumerate(SCORES)]},
    "TEI": [{"index": i, "score": s} for i, s in enumerate(SCORES)],
    "SGLang": [{"score": s, "document": "t", "index": i, "meta_info": None} for i, s in enumerate(SCORES)],
    "NVIDIA NIM": {"rankings": [{"index": i, "logit": s} for i, s in enumerate(SCORES)]},
    "DashScope": {"output": {"results": [{"index": i, "relevance_score": s} for i, s in enumerate(SCORES)]}},
    "Cloudflare": {"result": {"response": [{"id": i, "score": s} for i, s in enumerate(SCORES)]}, "success": True},
    "numbers as text": {"results": [{"index": str(i), "relevance_score": str(s)} for i, s in enumerate(SCORES)]},
    "scores in order": {"scores": SCORES},
    "a plain list": SCORES,
    "a list of lists": [[score] for score in SCORES],
    "Bedrock": {"results": [{"index": i, "relevanceScore": s} for i, s in enumerate(SCORES)]},
    "Vertex": {"records": [{"id": str(i), "score": s} for i, s in enumerate(SCORES)]},
    "sentence-transformers": [{"corpus_id": i, "score": s} for i, s in enumerate(SCORES)],
    "indexes with a point": {"results": [{"index": float(i), "score": s} for i, s in enumerate(SCORES)]},
    "an unused field": {"results": [{"index": i, "relevance_score": None, "score": s} for i, s in enumerate(SCORES)]},
    "a plain list of text": [str(score) for score in SCORES],
    "an empty list beside": {"results": [{"index": i, "score": s} for i, s in enumerate(SCORES)], "data": []},
}


@pytest.mark.parametrize("what", ANSWERS)
def test_answers_are_read(what: str) -> None:
    """Every server's way to say the same scores is understood, in any order."""
    results = find_results(ANSWERS[what])
    assert results is not None
    assert read_scores(results, 3) == dict(enumerate(SCORES))
    if isinstance(results[0], dict):
        assert read_scores(results[::-1], 3) == dict(enumerate(SCORES))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        "text",
        {},
        {"error": "no"},
        {"results": None},
        {"results": {"0": 1}},
        {"success": False, "result": None},
    ],
)
def test_an_answer_without_results_is_found(answer: Any) -> None:
    """Nothing is made up where there is no list."""
    assert find_results(answer) is None


@pytest.mark.parametrize(
    "results",
    [
        [{"index": 0, "score": 0.5}, {"index": "1", "score": 0.5}],
        [{"index": 0, "score": "0.5"}, {"index": 1, "score": 0.5}],
        [{"index": 0.0, "score": 0.5}, {"index": 1, "score": 0.5}],
        [{"index": 0.5, "score": 0.5}],
        [{"index": True, "score": 0.5}],
        [{"index": "1.0", "score": 0.5}],
        [{"index": "-1", "score": 0.5}],
        [{"index": "²", "score": 0.5}],
        [{"index": 2, "score": 0.5}],
        [{"index": 0, "score": "nan"}, {"index": 1, "score": "0.5"}],
        [{"index": 0, "score": "high"}, {"index": 1, "score": "low"}],
        [{"index": 0, "score": 0.5}, {"index": 0, "score": 0.5}],
        [{"score": 0.5}, {"score": 0.5}],
        [0.5],
        [0.5, 0.5, 0.5],
        [True, False],
        [None, None],
        [[0.5], 0.5],
        [[0.5, 0.5], [0.5, 0.5]],
        [["a"], ["b"]],
    ],
    ids=repr,
)
def test_what_is_not_clear_is_refused(results: list[Any]) -> None:
    """A mixture of text and numbers, a missing index or another length is never guessed at."""
    with pytest.raises(UnreadableAnswerError):
        read_scores(results, 2)


@pytest.mark.parametrize(
    ("payload", "text", "complaint"),
    [
        ({"results": [], "error": {"message": "not loaded"}}, "", "not loaded"),
        ({"code": 500, "data": [], "msg": "not loaded"}, "", "not loaded"),
        ({"detail": [{"loc": ["body"], "msg": "not loaded"}]}, "", "not loaded"),
        ({"error": "", "message": "not loaded"}, "", "not loaded"),
        (None, "<html><head><title>\nPlease log in </title>", "Please log in"),
        ({"results": []}, "", None),
        ({"error": {"code": 5}}, "", None),
        ([], "", None),
        (None, "busy", None),
    ],
)
def test_complaints_are_found(payload: Any, text: str, complaint: str | None) -> None:
    """In the fields that servers use for errors, and in the title of a web page."""
    assert find_complaint(payload, text) == complaint


def test_what_follows_a_packed_answer_is_counted_and_not_kept() -> None:
    """An answer may end before its server does, which can send bytes for ever."""
    received = Answer(httpx.Response(200, headers={"content-encoding": "gzip"}))
    packed = gzip.compress(b"[0.5]")
    for piece in (packed, b"x" * 1000, b"x" * 1000):
        received.add(piece, 4000)
    assert received.content == b"[0.5]"
    assert received.size == len(packed) + 2000
    assert received._unpack.unused_data == b""


def test_missing_results_are_left_to_the_caller() -> None:
    """A server may limit its results."""
    assert read_scores([{"index": 1, "score": 0.5}], 3) == {1: 0.5}
    assert read_scores([], 3) == {}
