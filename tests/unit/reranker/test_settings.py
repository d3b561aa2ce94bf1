"""The fields of a reranker: their limits, their change for one call, and what is refused."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableConfig
from pydantic import ValidationError

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.reranker import RerankerOptions
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.reranker.calls import Recorder, Rerank, make, of, texts


@pytest.mark.parametrize("top_n", [0, -1, "many", 1.5])
def test_top_n_must_be_a_positive_number(top_n: object) -> None:
    """Zero, negatives and values that are not whole numbers are refused by name."""
    with pytest.raises(ValidationError, match="top_n"):
        CrossEncoderReranker(model=FakeCrossEncoder(), top_n=top_n)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "high"])
def test_score_threshold_must_be_finite(threshold: object) -> None:
    """A threshold that no score can be compared with is refused by name."""
    with pytest.raises(ValidationError, match="score_threshold"):
        CrossEncoderReranker(model=FakeCrossEncoder(), score_threshold=threshold)


@pytest.mark.parametrize("query", ["", " \n\t", None, 42, b"bytes", ["q"]])
@pytest.mark.parametrize("documents", [[], [Document("a")]], ids=["empty", "one"])
def test_a_blank_query_is_refused(rerank: Rerank, query: object, documents: list[Document]) -> None:
    """A blank query, or one that is not a string, raises with its value, with candidates and without."""
    with pytest.raises(InvalidInputError) as caught:
        rerank(make({}), documents, query=query)
    assert f"query is {query!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ([Document("a"), "a string"], "documents[1] is 'a string' of type str"),
        ([None], "documents[0] is None of type NoneType"),
        ([{"page_content": "a"}], "documents[0] is {'page_content': 'a'} of type dict"),
        ("a string", "documents is 'a string'"),
        (b"bytes", "documents is b'bytes'"),
        (Document("alone"), "documents is Document("),
        (None, "documents is None"),
        (7, "documents is 7"),
    ],
)
def test_elements_that_are_not_documents_are_refused(rerank: Rerank, documents: object, named: str) -> None:
    """The error names the position and the value of the first element that is not a document."""
    with pytest.raises(InvalidInputError) as caught:
        rerank(make({}), documents)
    assert named in str(caught.value)


@pytest.mark.parametrize("value", ["a query", None, {"query": "q"}, {"documents": []}, ["q", []], ("q", [])])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_runnable_names_an_input_of_another_shape(value: Any, asynchronous: bool) -> None:
    """What is not a dict of query and documents is shown in the error."""
    reranker = make({})
    with pytest.raises(InvalidInputError) as caught:
        asyncio.run(reranker.ainvoke(value)) if asynchronous else reranker.invoke(value)
    assert repr(value) in str(caught.value)
    assert '{"query": ..., "documents": [...]}' in str(caught.value)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_bad_input_does_not_spoil_its_batch(asynchronous: bool) -> None:
    """With `return_exceptions` the other inputs of a batch are reranked."""
    inputs: Any = [{"query": "q", "documents": of("a")}, {"query": " ", "documents": of("a")}]
    reranker = make({"a": 1.0})
    results: list[Any] = (
        asyncio.run(reranker.abatch(inputs, return_exceptions=True))
        if asynchronous
        else reranker.batch(inputs, return_exceptions=True)
    )
    assert texts(results[0]) == ["a"]
    assert isinstance(results[1], InvalidInputError)


@pytest.mark.parametrize("field", ["topn", "batch_size", "score_treshold"])
def test_an_unknown_setting_is_refused(field: str) -> None:
    """A misspelt setting raises and is not ignored."""
    with pytest.raises(ValidationError, match=field):
        CrossEncoderReranker(model=FakeCrossEncoder(), **{field: 1})


@pytest.mark.parametrize(
    "template",
    [
        "{page_content.upper} {page_content}",
        "{title.__class__}: {page_content}",
        "{tags[0]} {page_content}",
        "{page_content:>40}",
        "{page_content!r}",
        "{} {page_content}",
        "{0} {page_content}",
        "{title}",
        "no places",
        "{{page_content}}",
        "",
        "{page_content",
        "page_content}",
    ],
)
def test_a_passage_template_with_more_than_plain_names_is_refused(template: str) -> None:
    """Attributes, indexes, formats, conversions, broken braces and a lacking text are refused at construction."""
    with pytest.raises(ValidationError, match="passage_template") as caught:
        CrossEncoderReranker(model=FakeCrossEncoder(), passage_template=template)
    assert repr(template) in str(caught.value)


def test_fields_can_be_set_at_run_time() -> None:
    """LangChain's `configurable_fields` reaches `top_n`."""
    reranker = make({}).configurable_fields(top_n=ConfigurableField("top_n"))
    config: RunnableConfig = {"configurable": {"top_n": 1}}
    assert len(reranker.invoke({"query": "q", "documents": of("a", "b")}, config)) == 1
    assert len(reranker.invoke({"query": "q", "documents": of("a", "b")})) == 2


def test_other_settings_take_effect_after_use() -> None:
    """A reranker whose model settings were exchanged after use scores by the new ones."""
    reranker = CrossEncoderReranker(model="bundled")
    arguments: Any = {"query": "what is lora", "documents": of("a", "b")}
    first = reranker.invoke(arguments)[0].metadata["relevance_score"]
    logits = reranker.model_copy(update={"model_kwargs": {"activation": "identity"}})
    assert logits.invoke(arguments)[0].metadata["relevance_score"] == pytest.approx(
        math.log(first / (1 - first)), abs=1e-4
    )


def test_a_field_keeps_its_limits_when_it_is_assigned() -> None:
    """An invalid number of documents is refused on assignment, as at construction."""
    reranker = make({})
    with pytest.raises(ValueError, match="top_n"):
        reranker.top_n = -1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fields_can_be_set_for_one_call(asynchronous: bool) -> None:
    """`invoke(input, top_n=1)` holds for that call, in the trace as well, and for no other."""
    reranker, recorder = make({"b": 2.0, "c": -1.0}), Recorder()
    value: Any = {"query": "q", "documents": of("a", "b", "c")}
    config: RunnableConfig = {"callbacks": [recorder]}
    fields: dict[str, Any] = {"top_n": 2, "score_threshold": 0.5}
    result = (
        asyncio.run(reranker.ainvoke(value, config, **fields))
        if asynchronous
        else reranker.invoke(value, config, **fields)
    )
    assert texts(result) == ["b"]
    assert recorder.named("CrossEncoderReranker")["metadata"]["top_n"] == 2
    assert texts(reranker.invoke(value)) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"topn": 1}, "'topn'.*'top_n'"),
        ({"filter": {}}, "filter"),
        ({"top_n": 0}, "top_n is 0"),
        ({"top_n": "x"}, "top_n"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_field_that_cannot_be_set_for_a_call_is_refused(
    fields: dict[str, Any], named: str, asynchronous: bool
) -> None:
    """An unknown name or a bad value raises, naming it, and is not ignored."""
    value: Any = {"query": "q", "documents": of("a")}
    with pytest.raises(InvalidInputError, match=named):
        asyncio.run(make({}).ainvoke(value, **fields)) if asynchronous else make({}).invoke(value, **fields)


def test_the_typed_fields_are_the_fields() -> None:
    """The keyword arguments that type checkers know are the reranker's fields, all of them."""
    assert RerankerOptions.__optional_keys__ | {"model", "top_n"} == set(CrossEncoderReranker.model_fields) - {"name"}
