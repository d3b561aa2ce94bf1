"""Sentence pruning."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document

pytest.importorskip("sentencex", reason="needs the rag extra")

from sentencex import get_sentence_boundaries

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.agents.pruning import PruneSentences, find_sentences
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import ScriptedCrossEncoder
from tests.unit.held import Held

GOOD = "LoRA trains two small matrices."
FAIR = "They are merged after training."
POOR = "The weather was fine."
PASSAGE = f"{GOOD} {POOR}\nIt rained later. {FAIR}"
SCORES = {GOOD: 3.0, FAIR: 1.0, PASSAGE: 1.0}
LOW = -8.0


@pytest.fixture
def scripted() -> ScriptedCrossEncoder:
    """A model that likes two sentences and the passage that they are in."""
    return ScriptedCrossEncoder(SCORES, default=LOW)


def passage(**metadata: Any) -> Document:
    """The passage as a reranked document."""
    return Document(PASSAGE, id="p", metadata={"source": "a.txt", "relevance_score": 0.7, **metadata})


@pytest.mark.parametrize("is_async", [False, True])
async def test_sentences_far_below_the_best_are_left_out(scripted: ScriptedCrossEncoder, *, is_async: bool) -> None:
    """Kept sentences stay in order, with their places in the passage; the caller's document is not changed."""
    prune, document = PruneSentences(model=scripted, min_odds=0.1), passage(start_index=40)
    state: Any = {"query": "What is LoRA?", "documents": [document]}
    (pruned,) = await prune.ainvoke(state) if is_async else prune.invoke(state)
    assert pruned.page_content == f"{GOOD}\n{FAIR}"
    spans = pruned.metadata["kept_spans"]
    assert [PASSAGE[start:end] for start, end in spans] == [GOOD, FAIR]
    assert (pruned.id, pruned.metadata["source"], pruned.metadata["relevance_score"]) == ("p", "a.txt", 0.7)
    assert "start_index" not in pruned.metadata
    assert document.page_content == PASSAGE
    assert "kept_spans" not in document.metadata


async def test_pruning_does_not_block_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While sentences are divided and the model loads, the loop goes on; here it is the loop that lets them finish."""
    divide = Held(get_sentence_boundaries)
    load = Held(lambda settings: ScriptedCrossEncoder(SCORES, default=LOW))
    monkeypatch.setattr("sentencex.get_sentence_boundaries", divide)
    monkeypatch.setattr(loading, "_load", load)
    prune = PruneSentences(model=tmp_path, min_odds=0.1)
    task = asyncio.create_task(prune.ainvoke({"query": "What is LoRA?", "documents": [passage()]}))
    await divide.let_go()
    await load.let_go()
    (pruned,) = await task
    assert pruned.page_content == f"{GOOD}\n{FAIR}"


def test_neighbours_keep_what_is_between_them(scripted: ScriptedCrossEncoder) -> None:
    """Sentences that stood together still do, and a passage that lost nothing stays whole with its place."""
    prune = PruneSentences(model=scripted, min_odds=0.0)
    (pruned,) = prune.invoke({"query": "What is LoRA?", "documents": [passage(start_index=40)]})
    assert pruned.page_content == PASSAGE
    assert pruned.metadata["start_index"] == 40
    assert len(pruned.metadata["kept_spans"]) == 4


def test_a_passage_without_a_good_sentence_is_dropped(scripted: ScriptedCrossEncoder) -> None:
    """Values are compared over all passages, and a sentence counts less in a poor passage."""
    other = Document(f"{FAIR} {POOR}", id="other")
    prune = PruneSentences(model=scripted, min_odds=0.1)
    pruned = prune.invoke({"query": "What is LoRA?", "documents": [other, passage()]})
    assert [document.id for document in pruned] == ["p"]


def test_the_best_sentence_always_stays(scripted: ScriptedCrossEncoder) -> None:
    """Even where nothing is relevant, something is left to read."""
    prune = PruneSentences(model=ScriptedCrossEncoder({POOR: LOW + 1}, default=LOW), min_odds=1.0)
    (pruned,) = prune.invoke({"query": "Who won?", "documents": [passage()]})
    assert pruned.page_content == POOR


def test_the_budget_goes_to_the_best_sentences(scripted: ScriptedCrossEncoder) -> None:
    """Within the budget, the best sentences are kept, in the order of the text."""
    prune = PruneSentences(model=scripted, min_odds=0.0, max_tokens=10, count_tokens=lambda text: len(text.split()))
    (pruned,) = prune.invoke({"query": "What is LoRA?", "documents": [passage()]})
    assert pruned.page_content == f"{GOOD}\n{FAIR}"


def test_items_rows_and_code_are_units() -> None:
    """A list item, a table row and a piece of code are kept or left out as a whole; headings are not sentences."""
    text = "# Title\n\n- one item. With two sentences.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx = 1\n```"
    found = [text[start:end] for start, end in find_sentences(Document(text))]
    assert "- one item. With two sentences." in found
    assert any("1 | 2" in unit for unit in found)
    assert not any("Title" in unit for unit in found)


@pytest.mark.parametrize("documents", [[], [Document("")], [Document(" \n")]])
def test_nothing_to_keep_is_nothing(documents: list[Document]) -> None:
    """Documents without a sentence are dropped without an error."""
    prune = PruneSentences(model=ScriptedCrossEncoder({}), min_odds=0.1)
    assert prune.invoke({"query": "LoRA", "documents": documents}) == []


def test_it_follows_the_reranker_in_a_retriever(scripted: ScriptedCrossEncoder) -> None:
    """A pipeline of reranker and pruning is a retriever's second stage."""
    pipeline = DocumentCompressorPipeline(
        transformers=[CrossEncoderReranker(model=scripted), PruneSentences(model=scripted, min_odds=0.1)]
    )
    retriever = create_rerank_retriever(lambda query: [Document(PASSAGE)], reranker=pipeline)
    (document,) = retriever.invoke("What is LoRA?")
    assert document.page_content == f"{GOOD}\n{FAIR}"
    assert document.metadata["relevance_score"] == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneSentences(model="org/unknown"), "pass min_odds"),
        (lambda: PruneSentences(min_odds=2), "min_odds is 2"),
        (lambda: PruneSentences().invoke({"query": "q", "documents": []}, top_n=1), "no argument 'top_n'"),
        (lambda: PruneSentences().invoke({"query": " ", "documents": []}), "blank"),
    ],
)
def test_what_cannot_be_used_is_an_error(make: Any, message: str) -> None:
    """Wrong settings and inputs are named."""
    with pytest.raises(InvalidInputError, match=message):
        make()
