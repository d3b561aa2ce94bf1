"""What holds of a rerank whatever the texts, documents and settings are."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.fault_tally import Tally

PROFILE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW = settings(PROFILE, max_examples=25)

WRITTEN = {"relevance_score", "initial_rank", "truncated", "best_window", "reranked", "rerank_error"}
"""Metadata keys that belong to the reranker."""

# `st.text()` leaves lone surrogates out; `st.characters()` has them.
any_text = st.text(st.characters(), max_size=40)
words = st.lists(st.sampled_from(["lora", "adapter", "Rank", "low-rank", "ferry", "\ud800", "🙂", "שלום"])).map(
    " ".join
)
blank = st.sampled_from(["", " ", "\t\n", "\u2003", "\u00a0"])
passages = st.one_of(any_text, words, words, blank)
queries = st.one_of(any_text, words).filter(lambda text: bool(text) and not text.isspace())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text, st.binary(max_size=4), st.dates()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
# An earlier rerank may have left its keys, and a first stage its scores.
keys = st.one_of(st.sampled_from(["source", "page", "initial_score", *sorted(WRITTEN)]), st.integers(), any_text)
metadata = st.dictionaries(keys, values, max_size=3)


class Note(Document):
    """A document type of a caller's own."""

    author: str = "someone"


@st.composite
def documents(draw: st.DrawFn, size: int = 8) -> list[Document]:
    """Draw candidates, some of them twice and some the same object twice."""
    kinds = st.sampled_from([Document, Note])
    ids = st.one_of(st.none(), st.text(max_size=3))
    one = st.builds(lambda kind, *rest: kind(rest[0], id=rest[1], metadata=rest[2]), kinds, passages, ids, metadata)
    drawn = draw(st.lists(one, max_size=size))
    return drawn + draw(st.lists(st.sampled_from(drawn), max_size=3) if drawn else st.just([]))


limits = st.fixed_dictionaries(
    {
        "top_n": st.none() | st.integers(1, 12),
        "score_threshold": st.none() | st.floats(-0.1, 1.1) | st.floats(allow_nan=False, allow_infinity=False),
        "min_documents": st.integers(0, 12),
    }
)
blends = st.fixed_dictionaries({"blend": st.sampled_from(["weighted", "rrf"]), "blend_weight": st.floats(0, 1)})


@pytest.fixture(scope="module", autouse=True)
def one_loop() -> Iterator[None]:
    """Close the event loop that all examples share."""
    yield
    loop().close()


@cache
def loop() -> asyncio.AbstractEventLoop:
    """One event loop for all examples; a new one for each would take longer than the example."""
    return asyncio.new_event_loop()


def rerank_both_ways(reranker: CrossEncoderReranker, query: str, candidates: list[Document]) -> list[Document]:
    """Rerank, see that nothing given was changed and that the asynchronous call gives the same."""
    before, held = copy.deepcopy(candidates), [id(document.metadata) for document in candidates]
    result = reranker.compress_documents(candidates, query)
    assert same(candidates, before), "the caller's documents changed"
    assert [id(document.metadata) for document in candidates] == held
    later = loop().run_until_complete(reranker.acompress_documents(candidates, query))
    assert same(candidates, before), "the caller's documents changed"
    assert same(later, result), "the asynchronous call gives something else"
    return result


def same(first: Sequence[Document], second: Sequence[Document]) -> bool:
    """Compare with types and with NaN equal to itself, which `==` does not."""
    return [(type(d), repr(d.model_dump())) for d in first] == [(type(d), repr(d.model_dump())) for d in second]


def check_each(result: list[Document], candidates: list[Document], scores: list[float]) -> list[int]:
    """Check every document kept against the candidate that it says it is, and give the places, from 0."""
    places = [document.metadata["initial_rank"] - 1 for document in result]
    assert len(set(places)) == len(places), "a candidate was given twice"
    for document, place in zip(result, places, strict=True):
        candidate = candidates[place]
        assert document is not candidate
        assert document.metadata is not candidate.metadata
        assert (type(document), document.page_content, document.id) == (
            type(candidate),
            candidate.page_content,
            candidate.id,
        )
        score = document.metadata["relevance_score"]
        assert type(score) is float
        assert math.isfinite(score)
        assert score == scores[place]
        assert not {"best_window", "reranked", "rerank_error"} & document.metadata.keys()
        kept = {key: value for key, value in document.metadata.items() if key not in WRITTEN}
        given_keys = {key: value for key, value in candidate.metadata.items() if key not in WRITTEN}
        assert repr(kept) == repr(given_keys)
    return places


def expected_number(
    scores: list[float], *, top_n: int | None, score_threshold: float | None, min_documents: int
) -> int:
    """Count what the settings keep, written down apart from the code under test."""
    number = len(scores)
    if score_threshold is not None:
        passed = len([score for score in scores if score >= score_threshold])
        number = max(passed, min(min_documents, number))
    return number if top_n is None else min(number, top_n)


@cache
def fake() -> FakeCrossEncoder:
    """One model for all examples, so that they share a thread; its batches hold a few pairs."""
    return FakeCrossEncoder(max_batch_tokens=40)


def scores_of(model: CrossEncoder, query: str, candidates: list[Document]) -> list[float]:
    """Score every candidate in a call of its own."""
    return [model.score([(query, document.page_content)])[0] for document in candidates]


@PROFILE
@given(query=queries, candidates=documents(), limit=limits)
def test_a_rerank_is_the_sorted_prefix_of_its_candidates(
    tally: Tally, query: str, candidates: list[Document], limit: dict[str, Any]
) -> None:
    """What comes back are the best candidates by their own scores, equal ones in the order in which they came."""
    tally("any text, documents and limits")
    reranker = CrossEncoderReranker(model=fake(), drop_duplicates=False, **limit)
    result = rerank_both_ways(reranker, query, candidates)
    scores = scores_of(fake(), query, candidates)
    order = sorted(range(len(candidates)), key=lambda place: (-scores[place], place))
    assert check_each(result, candidates, scores) == order[: expected_number(scores, **limit)]


@PROFILE
@given(texts=st.lists(st.sampled_from(["a b", "a  b", " a b\n", "c", "", " "]), max_size=12), limit=limits)
def test_duplicates_make_way_for_what_is_below_them(tally: Tally, texts: list[str], limit: dict[str, Any]) -> None:
    """Without repetitions the result is that of reranking the first of each passage alone."""
    tally("repeated passages")
    candidates = [Document(text, id=str(place)) for place, text in enumerate(texts)]
    firsts: dict[str, Document] = {}
    for candidate in candidates:
        firsts.setdefault(" ".join(candidate.page_content.split()), candidate)
    result = rerank_both_ways(CrossEncoderReranker(model=fake(), **limit), "a query", candidates)
    alone = rerank_both_ways(CrossEncoderReranker(model=fake(), **limit), "a query", list(firsts.values()))
    assert [document.id for document in result] == [document.id for document in alone]
    assert all(document.metadata["initial_rank"] == int(str(document.id)) + 1 for document in result)


@PROFILE
@given(
    texts=st.lists(st.sampled_from("abcdef"), max_size=20),
    scores=st.fixed_dictionaries({text: st.sampled_from([-1e300, -1.0, -0.0, 0.0, 5e-324, 1.0]) for text in "abcdef"}),
    limit=limits,
)
def test_equal_scores_keep_the_order_in_which_candidates_came(
    tally: Tally, texts: list[str], scores: dict[str, float], limit: dict[str, Any]
) -> None:
    """With few different scores among many candidates, sorting is stable and scores come back as they were given."""
    tally("ties")
    candidates = [Document(text) for text in texts]
    result = rerank_both_ways(
        CrossEncoderReranker(model=ScriptedCrossEncoder(scores), drop_duplicates=False, **limit), "q", candidates
    )
    own = [scores[text] for text in texts]
    order = sorted(range(len(texts)), key=lambda place: (-own[place], place))
    assert check_each(result, candidates, own) == order[: expected_number(own, **limit)]


@PROFILE
@given(query=queries, candidates=documents(), limit=limits, blend=blends)
def test_a_blend_keeps_as_many_and_never_passes_over_a_candidate_better_in_both(
    tally: Tally, query: str, candidates: list[Document], limit: dict[str, Any], blend: dict[str, Any]
) -> None:
    """With the first stage mixed in, nothing is lost, doubled or rescored, and better in both is never placed lower."""
    tally("blends")
    reranker = CrossEncoderReranker(model=fake(), drop_duplicates=False, **limit, **blend)
    result = rerank_both_ways(reranker, query, candidates)
    scores = scores_of(fake(), query, candidates)
    places = check_each(result, candidates, scores)
    assert len(places) == expected_number(scores, **limit)
    if blend["blend"] == "rrf" or not all("initial_score" in document.metadata for document in candidates):
        assert_no_better_in_both_below(places, scores)


def assert_no_better_in_both_below(places: list[int], scores: list[float]) -> None:
    """Of two candidates kept, one with the better first rank and no worse score must stand first."""
    for above, place in enumerate(places):
        for lower in places[above + 1 :]:
            assert not (lower < place and scores[lower] >= scores[place])


@PROFILE
@given(
    initial=st.lists(st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, 1.7e308, -1.7e308])), max_size=6),
    weight=st.floats(0, 1),
)
def test_a_weighted_blend_takes_any_number_as_the_first_stages_score(
    tally: Tally, initial: list[float], weight: float
) -> None:
    """Scores of the first stage are another program's numbers: huge, infinite or NaN, they never break a rerank."""
    tally("hostile first-stage scores")
    candidates = [Document(str(place), metadata={"initial_score": score}) for place, score in enumerate(initial)]
    reranker = CrossEncoderReranker(model=fake(), top_n=None, blend="weighted", blend_weight=weight)
    result = rerank_both_ways(reranker, "1 3", candidates)
    places = check_each(result, candidates, scores_of(fake(), "1 3", candidates))
    assert sorted(places) == list(range(len(initial)))


@PROFILE
@given(query=queries, candidates=documents(), order=st.randoms(use_true_random=False), limit=limits)
def test_the_order_of_candidates_decides_ties_only(
    tally: Tally, query: str, candidates: list[Document], order: Any, limit: dict[str, Any]
) -> None:
    """Shuffled candidates give the same scores in the same order."""
    tally("shuffled candidates")
    reranker = CrossEncoderReranker(model=fake(), drop_duplicates=False, **limit)
    shuffled = order.sample(candidates, len(candidates))
    first, second = reranker.compress_documents(candidates, query), reranker.compress_documents(shuffled, query)
    assert [d.metadata["relevance_score"] for d in first] == [d.metadata["relevance_score"] for d in second]


@PROFILE
@given(query=queries, candidates=documents(), limit=limits)
def test_reranking_again_changes_nothing(
    tally: Tally, query: str, candidates: list[Document], limit: dict[str, Any]
) -> None:
    """A result that is reranked with the same settings keeps its documents, their order and their scores."""
    tally("reranked twice")
    reranker = CrossEncoderReranker(model=fake(), drop_duplicates=False, **limit)
    once = reranker.compress_documents(candidates, query)
    again = reranker.compress_documents(once, query)
    assert [document.metadata["initial_rank"] for document in again] == list(range(1, len(once) + 1))
    assert [(d.page_content, d.metadata["relevance_score"]) for d in again] == [
        (d.page_content, d.metadata["relevance_score"]) for d in once
    ]


@cache
def bundled() -> CrossEncoder:
    """The bundled model on one thread, so that the same batch always gives the same bits."""
    return load_cross_encoder("bundled", num_threads=1)


@FEW
@given(query=queries, candidates=documents(size=5), limit=limits)
def test_the_bundled_model_keeps_the_same_promises(
    tally: Tally, query: str, candidates: list[Document], limit: dict[str, Any]
) -> None:
    """With the real model and its tokenizer, any text is scored and the result is sorted, stable and complete."""
    tally("any text on the bundled model")
    result = rerank_both_ways(CrossEncoderReranker(model=bundled(), drop_duplicates=False, **limit), query, candidates)
    scores = bundled().score([(query, document.page_content) for document in candidates])
    order = sorted(range(len(candidates)), key=lambda place: (-scores[place], place))
    assert check_each(result, candidates, scores) == order[: expected_number(scores, **limit)]
    assert scores == pytest.approx(scores_of(bundled(), query, candidates), abs=1e-4)


@FEW
@given(query=any_text, passage=passages)
def test_blank_queries_are_refused_and_all_others_scored(tally: Tally, query: str, passage: str) -> None:
    """Of any query, either it is blank and refused, or it gives one finite score."""
    tally("any query")
    reranker = CrossEncoderReranker(model=fake(), on_error="keep_order")
    if query.strip():
        assert math.isfinite(reranker.compress_documents([Document(passage)], query)[0].metadata["relevance_score"])
    else:
        with pytest.raises(ValueError, match="blank"):
            reranker.compress_documents([Document(passage)], query)
