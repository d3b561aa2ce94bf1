"""One query before and after reranking: places, moves and how they are shown."""

from __future__ import annotations

import json
from html import unescape
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as StockReranker
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import Comparison, CrossEncoderReranker, compare, create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import RankedDocument
from langchain_crossrerank.testing import ScriptedCrossEncoder

LONG = "a long passage of many words that no column of a terminal has room for " * 5


def run(scores: dict[str, float], *, query: str = "q", **kwargs: Any) -> Comparison:
    """Compare passages, in the first stage's order, by the scores given for them."""
    candidates = [Document(text, id=text, metadata={"source": f"{text[:9]}.txt"}) for text in scores]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: candidates)
    return compare(create_rerank_retriever(first_stage, model=ScriptedCrossEncoder(scores), **kwargs), query)


def test_moves_say_how_each_place_changed() -> None:
    """Up is plus, down is minus, the same is `=`, and what was not kept is `dropped`."""
    comparison = run({"a": 1.0, "b": 0.0, "c": 2.0, "d": 4.0, "e": -1.0}, top_n=4)
    assert [(document.text, document.rank, document.move) for document in comparison.documents] == [
        ("a", 3, "-2"),
        ("b", 4, "-2"),
        ("c", 2, "+1"),
        ("d", 1, "+3"),
        ("e", None, "dropped"),
    ]
    assert [document.initial_rank for document in comparison.documents] == [1, 2, 3, 4, 5]
    assert [document.score for document in comparison.documents] == [1.0, 0.0, 2.0, 4.0, -1.0]
    assert [document.text for document in comparison.reranked] == ["d", "c", "a", "b"]
    assert [document.metadata for document in comparison.documents] == [{"source": f"{text}.txt"} for text in "abcde"]
    assert (comparison.query, comparison.model) == ("q", "scripted")


@pytest.mark.parametrize(
    ("initial_rank", "rank", "move"),
    [(1, 1, "="), (20, 20, "="), (4, 1, "+3"), (1, 4, "-3"), (100, 1, "+99"), (2, None, "dropped")],
)
def test_a_move_counts_places(initial_rank: int, rank: int | None, move: str) -> None:
    """A move is the initial rank minus the new one, with its sign."""
    assert RankedDocument("a", {}, initial_rank, rank, None).move == move


def test_equal_texts_keep_their_own_places() -> None:
    """Two documents with the same text keep places of their own."""
    twins: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [Document("same"), Document("same")])
    comparison = compare(create_rerank_retriever(twins, model=ScriptedCrossEncoder({}), top_n=1), "q")
    assert [document.rank for document in comparison.documents] == [1, None]


@pytest.mark.parametrize("settings", [{}, {"score_threshold": 100.0}], ids=["no candidates", "none kept"])
def test_a_query_without_results_can_be_shown(settings: dict[str, Any]) -> None:
    """Nothing found, or nothing kept, is a comparison like any other."""
    comparison = run({"a": 1.0, "b": 2.0} if settings else {}, **settings)
    assert comparison.reranked == []
    assert {document.move for document in comparison.documents} <= {"dropped"}
    assert f"{len(comparison.documents)} candidates, 0 kept by scripted" in comparison.to_text()


@pytest.mark.parametrize("width", [60, 80, 110, 160])
@pytest.mark.parametrize("count", [3, 120])
@pytest.mark.parametrize("query", ["q", LONG], ids=["short", "long"])
def test_the_text_form_keeps_to_its_width(width: int, count: int, query: str) -> None:
    """No line is wider than asked, whatever the texts, the scores, the moves and the model's name."""
    candidates = [Document(f"{number} {LONG}\n{LONG}") for number in range(count)]
    model = ScriptedCrossEncoder({candidates[-1].page_content: -11.25}, default=-100.5)
    model.name = "cross-encoder/ms-marco-MiniLM-L6-v2"
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: candidates)
    comparison = compare(create_rerank_retriever(first_stage, model=model), query)
    assert comparison.reranked[0].move == f"+{count - 1}"
    assert [line for line in comparison.to_text(width).splitlines() if len(line) > width] == []


def test_the_text_form_shows_both_lists() -> None:
    """Each row has a place of the first stage, and then the reranked document with its move and score."""
    lines = run({"alpha": 0.25, "beta": -3.5, "gamma": 9.0}, query="which letter?", top_n=2).to_text().splitlines()
    assert lines[0] == "Query: which letter?"
    assert lines[2].split() == ["#", "first", "stage", "move", "score", "reranked"]
    assert [line.split() for line in lines[4:7]] == [
        ["1", "alpha", "+2", "9.000", "gamma"],
        ["2", "beta", "-1", "0.250", "alpha"],
        ["3", "gamma"],
    ]
    assert lines[-1].startswith("3 candidates, 2 kept by scripted; first stage ")


def test_print_shows_the_text_form() -> None:
    """`str` is the text form in its usual width."""
    comparison = run({"a": 1.0})
    assert str(comparison) == comparison.to_text()


def test_to_dict_goes_through_json() -> None:
    """The plain form is JSON with all fields, and a copy of its own."""
    pytest.importorskip("sentencex", reason="needs the rag extra to find the answer")
    comparison = run({"a": 1.0, "b": 2.0}, top_n=1)
    plain = comparison.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    keys = ("text", "metadata", "initial_rank", "rank", "score", "answer", "uncut_rank")
    assert [tuple(document.items()) for document in plain["documents"]] == [
        tuple(zip(keys, values, strict=True))
        for values in (
            ("a", {"source": "a.txt"}, 1, None, 1.0, None, 2),
            ("b", {"source": "b.txt"}, 2, 1, 2.0, [0, 1], 1),
        )
    ]
    figures = {
        *("query", "model", "retrieve_ms", "rerank_ms", "top_n", "score_threshold", "min_documents", "rerank_error")
    }
    assert {key for key in plain if key != "documents"} == figures
    plain["documents"][0]["metadata"]["source"] = "changed"
    assert comparison.documents[0].metadata == {"source": "a.txt"}


def test_every_candidate_has_its_score() -> None:
    """What was not kept has its score, too, and follows what was kept, the best first."""
    comparison = run({"a": 1.0, "b": 3.0, "c": 2.0, "d": 4.0}, top_n=2, score_threshold=3.5)
    assert (comparison.top_n, comparison.score_threshold) == (2, 3.5)
    assert [(document.text, document.rank, document.score) for document in comparison.order] == [
        ("d", 1, 4.0),
        ("b", None, 3.0),
        ("c", None, 2.0),
        ("a", None, 1.0),
    ]


def test_what_was_not_kept_is_in_the_order_of_the_blend() -> None:
    """A blend orders candidates by more than their scores, also those that the threshold or `top_n` left out."""
    scores = {"a": 0.1, "b": 0.335, "c": 0.2, "d": 0.05, "e": 0.3}
    comparison = run(scores, blend="rrf", blend_weight=0.5, top_n=2)
    assert [document.text for document in comparison.order] == ["b", "a", "c", "e", "d"]
    strict = run(scores, blend="rrf", blend_weight=0.5, top_n=2, score_threshold=0.15, min_documents=1)
    assert [(document.text, document.uncut_rank) for document in strict.order] == [
        *(("b", 1), ("c", 3)),
        *(("a", 2), ("e", 4), ("d", 5)),
    ]
    assert strict.min_documents == 1


def test_a_repeated_passage_has_no_score_of_its_own() -> None:
    """A candidate that the reranker dropped because it repeats another one is not listed as a choice."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [Document(text) for text in "aba"])
    model = ScriptedCrossEncoder({"a": 2.0, "b": 1.0})
    found = compare(create_rerank_retriever(first_stage, model=model), "q")
    assert [document.score for document in found.documents] == [2.0, 1.0, None]


@pytest.fixture
def failed() -> Comparison:
    """A comparison whose reranker failed and kept the first stage's order."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [Document("This is a sentence.")])
    failing = ScriptedCrossEncoder({"This is a sentence.": float("nan")})
    return compare(create_rerank_retriever(first_stage, model=failing, on_error="keep_order"), "q")


def test_a_failing_model_has_no_scores(failed: Comparison) -> None:
    """With `on_error="keep_order"` a comparison says why it has the first stage's order, without scores."""
    assert [(document.rank, document.score, document.answer) for document in failed.documents] == [(1, None, None)]
    assert failed.rerank_error is not None
    assert failed.rerank_error.startswith("ScoringError: 'scripted' gave scores that are not finite")
    warning = f"Warning: The first stage's order was kept, because the rerank failed: {failed.rerank_error}"
    assert warning in failed.to_text()
    assert run({"a": 1.0}).rerank_error is None


def test_pages_say_that_the_rerank_failed(failed: Comparison) -> None:
    """The reason is in the notebook's form and on the page, too."""
    pytest.importorskip("jinja2", reason="needs the eval extra")
    for html in (failed._repr_html_(), failed.to_html()):
        assert f"because the rerank failed: {failed.rerank_error}" in unescape(str(html))


@pytest.mark.parametrize("find_answers", [True, False])
def test_the_sentence_that_answers_is_found(find_answers: bool) -> None:
    """Of a kept document the statement with the highest score is named by its place, unless nobody asked."""
    pytest.importorskip("sentencex", reason="needs the rag extra")
    answer, text = "The ferry leaves at nine.", "The sea is calm today. The ferry leaves at nine. Nobody knows why."
    model = ScriptedCrossEncoder({text: 2.0, answer: 3.0, "Other things are said here.": 1.0}, default=-9.0)
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(
        lambda _: [Document(text), Document("Other things are said here.")]
    )
    retriever = create_rerank_retriever(first_stage, model=model, top_n=1)
    kept, dropped = compare(retriever, "q", find_answers=find_answers).documents
    assert dropped.answer is None
    assert (kept.answer is not None) == find_answers
    assert kept.answer is None or text[slice(*kept.answer)] == answer


def test_the_first_stages_documents_stay_as_they_were() -> None:
    """The metadata shown is what the first stage gave, without the reranker's entries."""
    candidate = Document("a", metadata={"source": "a.txt"})
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [candidate])
    comparison = compare(create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({})), "q")
    comparison.documents[0].metadata["added"] = 1
    assert candidate.metadata == {"source": "a.txt"}
    assert set(comparison.documents[0].metadata) == {"source", "added"}


@pytest.mark.parametrize("query", ["", " \n", None])
def test_a_query_that_asks_nothing_is_refused(query: Any) -> None:
    """A blank query raises with its value, before anything is retrieved."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: pytest.fail("retrieved"))
    with pytest.raises(InvalidInputError) as caught:
        compare(create_rerank_retriever(first_stage, model=ScriptedCrossEncoder({})), query)
    assert f"query is {query!r}" in str(caught.value)


@pytest.mark.parametrize(
    "retriever",
    [
        RunnableLambda(lambda _: [Document("a")]),
        CrossEncoderReranker(model=ScriptedCrossEncoder({})),
        ContextualCompressionRetriever(
            base_compressor=StockReranker(model=ScriptedCrossEncoder({})),
            base_retriever=RunnableLambda(lambda _: [Document("a")]),
        ),
        None,
    ],
    ids=["runnable", "reranker", "stock compressor", "none"],
)
def test_a_retriever_without_our_reranker_is_refused(retriever: Any) -> None:
    """There is nothing to compare with, and the error says what to pass."""
    with pytest.raises(InvalidInputError, match=r"no CrossEncoderReranker.*create_rerank_retriever"):
        compare(retriever, "q")
