"""Requests in every shape, what is learned from refusals, and the cut of passages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_crossrerank.cross_encoders.backends.remote.requests import (
    Requests,
    complains_of_length,
    cut_passages,
    expected_shape,
    may_be_too_long,
    refused_field,
    wants_model,
)

LONG = "word " * 2000


def requests(**settings: Any) -> Requests:
    """Requests with a few settings."""
    defaults: dict[str, Any] = {
        "shape": "documents",
        "model": None,
        "raw_scores": False,
        "max_length": None,
        "extra_body": {},
        "make_request": None,
    }
    return Requests(**{**defaults, **settings})


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({}, {"truncate_prompt_tokens": -1}),
        ({"max_length": 256}, {"truncate_prompt_tokens": 256, "max_tokens_per_doc": 256}),
        ({"max_length": 256, "shape": "text_2"}, {"truncate_prompt_tokens": 256}),
        ({"max_length": 256, "shape": "texts"}, {"truncate": True}),
    ],
)
def test_a_server_is_asked_to_cut_long_passages(settings: dict[str, Any], fields: dict[str, Any]) -> None:
    """The fields of servers that can cut are sent where a passage may be too long, and only there."""
    long = requests(**settings).body("query", ["short", LONG], 256)
    assert {name: long.get(name) for name in fields} == fields
    short = requests(**settings).body("query", ["short"], 256)
    assert not {"truncate_prompt_tokens", "max_tokens_per_doc"} & short.keys()


def test_further_fields_replace_ours() -> None:
    """`extra_body` has the last word."""
    body = requests(extra_body={"top_n": 1, "input_type": "x"}).body("query", ["a", "b"], 512)
    assert (body["top_n"], body["input_type"], body["documents"]) == (1, "x", ["a", "b"])


def test_a_request_of_the_callers_own_is_sent_as_made() -> None:
    """`make_request` gets the query and the passages and decides everything."""
    own = requests(make_request=lambda query, passages: [query, passages], extra_body={"x": 1})
    assert own.body("query", ["a", LONG], 512) == ["query", ["a", LONG]]
    assert not own.learn("field `return_documents` not permitted", own.body("query", ["a"], 512))


def test_a_field_that_a_server_refuses_by_name_is_left_out() -> None:
    """Each once, and never a field that the caller asked for."""
    learning = requests(extra_body={"top_n": 3})
    body = learning.body("query", ["a"], 512)
    assert learning.learn("Extra inputs are not permitted: return_documents", body)
    body = learning.body("query", ["a"], 512)
    assert "return_documents" not in body
    assert not learning.learn("Extra inputs are not permitted: return_documents", body)
    assert not learning.learn("unknown field top_n", body)
    assert not learning.learn("something else is wrong", body)


@pytest.mark.parametrize(
    ("shape", "text", "other"),
    [
        ("documents", "Failed to deserialize: missing field `texts` at line 1", "texts"),
        ("documents", '{"loc": ["body", "text_1"], "msg": "Field required"}', "text_2"),
        ("text_2", '{"loc": ["body", "documents"], "msg": "Field required"}', "documents"),
        ("texts", '{"loc": ["body", "model"], "msg": "Field required"}', "documents"),
        ("documents", '{"loc": ["body", "model"], "msg": "Field required"}', None),
        ("documents", "too many documents, texts are missing sense", "texts"),
        ("documents", "the texts are too long", None),
        ("texts", "missing field `texts`", None),
    ],
)
def test_a_server_says_which_shape_it_expects(shape: Any, text: str, other: str | None) -> None:
    """An error about a missing field of another shape names that shape."""
    assert expected_shape(text, shape) == other


def test_the_shape_changes_once(caplog: pytest.LogCaptureFixture) -> None:
    """A server that asks for another shape gets it, with a warning; two that contradict each other end in an error."""
    learning = requests()
    assert learning.learn("missing field `texts`", learning.body("query", ["a"], 512))
    assert learning.shape == "texts"
    assert not learning.learn("missing field `documents`", learning.body("query", ["a"], 512))
    (record,) = caplog.records
    assert "request_shape='texts'" in record.getMessage()


def test_a_server_says_that_it_wants_a_models_name() -> None:
    """Only where the request names none."""
    text = '{"loc": ["body", "model"], "msg": "Field required"}'
    assert wants_model(text, {"query": "q"})
    assert not wants_model(text, {"query": "q", "model": "m"})
    assert not wants_model("the model is busy", {"query": "q"})
    assert not wants_model(text, ["own"])


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "This model's maximum context length is 512 tokens. However, you requested 873 tokens.", True),
        (500, "input is too large to process. increase the physical batch size", True),
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 900. exceeds", True),
        (422, "max_tokens exceeded", True),
        (400, "unknown model", False),
        (500, "internal error", False),
        (401, "this key is too long", False),
    ],
)
def test_complaints_of_length_are_recognised(status: int, text: str, expected: bool) -> None:
    """In the words of vLLM, llama.cpp and others."""
    assert complains_of_length(status, text) == expected


def test_only_the_beginning_of_an_error_is_searched() -> None:
    """A server that sends megabytes of error, or a word without an end, costs no time."""
    far = 3000 * "."
    assert not complains_of_length(400, f"{far} the input is too long")
    assert not complains_of_length(400, f"max{100 * 'x'}_tokens")
    assert expected_shape(f"{far} missing field `texts`", "documents") is None
    assert not wants_model(f"{far} the model is required", {})
    assert refused_field(f"{far} unknown field top_n", {"top_n": 1}) is None


@given(
    query=st.text(max_size=30),
    passages=st.lists(st.text(max_size=400), max_size=4),
    max_length=st.integers(16, 100),
)
def test_a_cut_passage_fits(query: str, passages: list[str], max_length: int) -> None:
    """A cut keeps the beginning, cuts no passage that fits, and what is left counts as fitting."""
    cut = cut_passages(query, passages, max_length)
    for before, after in zip(passages, cut, strict=True):
        assert before.startswith(after)
        assert after == before or may_be_too_long(query, [before], max_length)
    if not may_be_too_long(query, ["x" * 24], max_length):
        assert not may_be_too_long(query, cut, max_length)
    assert cut_passages(query, cut, max_length) == cut


def test_the_rule_of_the_cut() -> None:
    """Three ASCII characters or one other character make a token."""
    assert cut_passages("", ["a" * 1000], 108) == ["a" * 300]
    assert cut_passages("", ["猫" * 1000], 108) == ["猫" * 100]
    assert cut_passages("abc" * 10, ["a" * 1000], 108) == ["a" * 270]
