"""A cheap model before the full one: which pairs survive, what the others get, and how to choose `keep`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from langchain_crossrerank import CrossEncoderReranker, RelevanceGate, compare, create_rerank_retriever
from langchain_crossrerank.agents.thresholds import relevant_documents
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder, choose_keep, recall_of_cheap
from langchain_crossrerank.errors import InvalidInputError, RerankTimeoutError, ScoringError
from langchain_crossrerank.evaluation import evaluate, profile, sweep
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

NAMES = [f"p{number}" for number in range(10)]
CHEAP = {name: float(number) for number, name in enumerate(NAMES)}
FULL = {name: 100.0 - 7 * number % 10 - number / 100 for number, name in enumerate(NAMES)}
"""The cheap model likes p9 best and p0 least; the full one has another order."""


class Counting(ScriptedCrossEncoder):
    """A scripted cross-encoder that records the pairs it was asked to score."""

    def __init__(self, scores: dict[str, float], *, activation: Activation = "identity") -> None:
        super().__init__(scores)
        self.activation = activation
        self.seen: list[TextPair] = []

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.seen += [item.text_pair for item in batch]
        return super()._score_batch(batch)


class Waiting(Counting):
    """A model whose every pass blocks its thread until the test releases it."""

    def __init__(self) -> None:
        super().__init__({})
        self.max_batch_tokens = 1
        self.started, self.gate = threading.Event(), threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.started.set()
        assert self.gate.wait(30)
        return super()._score_batch(batch)


def pairs(query: str = "q", names: Sequence[str] = NAMES) -> list[TextPair]:
    """The query with each passage."""
    return [(query, name) for name in names]


def run(model: CrossEncoder, text_pairs: Sequence[TextPair]) -> list[PairScore]:
    """The complete results of scoring."""
    return drain(model.score_steps(text_pairs))


def documents(names: Sequence[str] = NAMES) -> list[Document]:
    """A document for each passage."""
    return [Document(name, id=name) for name in names]


@pytest.mark.parametrize("keep", [1, 3, 9])
def test_survivors_have_the_full_models_scores(keep: int) -> None:
    """The cheap model's best have exactly the full model's scores, and the full model reads no others."""
    full = Counting(FULL)
    scored = run(CascadeCrossEncoder(Counting(CHEAP), full, keep=keep), pairs())
    survivors = NAMES[-keep:]
    assert {name: score.score for name, score in zip(NAMES, scored, strict=True) if not score.pruned} == {
        name: FULL[name] for name in survivors
    }
    assert sorted(full.seen) == sorted(pairs(names=survivors))


@pytest.mark.parametrize("keep", [1, 3, 9])
def test_the_others_are_below_in_the_cheap_models_order(keep: int) -> None:
    """Passages that were ruled out are marked and score below every survivor, in the cheap model's order."""
    scored = run(CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=keep), pairs())
    pruned = [score.score for score in scored if score.pruned]
    assert len(pruned) == len(NAMES) - keep
    assert max(pruned) < min(score.score for score in scored if not score.pruned)
    # NAMES rises in the cheap model's eyes.
    assert pruned == sorted(set(pruned))


@pytest.mark.parametrize("lowest", [1.0, 0.5, 1e-3, 1e-12])
def test_probabilities_stay_probabilities(lowest: float) -> None:
    """If the full model's scores lie in 0..1, so do all of the cascade, and those ruled out are lowest."""
    full = Counting(dict.fromkeys(NAMES, lowest), activation="sigmoid")
    scored = run(CascadeCrossEncoder(Counting(CHEAP), full, keep=2), pairs())
    pruned = [score.score for score in scored if score.pruned]
    assert all(0 < score < lowest <= 1 for score in pruned)
    assert len(set(pruned)) == len(pruned) == 8


def test_nothing_falls_below_zero_where_zero_is_the_lowest() -> None:
    """If the lowest probability is 0, passages that were ruled out get 0 too and stay within 0..1."""
    full = Counting(dict.fromkeys(NAMES, 0.0), activation="sigmoid")
    assert {score.score for score in run(CascadeCrossEncoder(Counting(CHEAP), full, keep=2), pairs())} == {0.0}


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_few_candidates_never_meet_the_cheap_model(count: int) -> None:
    """With `keep` candidates or fewer the full model reads all, and nothing is marked."""
    cheap = Counting(CHEAP)
    scored = run(CascadeCrossEncoder(cheap, Counting(FULL), keep=5), pairs(names=NAMES[:count]))
    assert scored == [PairScore(FULL[name]) for name in NAMES[:count]]
    assert cheap.seen == []


def test_equal_pairs_count_once() -> None:
    """A repeated passage does not count again and gets the same score."""
    cheap = Counting(CHEAP)
    scored = run(CascadeCrossEncoder(cheap, Counting(FULL), keep=5), pairs(names=NAMES[:5]) * 3)
    assert scored[:5] == scored[5:10] == scored[10:]
    assert cheap.seen == []


def test_each_query_has_its_own_survivors() -> None:
    """In one call with several queries, `keep` holds for each, and small groups are read completely."""
    cheap, full = Counting(CHEAP), Counting(FULL)
    mixed = [pair for both in zip(pairs("one"), pairs("two"), strict=True) for pair in both] + pairs("few", NAMES[:2])
    scored = dict(zip(mixed, run(CascadeCrossEncoder(cheap, full, keep=3), mixed), strict=True))
    survivors = {
        query: {name for (asked, name), score in scored.items() if asked == query and not score.pruned}
        for query in ("one", "two", "few")
    }
    assert survivors == {"one": set(NAMES[-3:]), "two": set(NAMES[-3:]), "few": set(NAMES[:2])}
    assert {query for query, _ in cheap.seen} == {"one", "two"}
    for query in ("one", "two"):
        alone = run(CascadeCrossEncoder(cheap, full, keep=3), pairs(query))
        assert [scored[query, name] for name in NAMES] == alone


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_the_reranker_marks_what_was_ruled_out(way: str) -> None:
    """Documents that only the cheap model saw say `pruned: True` and come last; the others have no such key."""
    reranker = CrossEncoderReranker(model=CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=4), top_n=None)
    found = (
        await reranker.acompress_documents(documents(), "q")
        if way == "async"
        else reranker.compress_documents(documents(), "q")
    )
    names = [document.page_content for document in found]
    best = sorted(NAMES[-4:], key=lambda name: -FULL[name])
    assert names == [*best, *reversed(NAMES[:-4])]
    assert ["pruned" in document.metadata for document in found] == [False] * 4 + [True] * 6
    assert [document.metadata["relevance_score"] for document in found[:4]] == [FULL[name] for name in best]


@pytest.mark.parametrize("names", [NAMES, NAMES[:2], []], ids=["both", "full only", "none"])
def test_progress_covers_both_models(names: list[str]) -> None:
    """The share of the work done never falls, and is whole only once the full model has read its last survivor."""
    cheap, full = Counting(CHEAP), Counting(FULL)
    cheap.max_batch_tokens = full.max_batch_tokens = 1
    steps = CascadeCrossEncoder(cheap, full, keep=2).score_steps(pairs(names=names))
    done = [(share, len(full.seen)) for share in steps]
    assert done == sorted(done)
    assert [share == 1.0 for share, _ in done] == [seen == len(names[:2]) for _, seen in done]


async def test_both_ways_to_score_agree() -> None:
    """`ascore` and `score` return the same."""
    model = CascadeCrossEncoder(FakeCrossEncoder(), Counting(FULL), keep=4)
    assert await model.ascore_pairs(pairs()) == run(model, pairs())
    assert await model.ascore(pairs()) == model.score(pairs())


async def test_cancelling_stops_the_cheap_model() -> None:
    """A caller that gives up while the cheap model works stops it at the next batch; the full one never starts."""
    cheap, full = Waiting(), Counting(FULL)
    model = CascadeCrossEncoder(cheap, full, keep=2)
    task = asyncio.ensure_future(model.ascore(pairs()))
    await asyncio.to_thread(cheap.started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cheap.gate.set()
    # The worker takes turns, so this is done after the cancelled work was put away.
    assert await model.ascore(pairs("other", NAMES[:1])) == [FULL["p0"]]
    assert len(cheap.seen) == 1
    assert full.seen == pairs("other", NAMES[:1])


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_timeout_holds_for_both_models_together(way: str) -> None:
    """Time that the cheap model takes counts against the reranker's `timeout`."""
    cheap = Waiting()
    reranker = CrossEncoderReranker(model=CascadeCrossEncoder(cheap, Counting(FULL), keep=2), timeout=0.05)

    async def rerank() -> None:
        if way == "async":
            await reranker.acompress_documents(documents(), "q")
        else:
            reranker.compress_documents(documents(), "q")

    with pytest.raises(RerankTimeoutError):
        await rerank()
    cheap.gate.set()


@pytest.mark.parametrize("broken", ["cheap", "full"])
def test_a_broken_model_is_reported(broken: str) -> None:
    """A score that is not a number is an error, whichever model returned it."""
    bad = {**FULL, "p9": float("nan")}
    cheap, full = (Counting(bad), Counting(FULL)) if broken == "cheap" else (Counting(CHEAP), Counting(bad))
    with pytest.raises(ScoringError, match="not finite"):
        CascadeCrossEncoder(cheap, full, keep=3).score(pairs())


def test_a_cache_inside_works() -> None:
    """With a cache around the full model, a second call does not use the model and returns the same."""
    full = Counting(FULL)
    model = CascadeCrossEncoder(Counting(CHEAP), CachedCrossEncoder(full), keep=3)
    first = run(model, pairs())
    assert run(model, pairs()) == first
    assert len(full.seen) == 3


def test_a_cache_outside_is_refused() -> None:
    """A cascade's score depends on the other candidates, so it cannot be cached."""
    with pytest.raises(InvalidInputError, match="put the cache inside"):
        CachedCrossEncoder(CascadeCrossEncoder(Counting(CHEAP), Counting(FULL)))


def test_a_cascade_can_be_the_full_model_of_another() -> None:
    """Three steps: the first keeps five, the second two of them."""
    inner = CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=2)
    scored = run(CascadeCrossEncoder(Counting(CHEAP), inner, keep=5), pairs())
    assert [score.pruned for score in scored] == [True] * 8 + [False] * 2
    ranked = [score.score for score in scored]
    assert ranked[:8] == sorted(set(ranked[:8]))
    assert max(ranked[:8]) < min(ranked[8:])


def test_both_models_and_keep_are_in_the_fingerprint() -> None:
    """Another cheap model, full model or `keep` changes the fingerprint."""
    models = [FakeCrossEncoder(), ScriptedCrossEncoder(FULL)]
    found = {
        CascadeCrossEncoder(cheap, full, keep=keep).fingerprint
        for cheap in models
        for full in models
        for keep in (3, 4)
    }
    assert len(found) == 8
    assert repr(CascadeCrossEncoder(*models, keep=7)).endswith("keep=7)")


@pytest.mark.parametrize("keep", [0, -3])
def test_a_width_that_keeps_nothing_is_refused(keep: int) -> None:
    """At least one candidate has to survive."""
    with pytest.raises(InvalidInputError, match=f"keep is {keep}"):
        CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=keep)


def retriever(keep: int = 3) -> Any:
    """A reranking retriever over ten candidates, with a cascade."""
    first: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: documents())
    model = CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=keep)
    return create_rerank_retriever(first, model=model, top_n=5)


QUERIES, QRELS = {"q1": "one", "q2": "two"}, {"q1": {"p9": 1, "p0": 2}, "q2": {"p7": 1}}


def test_a_cascade_can_be_evaluated() -> None:
    """`evaluate` measures the order of the cascade."""
    pytest.importorskip("ir_measures", reason="needs the eval extra")
    result = evaluate(retriever(), QUERIES, QRELS, measures=["RR@10"], show_progress=False)
    order = sorted(NAMES[-3:], key=lambda name: -FULL[name])
    expected = (1 / (order.index("p9") + 1) + 1 / (order.index("p7") + 1)) / 2
    assert result.measures[0].after == pytest.approx(expected)


def first_candidates(k: int, _: str) -> list[Document]:
    """The first `k` candidates, whatever the query."""
    return documents()[:k]


def test_a_cascade_can_be_swept() -> None:
    """Each row of `sweep` equals `evaluate` at that k, although scores depend on the other candidates."""
    pytest.importorskip("ir_measures", reason="needs the eval extra")
    swept = sweep(retriever(), QUERIES, QRELS, ks=(5, 10), measure="RR@10", timed_queries=0, show_progress=False)
    for row in swept.rows:
        first: RunnableLambda[str, list[Document]] = RunnableLambda(partial(first_candidates, row.k))
        model = CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=3)
        whole = create_rerank_retriever(first, model=model, top_n=None)
        result = evaluate(whole, QUERIES, QRELS, measures=["RR@10"], show_progress=False)
        assert row.quality == pytest.approx(result.measures[0].after)


def test_a_cascade_can_be_compared() -> None:
    """`compare` shows the survivors first."""
    shown = compare(retriever(), "q").reranked
    assert [document.text for document in shown[:3]] == sorted(NAMES[-3:], key=lambda name: -FULL[name])


def test_a_cascade_can_be_profiled() -> None:
    """`profile` measures every stage."""
    result = profile(retriever(), ["q"], repeats=1, ks=(5, 10))
    assert {stage.name for stage in result.stages} == {"search", "tokenise", "forward", "select"}
    assert set(result.by_k) == {5, 10}


SAMPLES = {"one": NAMES, "two": NAMES[:4]}


def test_recall_is_the_share_that_survives() -> None:
    """For each `keep`: the mean share of the full model's best that the cheap model keeps."""
    cheap, full = Counting({"a": 3.0, "b": 2.0, "c": 1.0}), Counting({"a": 1.0, "b": 2.0, "c": 3.0})
    # The full model wants c and b; the cheap one gives a, b, c.
    assert recall_of_cheap(cheap, full, {"q": ["a", "b", "c"]}, top_n=2) == {1: 0.0, 2: 0.5, 3: 1.0}


def test_recall_is_the_mean_of_the_queries() -> None:
    """Each query counts the same, and a list loses nothing from its own length on."""
    cheap, full = Counting({"a": 3.0, "b": 2.0, "c": 1.0}), Counting({"a": 1.0, "b": 2.0, "c": 3.0})
    found = recall_of_cheap(cheap, full, {"q": ["a", "b", "c"], "r": ["c"]}, top_n=1)
    assert found == {1: 0.5, 2: 0.5, 3: 1.0}


def test_recall_of_a_model_by_itself_is_whole_from_top_n_on() -> None:
    """A cheap model with the full model's order loses nothing once it keeps `top_n`."""
    found = recall_of_cheap(Counting(FULL), Counting(FULL), SAMPLES, top_n=3)
    assert [found[keep] for keep in (1, 2, 3, 10)] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert list(found) == list(range(1, 11))


def test_recall_never_falls_with_width() -> None:
    """Keeping more never loses more, and keeping all loses nothing."""
    found = list(recall_of_cheap(Counting(CHEAP), Counting(FULL), SAMPLES, top_n=3).values())
    assert found == sorted(found)
    assert found[-1] == 1.0


def test_recall_counts_equal_passages_once() -> None:
    """A repeated passage is one candidate, also in the longest list."""
    found = recall_of_cheap(Counting(CHEAP), Counting(FULL), {"q": NAMES[:3] * 2}, top_n=1)
    assert list(found) == [1, 2, 3]


@pytest.mark.parametrize(("recall", "keep"), [(0.4, 2), (0.5, 2), (0.51, 3), (1.0, 3)])
def test_the_smallest_width_with_enough_recall_is_chosen(recall: float, keep: int) -> None:
    """`choose_keep` returns the first `keep` that reaches the share."""
    cheap, full = Counting({"a": 3.0, "b": 2.0, "c": 1.0}), Counting({"a": 1.0, "b": 2.0, "c": 3.0})
    assert choose_keep(cheap, full, {"q": ["a", "b", "c"]}, top_n=2, recall=recall) == keep


def test_the_chosen_keep_loses_nothing() -> None:
    """With the chosen `keep`, the full model's best are among the survivors."""
    keep = choose_keep(Counting(CHEAP), Counting(FULL), SAMPLES, top_n=2, recall=1.0)
    model = CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=keep)
    for query, passages in SAMPLES.items():
        scored = dict(zip(passages, run(model, pairs(query, passages)), strict=True))
        best = sorted(passages, key=lambda name: -FULL[name])[:2]
        assert sorted(passages, key=lambda name: -scored[name].score)[:2] == best


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan"), "all"])
def test_a_share_out_of_range_is_refused(recall: Any) -> None:
    """A share is above 0 and not above 1."""
    with pytest.raises(InvalidInputError, match="recall is"):
        choose_keep(Counting(CHEAP), Counting(FULL), SAMPLES, recall=recall)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ({}, "pass at least one query"),
        ({"q": []}, r"the passages of 'q' are \[\]; pass a list"),
        ({"q": ["a"], "r": []}, r"the passages of 'r' are \[\]; pass a list"),
        ({"q": "abc"}, "the passages of 'q' are 'abc'; pass a list"),
    ],
)
def test_samples_without_candidates_are_refused(samples: dict[str, Sequence[str]], reason: str) -> None:
    """No queries, a query without passages, or with a text whose characters would be passages, is refused."""
    with pytest.raises(InvalidInputError, match=reason):
        recall_of_cheap(Counting(CHEAP), Counting(FULL), samples)


@pytest.mark.parametrize("top_n", [0, 1.5, "5", True])
def test_a_number_of_documents_that_is_none_is_refused(top_n: Any) -> None:
    """`top_n` is a whole number of at least 1."""
    with pytest.raises(InvalidInputError, match=f"top_n is {top_n!r}; pass a whole number"):
        choose_keep(Counting(CHEAP), Counting(FULL), SAMPLES, top_n=top_n)


def test_what_was_ruled_out_passes_no_threshold() -> None:
    """Passages that the full model did not read reach neither a score nor a probability, however low it is."""
    cascade = CascadeCrossEncoder(Counting(CHEAP), Counting(FULL), keep=3)
    reranker = CrossEncoderReranker(model=cascade, top_n=None, score_threshold=-1e6)
    best = sorted(NAMES[-3:], key=lambda name: -FULL[name])
    kept = reranker.invoke({"query": "q", "documents": documents()})
    assert [document.id for document in kept] == best
    filled = reranker.invoke({"query": "q", "documents": documents()}, min_documents=4)
    assert [document.id for document in filled] == [*best, "p6"]
    gate = RelevanceGate(model=cascade, min_probability=0.0)
    assert gate.invoke({"query": "q", "documents": documents()})["documents"] == kept
    everything = reranker.invoke({"query": "q", "documents": documents()}, score_threshold=None)
    assert relevant_documents(everything, reranker, 0.0) == kept


def test_the_callers_own_key_passes_a_threshold() -> None:
    """A document whose own metadata says `pruned` is kept where nothing is ruled out."""
    reranker = CrossEncoderReranker(model=ScriptedCrossEncoder(FULL), top_n=None)
    ranked = reranker.invoke({"query": "q", "documents": [Document("p0", metadata={"pruned": True})]})
    assert relevant_documents(ranked, reranker, 0.5) == ranked
