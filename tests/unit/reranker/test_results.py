"""The list that a reranker returns: order, scores, duplicates and cuts."""

from __future__ import annotations

import asyncio
import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import Field

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.errors import ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.unit.reranker.calls import Recorder, Rerank, StockCrossEncoder, make, of, texts


class Note(Document):
    """A document type of a caller's own."""

    author: str


def test_documents_come_best_first_with_score_and_initial_rank(rerank: Rerank) -> None:
    """Every call sorts by score, and writes a plain float and the place counted from 1 into the metadata."""
    result = rerank(make({"a": -1.5, "b": 0.25, "c": 3.0}), of("a", "b", "c"))
    assert texts(result) == ["c", "b", "a"]
    assert [document.metadata for document in result] == [
        {"relevance_score": 3.0, "initial_rank": 3},
        {"relevance_score": 0.25, "initial_rank": 2},
        {"relevance_score": -1.5, "initial_rank": 1},
    ]
    assert {type(document.metadata["relevance_score"]) for document in result} == {float}
    assert {type(document.metadata["initial_rank"]) for document in result} == {int}


def test_the_query_is_what_the_model_reads_first(rerank: Rerank) -> None:
    """The model gets pairs of query and passage, in this order."""
    model = FakeCrossEncoder()
    rerank(CrossEncoderReranker(model=model), of("a passage"), query="a query")
    assert model.batches == [[("a query", "a passage")]]


def test_a_stale_score_and_rank_are_overwritten(rerank: Rerank) -> None:
    """Metadata left by an earlier rerank gives way to this one's."""
    stale = Document("a", metadata={"relevance_score": 99.0, "initial_rank": 77})
    (result,) = rerank(make({"a": 0.5}), [stale])
    assert result.metadata == {"relevance_score": 0.5, "initial_rank": 1}


def test_the_callers_documents_stay_as_they_were(rerank: Rerank, documents: list[Document]) -> None:
    """Neither the list, nor a document in it, nor its metadata is changed."""
    documents[0].metadata["nested"] = {"tags": ["x"]}
    before, objects = copy.deepcopy(documents), list(documents)
    result = rerank(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=None), documents, query="LoRA")
    assert documents == before
    assert all(now is then for now, then in zip(documents, objects, strict=True))
    assert not {id(document.metadata) for document in result} & {id(document.metadata) for document in documents}


def test_id_subclass_and_other_metadata_are_kept(rerank: Rerank) -> None:
    """A document keeps its id, its class with that class's fields, and every other metadata entry."""
    note = Note(page_content="a", id="n-1", author="Ada", metadata={"source": "x.md", "tags": ["t"], "score": 7})
    (result,) = rerank(make({"a": 1.0}), [note])
    assert isinstance(result, Note)
    assert (result.id, result.author, result.page_content, result.type) == ("n-1", "Ada", "a", "Document")
    assert result.metadata == {**note.metadata, "relevance_score": 1.0, "initial_rank": 1}


@pytest.mark.parametrize("top_n", [None, 3])
def test_equal_scores_keep_the_first_stages_order(rerank: Rerank, top_n: int | None) -> None:
    """Ties are broken by the place in the first stage, before the cut."""
    result = rerank(make({"e": 1.0}, top_n=top_n), of("d", "c", "e", "b", "a"))
    assert texts(result) == ["e", "d", "c", "b", "a"][:top_n]


def test_equal_passages_are_kept_once(rerank: Rerank) -> None:
    """Of passages that differ only in whitespace, the first stage's best is scored and kept, and the rest make way."""
    recorder, model = Recorder(), FakeCrossEncoder()
    given = of("other", "the  same", "the same\n", "the same", "third", "fourth")
    result = rerank(CrossEncoderReranker(model=model, top_n=4), given, query="the same", callbacks=[recorder])
    assert [document.metadata["initial_rank"] for document in result][:1] == [2]
    assert sorted(texts(result)) == ["fourth", "other", "the  same", "third"]
    assert sum(len(batch) for batch in model.batches) == 4
    (event,) = recorder.events
    assert (event["data"]["candidates"], event["data"]["duplicates_dropped"]) == (6, 2)
    assert len(event["data"]["scores"]) == 6
    assert len(set(event["data"]["scores"][1:4])) == 1


def test_equal_texts_with_different_titles_are_different_passages(rerank: Rerank) -> None:
    """What is compared is what the model reads, so a template that shows a title tells two documents apart."""
    given = [Document("text", metadata={"title": title}) for title in ("A", "B", "A")]
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), passage_template="{title}: {page_content}")
    assert sorted(document.metadata["title"] for document in rerank(reranker, given)) == ["A", "B"]


def test_duplicates_are_kept_on_request(rerank: Rerank) -> None:
    """With `drop_duplicates=False` a repeated text is scored once and keeps every place it had."""
    model = FakeCrossEncoder()
    result = rerank(CrossEncoderReranker(model=model, drop_duplicates=False), of("same", "same", "same"))
    assert [document.metadata["initial_rank"] for document in result] == [1, 2, 3]
    assert sum(len(batch) for batch in model.batches) == 1


def test_duplicates_are_dropped_from_a_degraded_result(rerank: Rerank) -> None:
    """The first stage's order is kept without repetitions."""
    reranker = make({"b": math.nan}, on_error="keep_order")
    result = rerank(reranker, of("a", "a", "b", "c", "d"))
    assert [(document.page_content, document.metadata["initial_rank"]) for document in result] == [
        ("a", 1),
        ("b", 3),
        ("c", 4),
    ]


@pytest.mark.parametrize(("top_n", "kept"), [(None, 5), (1, 1), (3, 3), (5, 5), (50, 5)])
def test_top_n_is_the_most_documents_kept(
    rerank: Rerank, documents: list[Document], top_n: int | None, kept: int
) -> None:
    """`top_n` cuts the list, `None` keeps all, and more than there are is allowed."""
    assert len(rerank(CrossEncoderReranker(model=FakeCrossEncoder(), top_n=top_n), documents)) == kept


@pytest.mark.parametrize(
    ("threshold", "kept"), [(None, ["c", "b", "a"]), (0.0, ["c", "b"]), (0.1, ["c"]), (2.0, ["c"]), (2.1, [])]
)
def test_score_threshold_keeps_scores_that_reach_it(rerank: Rerank, threshold: float | None, kept: list[str]) -> None:
    """A score equal to the threshold stays, a lower one goes, and zero is a threshold like any other."""
    assert texts(rerank(make({"a": -1.0, "b": 0.0, "c": 2.0}, score_threshold=threshold), of("a", "b", "c"))) == kept


def test_no_candidates_do_not_touch_the_model(rerank: Rerank, tmp_path: Path) -> None:
    """An empty list gives an empty list, even where the model does not exist."""
    assert rerank(CrossEncoderReranker(model=tmp_path / "no-such-model"), []) == []


def test_documents_may_come_from_a_generator(rerank: Rerank) -> None:
    """Any iterable of documents is read once and reranked whole."""
    assert texts(rerank(make({"b": 1.0}), (document for document in of("a", "b", "c")))) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("template", "metadata", "passage"),
    [
        ("{page_content}", {}, "body"),
        ("{title}: {page_content}", {"title": "Head"}, "Head: body"),
        ("{title}: {page_content}", {}, ": body"),
        ("{title}: {page_content}", {"title": None}, ": body"),
        ("p. {page} {page_content} {tags}", {"page": 0, "tags": ["x", 1]}, "p. 0 body ['x', 1]"),
        ("{title} {page_content}", {"title": "{page_content} {x!r}"}, "{page_content} {x!r} body"),
        ("{{{title}}} {page_content}", {"title": "t"}, "{t} body"),
        ("{page_content} {page_content}", {}, "body body"),
        ("{page_content}", {"page_content": "from metadata"}, "body"),
    ],
)
def test_passage_template_fills_text_and_metadata(
    rerank: Rerank, template: str, metadata: dict[str, Any], passage: str
) -> None:
    """The model reads the filled template, a lacking field is empty, and the document keeps its own text."""
    model = FakeCrossEncoder()
    reranker = CrossEncoderReranker(model=model, passage_template=template)
    (result,) = rerank(reranker, [Document("body", metadata=metadata)])
    assert model.batches == [[("q", passage)]]
    assert result.page_content == "body"


def test_any_langchain_cross_encoder_can_rerank(rerank: Rerank) -> None:
    """A class with nothing but LangChain's `score` ranks, and its numpy floats become plain ones."""
    result = rerank(CrossEncoderReranker(model=StockCrossEncoder(), top_n=2), of("a", "aaa", "aa"))
    assert texts(result) == ["aaa", "aa"]
    assert [type(document.metadata["relevance_score"]) for document in result] == [float, float]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_raises(rerank: Rerank, score: float) -> None:
    """A broken score never decides an order: the error carries its position."""
    with pytest.raises(ScoringError) as caught:
        rerank(make({"b": score}), of("a", "b"))
    assert caught.value.positions == (1,)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_it_pipes_after_a_retriever(asynchronous: bool) -> None:
    """`{"query": ..., "documents": retriever} | reranker` reranks what the retriever found."""
    retriever: RunnableLambda[str, list[Document]] = RunnableLambda(lambda query: of(f"{query} one", f"{query} two"))
    chain = {"query": RunnablePassthrough(), "documents": retriever} | make({"q two": 1.0}, top_n=1)
    result = asyncio.run(chain.ainvoke("q")) if asynchronous else chain.invoke("q")
    assert texts(result) == ["q two"]


class Working(Document):
    """What LangChain's embedding filters hand on: a document with its vector, which cannot be serialised."""

    state: dict[str, Any] = Field(default_factory=dict)

    def to_document(self) -> Document:
        """Return the plain document."""
        return Document(page_content=self.page_content, metadata=self.metadata)


def test_a_working_copy_comes_out_as_a_plain_document(rerank: Rerank) -> None:
    """Documents of LangChain's embedding filters lose their vector and keep id and metadata."""
    given = Working(page_content="a", id="w-1", metadata={"source": "x"}, state={"embedded_doc": np.ones(3)})
    (result,) = rerank(make({"a": 1.0}), [given])
    assert type(result) is Document
    assert (result.id, result.metadata) == ("w-1", {"source": "x", "relevance_score": 1.0, "initial_rank": 1})


def test_a_query_that_is_too_long_is_marked(rerank: Rerank) -> None:
    """Documents scored by a query whose middle was left out say so, and a later rerank takes the mark away."""
    reranker = CrossEncoderReranker(model="bundled", top_n=1)
    (result,) = rerank(reranker, of("the ferry leaves at nine"), query="when does the ferry leave " * 300)
    assert result.metadata["query_truncated"] is True
    (again,) = rerank(reranker, [result], query="when does the ferry leave")
    assert "query_truncated" not in again.metadata
