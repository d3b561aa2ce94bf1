"""Putting the cross-encoder and the first stage together."""

from __future__ import annotations

import math

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever
from langchain_crossrerank.blending import blend_scores, first_stage_scores, ranks_of, z_normalised
from langchain_crossrerank.metadata import INITIAL_RANK, INITIAL_SCORE, RELEVANCE_SCORE
from langchain_crossrerank.testing import ScriptedCrossEncoder


def scored(*scores: float | None) -> list[Document]:
    """Documents named a, b, c... with first-stage scores."""
    return [
        Document(chr(97 + i), metadata={} if score is None else {INITIAL_SCORE: score})
        for i, score in enumerate(scores)
    ]


def order(reranker: CrossEncoderReranker, documents: list[Document]) -> str:
    """The texts of the reranked documents, best first."""
    return "".join(document.page_content for document in reranker.compress_documents(documents, "q"))


MODEL = ScriptedCrossEncoder({"a": 0.0, "b": 1.0, "c": 2.0})


@pytest.mark.parametrize(("blend", "weight", "expected"), [
    (None, 0.0, "cba"),
    ("weighted", 1.0, "cba"),
    ("weighted", 0.0, "abc"),
    ("rrf", 1.0, "cba"),
    ("rrf", 0.0, "abc"),
])  # fmt: skip
def test_weight_moves_from_the_first_stage_to_the_cross_encoder(
    blend: str | None, weight: float, expected: str
) -> None:
    """Weight 0 is the first stage's order and 1 the cross-encoder's; without a blend the weight is nothing."""
    reranker = CrossEncoderReranker(model=MODEL, top_n=None, blend=blend, blend_weight=weight)
    assert order(reranker, scored(9.0, 5.0, 1.0)) == expected


@pytest.mark.parametrize(("spread", "expected"), [(0.1, "abc"), (10.0, "cba")])
def test_the_first_stage_decides_where_the_cross_encoder_is_unsure(spread: float, expected: str) -> None:
    """Log-odds that hardly differ leave the order to the first stage; far apart they set it."""
    model = ScriptedCrossEncoder({"a": 0.0, "b": spread, "c": 2 * spread})
    reranker = CrossEncoderReranker(model=model, top_n=None, blend="weighted", blend_weight=0.5)
    assert order(reranker, scored(9.0, 5.0, 1.0)) == expected


def test_relevance_score_stays_the_cross_encoders() -> None:
    """A blend orders; it does not change the score that a caller sees, nor what a threshold looks at."""
    reranker = CrossEncoderReranker(model=MODEL, top_n=None, blend="weighted", blend_weight=0.0, score_threshold=1.0)
    kept = reranker.compress_documents(scored(9.0, 5.0, 1.0), "q")
    assert [(d.metadata[RELEVANCE_SCORE], d.metadata[INITIAL_RANK]) for d in kept] == [(1.0, 2), (2.0, 3)]


def test_a_missing_first_stage_score_makes_ranks_count() -> None:
    """If one candidate lacks a score, ranks stand in for all of them."""
    documents = scored(9.0, None, 1.0)
    assert first_stage_scores(documents, INITIAL_SCORE) is None
    blended = blend_scores(documents, [0.0, 0.0, 0.0], blend="weighted", weight=0.5, score_key=INITIAL_SCORE)
    assert blended == sorted(blended, reverse=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5", None])
def test_unusable_first_stage_scores_are_not_used(bad: object) -> None:
    """Text, NaN and infinities in metadata are not scores."""
    documents = [Document("a", metadata={INITIAL_SCORE: 1.0}), Document("b", metadata={INITIAL_SCORE: bad})]
    assert first_stage_scores(documents, INITIAL_SCORE) is None


def test_distances_are_turned_round() -> None:
    """Scores that rise down the list are distances: smaller is better."""
    assert first_stage_scores(scored(0.1, 0.4, 0.9), INITIAL_SCORE) == [-0.1, -0.4, -0.9]
    assert first_stage_scores(scored(0.9, 0.4, 0.1), INITIAL_SCORE) == [0.9, 0.4, 0.1]
    assert first_stage_scores(scored(0.5, 0.5), INITIAL_SCORE) == [0.5, 0.5]


@pytest.mark.parametrize("scores", [(0.1, 0.4, 0.2), (0.9, 0.4, 0.5), (0.4, 0.9, 0.9, 0.1)])
def test_scores_that_go_up_and_down_make_ranks_count(scores: tuple[float, ...]) -> None:
    """In a list that was reordered, nothing says whether scores are similarities or distances."""
    documents = scored(*scores)
    assert first_stage_scores(documents, INITIAL_SCORE) is None
    blended = blend_scores(documents, [0.0] * len(scores), blend="weighted", weight=0.5, score_key=INITIAL_SCORE)
    assert blended == sorted(blended, reverse=True)


def test_z_normalised_has_mean_0_and_deviation_1() -> None:
    """Values are shifted and scaled; equal ones become 0 instead of dividing by nothing."""
    assert z_normalised([1.0, 3.0]) == [-1.0, 1.0]
    assert z_normalised([7.0, 7.0, 7.0]) == [0.0, 0.0, 0.0]


def test_ranks_keep_the_order_of_ties() -> None:
    """Of equal scores the earlier ranks first."""
    assert ranks_of([0.2, 0.9, 0.2]) == [2, 1, 3]


def test_reciprocal_rank_fusion_is_the_published_formula() -> None:
    """With equal weights the fused score is proportional to the sum of 1 / (60 + rank)."""
    blended = blend_scores(scored(3, 2, 1), [0.0, 5.0, 1.0], blend="rrf", weight=0.5, score_key=INITIAL_SCORE)
    expected = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    assert [2 * value for value in blended] == pytest.approx(expected)


def test_a_vector_store_tells_its_scores_for_a_weighted_blend() -> None:
    """The first stage's similarities arrive in metadata where the blend needs them, and only there."""
    store = InMemoryVectorStore.from_texts(["a", "b", "c"], embedding=DeterministicFakeEmbedding(size=8))
    blended = create_rerank_retriever(store, model=MODEL, top_n=2, blend="weighted")
    plain = create_rerank_retriever(store, model=MODEL, top_n=2)
    assert all(isinstance(d.metadata[INITIAL_SCORE], float) for d in blended.invoke("q"))
    assert all(INITIAL_SCORE not in d.metadata for d in plain.invoke("q"))


async def test_a_vector_store_tells_its_scores_asynchronously_too() -> None:
    """The asynchronous search gives the same documents and scores."""
    store = InMemoryVectorStore.from_texts(["a", "b", "c"], embedding=DeterministicFakeEmbedding(size=8))
    retriever = create_rerank_retriever(store, model=MODEL, top_n=2, blend="weighted")
    assert await retriever.ainvoke("q") == retriever.invoke("q")


@pytest.mark.parametrize(("least", "expected"), [(0, ""), (1, "c"), (2, "cb"), (9, "cba")])
def test_a_threshold_leaves_min_documents(least: int, expected: str) -> None:
    """However high the threshold, the best `min_documents` stay."""
    reranker = CrossEncoderReranker(model=MODEL, top_n=None, score_threshold=99.0, min_documents=least)
    assert order(reranker, scored(3, 2, 1)) == expected
