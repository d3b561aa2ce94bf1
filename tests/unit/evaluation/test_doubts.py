"""Suspicious results: each is named with its cause and its remedy, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

pytest.importorskip("ir_measures", reason="needs the eval extra")

from langchain_crossrerank import create_rerank_retriever, load_cross_encoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import EvaluationResult, evaluate
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.evaluation.letters import QRELS, retriever, run

QUERIES = {"q1": "first query", "q2": "second query"}


def evaluated(documents: Sequence[Document], qrels: Any, queries: Any = None, **kwargs: Any) -> EvaluationResult:
    """Evaluate a first stage that finds the same documents for every query."""
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: list(documents))
    model = ScriptedCrossEncoder({document.page_content: float(i) for i, document in enumerate(documents)})
    base = create_rerank_retriever(first_stage, model=model)
    return evaluate(base, queries or QUERIES, qrels, show_progress=False, **kwargs)


def test_a_good_run_has_no_warnings() -> None:
    """Where nothing is suspicious, nothing is said."""
    assert run().warnings == []
    assert "Warning" not in run().to_text()


def test_ids_of_the_store_are_noticed() -> None:
    """Where the judged ids are in the metadata, the warning says under which key; text and HTML show it."""
    documents = [Document(name, id=f"uuid-{name}", metadata={"doc_id": name, "page": 3}) for name in ("a", "b")]
    result = evaluated(documents, {"q1": {"a": 1}, "q2": {"b": 1}})
    assert result.measures[0].before == 0
    (warning,) = result.warnings
    assert warning.startswith("No judged document was retrieved for any query. Ids found look like 'uuid-a', judged ")
    assert warning.endswith("the metadata key 'doc_id' holds judged ids: pass id_key='doc_id'.")
    assert f"Warning: {warning}" in result.to_text()
    assert "pass id_key" in result._repr_html_()
    assert evaluated(documents, {"q1": {"a": 1}, "q2": {"b": 1}}, id_key="doc_id").warnings == []


def test_ids_that_are_nowhere_are_noticed_too() -> None:
    """Without a key to name, the warning says what may have happened."""
    (warning,) = evaluated([Document("a", id="1"), Document("b", id="2")], {"q1": {"x": 1}}).warnings
    assert "if the store made ids of its own" in warning


def test_ids_of_the_store_that_are_judged_by_chance_are_noticed() -> None:
    """Where the store counts from 0 and so do the judged ids, a key that finds far more of them is named."""
    documents = [
        Document(f"text {place}", id=str(place), metadata={"doc_id": (place * 5 + 3) % 12}) for place in range(12)
    ]
    queries = {f"q{number}": f"query {number}" for number in range(12)}
    qrels = {f"q{number}": {str(number): 1} for number in range(12)}

    def perfect(query: str) -> list[Document]:
        (answer,) = (document for document in documents if str(document.metadata["doc_id"]) == query.split()[1])
        return [answer, *(document for document in documents if document is not answer)][:4]

    base = create_rerank_retriever(RunnableLambda(perfect), model=ScriptedCrossEncoder({"text 2": 1.0}))
    result = evaluate(base, queries, qrels, show_progress=False)
    (warning,) = result.warnings
    assert warning.startswith("The candidates' metadata key 'doc_id' names 12 relevant documents, and their ids only ")
    assert warning.endswith("if the store made ids of its own, pass id_key='doc_id'.")
    truth = evaluate(base, queries, qrels, id_key="doc_id", show_progress=False)
    assert truth.warnings == []
    assert truth.measures[0].before == 1


@pytest.mark.parametrize("text", ["FIRST query", "first", "A title\nFirst\nQuery"], ids=["case", "chunk", "titled"])
def test_a_query_finds_itself_in_other_case_and_in_chunks(text: str) -> None:
    """A chunk of the query's own document, named by `id_key`, is left out as the whole document is."""
    documents = [Document(text, id="0", metadata={"from": "q1"}), Document("answer", id="1", metadata={"from": "a"})]
    result = evaluated(documents, {"q1": {"a": 1}}, measures=["RR@10"], id_key="from")
    assert result.measures[0].before == 1
    assert any("found themselves" in warning for warning in result.warnings)


@pytest.mark.parametrize("grade", [None, 0])
def test_a_query_that_finds_itself_is_left_out(grade: int | None) -> None:
    """A document with the query's id and text is in neither list, and that is said."""
    documents = [Document("Title\nfirst  query", id="q1"), Document("answer", id="a"), Document("other", id="b")]
    result = evaluated(documents, {"q1": {"a": 1, **({} if grade is None else {"q1": grade})}}, measures=["RR@10"])
    assert result.measures[0].per_query == {"q1": (1.0, 1 / 2)}
    (warning,) = result.warnings
    assert warning.startswith("1 queries are documents of the corpus and found themselves")


def test_an_id_in_common_is_no_self() -> None:
    """Queries and documents may be numbered alike, and a query may be judged relevant to itself."""
    documents = [Document("something else", id="q1"), Document("answer", id="a")]
    assert evaluated(documents, {"q1": {"a": 1}}, measures=["RR@10"]).measures[0].before == 1 / 2
    judged = [Document("first query", id="q1"), Document("answer", id="a")]
    assert evaluated(judged, {"q1": {"q1": 1}}, measures=["RR@10"]).measures[0].before == 1


def test_queries_without_a_relevant_document_are_left_out() -> None:
    """As in trec_eval they are not measured; they are counted, and a collection of nothing else is refused."""
    qrels = {**QRELS, "q1": {"a": 0, "b": -1}}
    result = run(qrels=qrels)
    assert (result.queries, result.left_out) == (2, 1)
    assert set(result.texts) == {"q2", "q3"}
    assert "1 queries have no relevant document and are left out" in result.to_text()
    with pytest.raises(InvalidInputError, match="no query has a relevant document"):
        run(qrels={"q1": {"a": 0}, "q2": {}})


def test_candidates_without_text_are_counted() -> None:
    """An index of empty documents is not a bad model."""
    documents = [Document("", id="a"), Document(" \n", id="b"), Document("text", id="c")]
    assert "4 candidates have no text" in " ".join(evaluated(documents, {"q1": {"a": 1}, "q2": {"b": 1}}).warnings)


def test_passages_that_were_cut_are_counted() -> None:
    """What the model did not read is in the result, and the remedy is named."""
    documents = [Document("word " * 2000, id="a"), Document("first query", id="b")]
    first_stage: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: documents)
    base = create_rerank_retriever(first_stage, model=load_cross_encoder("bundled"))
    result = evaluate(base, QUERIES, {"q1": {"b": 1}}, show_progress=False)
    assert result.truncated == 1
    assert any(w.startswith("1 of 2 passages were longer than the model reads") for w in result.warnings)


def test_lists_that_stayed_the_same_are_noticed() -> None:
    """A model with the same score for every passage is doubted."""
    (warning,) = run(retriever(model=ScriptedCrossEncoder({}))).warnings
    assert warning.startswith("Reranking left every list as it was")
