"""Requests in every shape, and what is learned from refusals."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.backends.remote.requests import (
    Requests,
    expected_shape,
    refused_field,
    speaks_of_a_model,
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
    """`make_request` gets the query and the passages; only `extra_body` is added, where the body has fields."""
    fields = requests(make_request=lambda query, passages: {"q": query, "x": 0}, extra_body={"x": 1}, model="m")
    assert fields.body("query", ["a"], 512) == {"q": "query", "x": 1}
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


def test_what_was_learned_shows() -> None:
    """Whoever sent a request before something was learned can tell that the next one will differ."""
    learning = requests()
    known = learning.learned
    learning.learn("something else is wrong", learning.body("query", ["a"], 512))
    assert learning.learned == known
    learning.learn("unknown field top_n", learning.body("query", ["a"], 512))
    assert learning.learned != known


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


def test_only_the_beginning_of_an_error_is_searched() -> None:
    """A server that sends megabytes of error costs no time."""
    far = 3000 * "."
    assert expected_shape(f"{far} missing field `texts`", "documents") is None
    assert not wants_model(f"{far} the model is required", {})
    assert not speaks_of_a_model(f"{far} no such model")
    assert refused_field(f"{far} unknown field top_n", {"top_n": 1}) is None
