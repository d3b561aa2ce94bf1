"""The steps after the scores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.agents.transformers import (
    BoostByMetadata,
    DocumentStep,
    DropNearDuplicates,
    LongContextOrder,
    SelectDiverse,
    recency,
    source_weight,
)
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.testing import FakeCrossEncoder

SENTENCE = "LoRA freezes the weights of the model and trains two small matrices beside each of them"
NOW = datetime(2025, 1, 1, tzinfo=UTC)


class CountingEmbeddings(Embeddings):
    """Two-dimensional vectors by the first word, and a count of the texts."""

    vectors: ClassVar = {"LoRA": [1.0, 0.0], "Adapters": [0.99, 0.1], "Bread": [0.0, 1.0]}

    def __init__(self) -> None:
        self.texts = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += len(texts)
        return [self.vectors[text.split()[0]] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def scored(*texts_and_scores: tuple[str, float]) -> list[Document]:
    """Documents with scores."""
    return [Document(text, metadata={"relevance_score": score}) for text, score in texts_and_scores]


def texts(documents: Sequence[Document]) -> list[str]:
    """The texts of documents."""
    return [document.page_content for document in documents]


def test_near_duplicates_are_dropped_and_the_best_stays() -> None:
    """A copy with another ending goes, and a text with only some words in common stays."""
    documents = scored((f"{SENTENCE}.", 0.9), (f"{SENTENCE}!\n", 0.8), ("LoRA freezes the weights.", 0.7))
    assert texts(DropNearDuplicates().invoke(documents)) == [f"{SENTENCE}.", "LoRA freezes the weights."]


@pytest.mark.parametrize("text", ["", "a", "记忆"])
def test_equal_short_texts_are_duplicates(text: str) -> None:
    """Texts shorter than a piece are compared as a whole, in any script."""
    assert texts(DropNearDuplicates().invoke([Document(text), Document(text), Document("other")])) == [text, "other"]


def test_vectors_find_other_words() -> None:
    """With embeddings, the same statement in other words is a duplicate."""
    documents = scored(("LoRA saves memory.", 0.9), ("Adapters need less storage.", 0.8), ("Bread rises.", 0.1))
    kept = DropNearDuplicates(embeddings=CountingEmbeddings()).invoke(documents)
    assert texts(kept) == ["LoRA saves memory.", "Bread rises."]


def test_vectors_of_an_earlier_filter_are_used_again() -> None:
    """Documents that LangChain's filter embedded are not embedded a second time."""
    community = pytest.importorskip("langchain_community.document_transformers", reason="needs the rag extra")
    embeddings = CountingEmbeddings()
    filtered = community.EmbeddingsRedundantFilter(
        embeddings=embeddings, similarity_threshold=0.999
    ).transform_documents(scored(("LoRA saves memory.", 0.9), ("Adapters need less storage.", 0.8)))
    assert embeddings.texts == 2
    assert len(DropNearDuplicates(embeddings=embeddings).invoke(list(filtered))) == 1
    assert embeddings.texts == 2


def test_diversity_prefers_what_is_new() -> None:
    """A repeated statement gives way to a less relevant one that says something else."""
    documents = scored((f"{SENTENCE}.", 4.0), (f"{SENTENCE}!", 3.9), ("QLoRA stores four bits.", 2.0), ("No.", -5.0))
    assert texts(SelectDiverse(top_n=2).invoke(documents)) == [f"{SENTENCE}.", "QLoRA stores four bits."]
    assert texts(SelectDiverse(top_n=2, weight=1.0).invoke(documents)) == texts(documents[:2])


def test_equal_scores_keep_their_order() -> None:
    """Without anything to choose by, the order stays."""
    documents = scored(*[(letter * 9, 0.5) for letter in "abc"])
    assert texts(SelectDiverse(top_n=3).invoke(documents)) == texts(documents)


def test_a_boost_changes_the_order_and_keeps_the_score() -> None:
    """The cross-encoder's score stays, and the new one is next to it."""
    documents = scored(("old", 0.6), ("new", 0.5))
    boosted = BoostByMetadata(boost=lambda document, score: score * (2 if document.page_content == "new" else 1))
    assert [(d.page_content, d.metadata) for d in boosted.invoke(documents)] == [
        ("new", {"relevance_score": 0.5, "boosted_score": 1.0}),
        ("old", {"relevance_score": 0.6, "boosted_score": 0.6}),
    ]
    assert "boosted_score" not in documents[0].metadata


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (datetime(2024, 1, 2, tzinfo=UTC), 0.5),
        (datetime(2024, 1, 2), 0.5),
        (date(2024, 1, 2), 0.5),
        ("2024-01-02", 0.5),
        ("2024-01-02T01:00:00+01:00", 0.5),
        (NOW.timestamp() - 365 * 86400, 0.5),
        ("2020-01-01", 0.1),
        ("2030-01-01", 1.0),
        (None, 1.0),
    ],
)
def test_recency_halves_the_score_per_half_life(value: Any, weight: float) -> None:
    """Dates are read in every usual form; the future and the undated count in full, and the floor holds."""
    boost = recency(timedelta(days=365), now=NOW, floor=0.1)
    assert boost(Document("text", metadata={"date": value}), 0.8) == pytest.approx(0.8 * weight)


def test_what_is_very_old_is_last() -> None:
    """However many half-lives old, a document with a logit below 0 has a finite score, the lowest."""
    boost = recency(timedelta(days=1), now=NOW)
    documents = [
        Document(text, metadata={"relevance_score": -2.0, "date": date(year, 1, 1)})
        for text, year in (("old", 1970), ("new", 2025))
    ]
    assert texts(BoostByMetadata(boost=boost).invoke(documents)) == ["new", "old"]


def test_a_date_that_cannot_be_read_is_an_error() -> None:
    """The message names the key and the value."""
    boost = recency(timedelta(days=1), key="published")
    with pytest.raises(InvalidInputError, match="'published' is 'last spring'"):
        boost(Document("text", metadata={"published": "last spring"}), 0.5)


def test_a_source_weighs_what_it_was_given() -> None:
    """A listed source is weighted, another is not."""
    boost = source_weight({"handbook.pdf": 1.5})
    assert boost(Document("", metadata={"source": "handbook.pdf"}), 0.4) == pytest.approx(0.6)
    assert boost(Document("", metadata={"source": "chat.txt"}), 0.4) == pytest.approx(0.4)


def test_a_higher_weight_never_lowers_a_score() -> None:
    """A logit below zero rises with a weight above one."""
    boost = source_weight({"good": 2.0, "bad": 0.5})
    good, bad = (boost(Document("", metadata={"source": source}), -4.0) for source in ("good", "bad"))
    assert bad < -4.0 < good


@pytest.mark.parametrize(
    "make",
    [
        lambda: recency(timedelta(0)),
        lambda: source_weight({"a": 0.0}),
        lambda: BoostByMetadata(boost=lambda document, score: float("nan")).invoke(scored(("a", 1.0))),
        lambda: LongContextOrder().invoke(["text"]),
        lambda: LongContextOrder().invoke([], top_n=1),
        lambda: SelectDiverse().invoke([Document("not reranked")]),
    ],
)
def test_what_cannot_be_used_is_an_error(make: Any) -> None:
    """Wrong settings, boosts and inputs are named."""
    with pytest.raises(InvalidInputError):
        make()


@pytest.mark.parametrize("count", range(6))
def test_the_best_are_at_both_ends(count: int) -> None:
    """Positions run inwards: first, last, second, last but one."""
    order = [int(text) for text in texts(LongContextOrder().invoke([Document(str(n)) for n in range(count)]))]
    assert order == [[], [0], [0, 1], [0, 2, 1], [0, 2, 3, 1], [0, 2, 4, 3, 1]][count]


@pytest.mark.parametrize("step", [SelectDiverse(top_n=9), BoostByMetadata(boost=lambda document, score: 0.0)])
def test_a_degraded_rerank_keeps_its_order(step: DocumentStep) -> None:
    """Where the model failed there are no scores, and the first stage's order stays."""
    documents = [Document(text, metadata={"relevance_score": None, "reranked": False}) for text in "ab"]
    assert step.invoke(documents) == documents


@pytest.mark.parametrize("is_async", [False, True])
async def test_steps_pipe_after_a_retriever(*, is_async: bool) -> None:
    """A retriever, near-duplicates and the order make one chain, with scores kept."""
    found = [f"{SENTENCE}.", f"{SENTENCE}!", "LoRA matrices are small.", "Bread rises."]
    base = RunnableLambda(lambda _: [Document(text) for text in found])
    retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), top_n=4)
    chain = retriever | DropNearDuplicates() | LongContextOrder()
    query = "LoRA freezes small matrices"
    documents = await chain.ainvoke(query) if is_async else chain.invoke(query)
    assert texts(documents)[1:] == ["Bread rises.", "LoRA matrices are small."]
    assert all(isinstance(document.metadata["relevance_score"], float) for document in documents)


@pytest.mark.parametrize("is_async", [False, True])
async def test_steps_work_in_a_compressor_pipeline(*, is_async: bool) -> None:
    """LangChain's pipeline takes them after the reranker."""
    pipeline = DocumentCompressorPipeline(
        transformers=[CrossEncoderReranker(model=FakeCrossEncoder(), top_n=None), DropNearDuplicates()]
    )
    documents = [Document(f"{SENTENCE}."), Document(f"{SENTENCE}!"), Document("Bread rises.")]
    if is_async:
        kept = await pipeline.acompress_documents(documents, "LoRA")
    else:
        kept = pipeline.compress_documents(documents, "LoRA")
    assert len(kept) == 2


def test_a_field_is_configurable() -> None:
    """The run configuration sets fields of a step."""
    step = SelectDiverse(top_n=1).configurable_fields(top_n=ConfigurableField(id="top_n"))
    documents = scored(("one", 1.0), ("two", 0.5))
    assert len(step.invoke(documents)) == 1
    assert len(step.invoke(documents, {"configurable": {"top_n": 2}})) == 2
