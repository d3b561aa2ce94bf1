"""The time of each stage: what is counted where, with a clock that the stages themselves move."""

from __future__ import annotations

import importlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from langchain_crossrerank import (
    CrossEncoder,
    CrossEncoderReranker,
    WrapperCrossEncoder,
    create_rag_chain,
    create_rerank_retriever,
    load_cross_encoder,
)
from langchain_crossrerank.candidates import Candidates
from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, PairScore, TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.evaluation import ProfileResult, StageTimes, profile
from langchain_crossrerank.reranker import Report
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

STAGES = ["search", "tokenise", "forward", "select"]


class Clock:
    """A clock that only moves when a stage moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def spend(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000


class CountingEncoder(ScriptedCrossEncoder):
    """A scripted cross-encoder that counts the pairs it scored, and takes a set time."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__({})
        self.clock = clock or Clock()
        self.pairs: list[TextPair] = []

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        self.clock.spend(1)
        return super()._encode(text_pairs)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.clock.spend(3)
        self.pairs += [item.text_pair for item in batch]
        return super()._score_batch(batch)


class SlowSelection(CrossEncoderReranker):
    """A reranker that takes two milliseconds to sort."""

    clock: Any = None

    def _select(
        self, candidates: Candidates, model: CrossEncoder, scores: Sequence[PairScore]
    ) -> tuple[list[Document], Report]:
        self.clock.spend(2)
        return super()._select(candidates, model, scores)


def first_stage(count: int = 12) -> RunnableLambda[str, list[Document]]:
    return RunnableLambda(lambda _: [Document(f"passage {number}") for number in range(count)])


def retriever(count: int = 12, model: Any = None, **kwargs: Any) -> ContextualCompressionRetriever:
    return create_rerank_retriever(first_stage(count), model=model or ScriptedCrossEncoder({}), **kwargs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that `profile` reads, instead of the computer's."""
    clock = Clock()
    # The package's attribute of this name is the function.
    monkeypatch.setattr(importlib.import_module("langchain_crossrerank.evaluation.timing"), "time", clock)
    return clock


def timed(
    clock: Clock, search: Callable[[str], float] = lambda _: 4, model: CrossEncoder | None = None
) -> ContextualCompressionRetriever:
    """Make a retriever whose search takes what `search` says, tokenising 1, a forward pass 3 and sorting 2 ms."""

    def find(query: str) -> list[Document]:
        clock.spend(search(query))
        return [Document(f"passage {number}") for number in range(12)]

    reranker = SlowSelection(model=model or CountingEncoder(clock), top_n=2, clock=clock)
    return create_rerank_retriever(RunnableLambda(find), reranker=reranker)


class FakeKeepingEncoder(ScriptedCrossEncoder):
    """A cross-encoder that keeps what it encodes, and notes the passages that it had kept."""

    def __init__(self) -> None:
        super().__init__({})
        self.kept: set[str] = set()
        self.found: list[str] = []

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        self.found += [passage for _, passage in text_pairs if passage in self.kept]
        self.kept |= {passage for _, passage in text_pairs}
        return super()._encode(text_pairs)

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        return self._encode(text_pairs)


@pytest.mark.parametrize("wrap", [lambda model: model, WrapperCrossEncoder, partial(WindowedCrossEncoder, overlap=8)])
def test_what_a_backend_keeps_of_passages_saves_no_time(wrap: Callable[[CrossEncoder], CrossEncoder]) -> None:
    """Whatever was scored before, and however often it is timed, each passage is new to the backend."""
    backend = FakeKeepingEncoder()
    base = retriever(model=wrap(backend))
    base.invoke("a")
    for _ in range(2):
        profile(base, ["a", "b"], repeats=2, ks=(5, 12))
    assert backend.found == []


def test_what_a_passage_cache_keeps_saves_no_time() -> None:
    """The bundled model reads each passage again, as it reads one that it has not seen."""
    shared = load_cross_encoder("bundled", passage_cache="20MB")
    model = pickle.loads(pickle.dumps(shared))
    profile(retriever(2, model), ["a", "b"], repeats=2, ks=(2,))
    assert model.passage_counts == (0, 2 + 2 * 2 * (2 + 2))


def test_the_stages_without_a_chain() -> None:
    """Search, tokenising, forward passes and selection come in this order, and their shares add up to 1."""
    result = profile(retriever(), ["a", "b"], repeats=2)
    assert [stage.name for stage in result.stages] == STAGES
    assert sum(stage.share for stage in result.stages) == pytest.approx(1)
    assert all(0 <= stage.p50_ms <= stage.p95_ms and 0 <= stage.share <= 1 for stage in result.stages)
    assert (result.queries, result.repeats, result.model) == (2, 2, "scripted")


def test_a_stage_has_the_time_that_it_took(clock: Clock) -> None:
    """What the search, the tokeniser, the model and the sorting take is counted where it belongs."""
    result = profile(timed(clock), ["a", "b"], repeats=3, ks=())
    assert {stage.name: stage.p50_ms for stage in result.stages} == pytest.approx(
        {"search": 4, "tokenise": 1, "forward": 3, "select": 2}
    )
    assert [stage.share for stage in result.stages] == pytest.approx([0.4, 0.1, 0.3, 0.2])


def test_both_models_of_a_cascade_are_timed(clock: Clock) -> None:
    """What the cheap model takes is tokenising and forward passes, like what the full one takes."""
    cascade = CascadeCrossEncoder(CountingEncoder(clock), CachedCrossEncoder(CountingEncoder(clock)), keep=3)
    result = profile(timed(clock, model=cascade), ["a"], repeats=1, ks=())
    # The cached scores of the full model take no time.
    assert {stage.name: stage.p50_ms for stage in result.stages} == pytest.approx(
        {"search": 4, "tokenise": 1, "forward": 3, "select": 2}
    )
    cascade = CascadeCrossEncoder(CountingEncoder(clock), CountingEncoder(clock), keep=3)
    result = profile(timed(clock, model=cascade), ["a"], repeats=1, ks=())
    assert {stage.name: stage.p50_ms for stage in result.stages} == pytest.approx(
        {"search": 4, "tokenise": 2, "forward": 6, "select": 2}
    )


class FakeServer(CountingEncoder):
    """A model that plans its calls itself: two steps of four milliseconds, without the usual parts."""

    def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
        self.clock.spend(4)
        yield 0.5
        self.clock.spend(4)
        return [PairScore(1.0) for _ in text_pairs]


def test_a_model_that_plans_its_calls_itself_is_timed_as_a_whole(clock: Clock) -> None:
    """All that it takes counts as the forward pass, also in a wrapper."""
    result = profile(timed(clock, model=WrapperCrossEncoder(FakeServer(clock))), ["a"], repeats=1, ks=(5,))
    assert {stage.name: stage.p50_ms for stage in result.stages} == pytest.approx(
        {"search": 4, "tokenise": 0, "forward": 8, "select": 2}
    )
    assert result.by_k == pytest.approx({5: 8})


def test_percentiles_are_taken_over_queries_and_repeats(clock: Clock) -> None:
    """The median and the 95th percentile are those of all runs, by linear interpolation."""
    times = iter([999.0, 10, 60, 20, 30, 40])
    (search, *_) = profile(timed(clock, lambda _: next(times)), ["a"], repeats=5, ks=()).stages
    assert (search.p50_ms, search.p95_ms) == pytest.approx((30, 56))


@pytest.mark.parametrize("streams", [True, False], ids=["context first", "all at once"])
def test_the_answer_is_timed_from_the_context_on(clock: Clock, streams: bool) -> None:
    """With a chain, the time after its context is a stage; what came before is retrieval and counted there."""

    def answer(inputs: Iterator[str]) -> Iterator[dict[str, Any]]:
        for query in inputs:
            clock.spend(100)
            if streams:
                yield {"question": query}
                yield {"context": []}
            clock.spend(10)
            yield {"answer": "forty"}
            clock.spend(5)
            yield {"answer": " two"}

    result = profile(timed(clock), ["a"], repeats=2, chain=RunnableGenerator(answer), ks=())
    assert [stage.name for stage in result.stages] == [*STAGES, "answer"]
    assert result.stages[-1].p50_ms == pytest.approx(15 if streams else 115)
    assert sum(stage.share for stage in result.stages) == pytest.approx(1)


def test_a_rag_chain_can_be_profiled() -> None:
    """A chain made by `create_rag_chain` adds a fifth stage."""
    base = retriever()
    chain = create_rag_chain(base, FakeListChatModel(responses=["forty two"]))
    assert [stage.name for stage in profile(base, ["a"], repeats=1, chain=chain).stages] == [*STAGES, "answer"]


@pytest.mark.parametrize(
    ("count", "ks", "expected"),
    [
        (12, (5, 10, 20, 50), [5, 10]),
        (12, (12, 13, 3, 3), [3, 12]),
        (4, (5, 10), []),
        (0, (5,), []),
        (12, (), []),
    ],
)
def test_the_growth_has_the_numbers_there_are(count: int, ks: tuple[int, ...], expected: list[int]) -> None:
    """The rerank is timed for each k that the candidates suffice for, and for no other."""
    by_k = profile(retriever(count), ["a"], repeats=1, ks=ks).by_k
    assert list(by_k) == expected
    assert all(milliseconds >= 0 for milliseconds in by_k.values())


def test_the_growth_is_the_models_time(clock: Clock) -> None:
    """For each k tokenising and forward passes count, the search and the sorting do not."""
    result = profile(timed(clock), ["a", "b"], repeats=2, ks=(5, 10))
    assert result.by_k == pytest.approx({5: 4, 10: 4})


def test_one_query_is_run_before_the_clock_starts(clock: Clock) -> None:
    """Loading and the first query's one-off costs are in no figure."""
    costs = iter([1000.0, 4, 4])
    asked: list[str] = []

    def search(query: str) -> float:
        asked.append(query)
        return next(costs)

    result = profile(timed(clock, search), ["a"], repeats=2, ks=())
    assert asked == ["a", "a", "a"]
    assert result.stages[0].p95_ms == pytest.approx(4)


def test_no_candidates_are_a_profile_too() -> None:
    """A query that finds nothing is timed like any other."""
    result = profile(retriever(0), ["a"], repeats=1)
    assert [stage.name for stage in result.stages] == STAGES
    assert sum(stage.share for stage in result.stages) == pytest.approx(1)


def test_passages_that_need_mending_are_profiled() -> None:
    """Lone surrogates, blank and repeated passages go the way they go when they are reranked."""
    texts = ["lone \ud800 surrogate", "  ", "", "twice", "twice"]
    base = create_rerank_retriever(
        RunnableLambda(lambda _: [Document(text) for text in texts]), model=FakeCrossEncoder(), top_n=2
    )
    assert list(profile(base, ["a \udfff"], repeats=1, ks=(5,)).by_k) == [5]


def test_a_cached_model_is_profiled_with_its_cache() -> None:
    """What the cache knows is not scored again, so that the figures are those of the retriever as it runs."""
    inner = CountingEncoder()
    profile(retriever(model=CachedCrossEncoder(inner)), ["a", "b"], repeats=3)
    assert len(inner.pairs) == 2 * 12


class Failing(ScriptedCrossEncoder):
    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        raise RuntimeError("the model is down")


@pytest.mark.parametrize("on_error", ["raise", "keep_order"])
def test_a_failing_model_cannot_be_profiled(on_error: str) -> None:
    """The error is one of ours, with the model's own reason."""
    with pytest.raises(ScoringError, match="the model is down"):
        profile(retriever(model=Failing({}), on_error=on_error), ["a"], repeats=1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"queries": []}, r"queries is \[\]; pass a list"),
        ({"queries": ""}, r"queries is ''; pass a list"),
        ({"queries": "what is LoRA?"}, r"queries is 'what is LoRA\?'; pass a list"),
        ({"queries": {"q1": "what is LoRA?"}}, "pass a list"),
        ({"queries": ["a", " "]}, "is ' ', which is blank"),
        ({"repeats": 0}, "repeats is 0; pass at least 1"),
        ({"repeats": -3}, "repeats is -3"),
        ({"ks": (0, 5)}, r"ks is \(0, 5\)"),
        ({"ks": (-1,)}, r"ks is \(-1,\)"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    """Nothing to search for, and numbers out of range, are named with their value."""
    with pytest.raises(InvalidInputError, match=complaint):
        profile(retriever(), **{"queries": ["a"], "repeats": 1, **arguments})


def test_a_retriever_without_our_reranker_is_refused() -> None:
    """There is nothing to take apart, and the error says what to pass."""
    plain: Any = first_stage()
    with pytest.raises(InvalidInputError, match=r"no CrossEncoderReranker.*create_rerank_retriever"):
        profile(plain, ["a"])


RESULT = ProfileResult(
    [StageTimes("search", 4.25, 8.5, 0.425), StageTimes("forward", 6.25, 6.5, 0.575)], {5: 2.5, 10: 5.0}, 3, 2, "a & b"
)


def test_to_dict_goes_through_json() -> None:
    """The plain form is JSON with every field."""
    plain = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert plain["stages"][0] == {"name": "search", "p50_ms": 4.25, "p95_ms": 8.5, "share": 0.425}
    assert plain["by_k"] == {"5": 2.5, "10": 5.0}
    assert (plain["queries"], plain["repeats"], plain["model"]) == (3, 2, "a & b")


def test_the_text_form_has_the_figures() -> None:
    """A row for each stage, a line for each k, and the foot are there."""
    lines = RESULT.to_text().splitlines()
    assert str(RESULT) == RESULT.to_text()
    assert [line.split() for line in lines[2:4]] == [["search", "4.2", "8.5", "42%"], ["forward", "6.2", "6.5", "57%"]]
    assert [line.split() for line in lines[6:8]] == [["k=5", "2.5", "ms"], ["k=10", "5.0", "ms"]]
    assert lines[-1] == "3 queries x 2, a & b; shares are of the medians' sum"


def test_the_html_form_has_the_figures() -> None:
    """The table has a row for each stage, and names are text."""
    pytest.importorskip("jinja2", reason="needs the eval extra")
    html = RESULT._repr_html_()
    assert html.count("<tr>") == 1 + 2
    row = re.search(r"<tr>(<td [^>]*>search</td>.*?)</tr>", html)
    assert row is not None
    assert re.findall(r">([^<]+)<", row.group(1)) == ["search", "4.2", "8.5", "42%"]
    assert "a &amp; b" in html


def test_the_plot_stacks_the_medians() -> None:
    """One bar, of a piece for each stage, each beginning where the one before ends."""
    figure_module = pytest.importorskip("matplotlib.figure", reason="needs the eval extra")
    figure = RESULT.plot()
    assert isinstance(figure, figure_module.Figure)
    (axes,) = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 4.25), (4.25, 6.25)]
    labels = [handle.get_label() for handle in axes.get_legend_handles_labels()[0]]
    assert [re.sub(r"\.\d+", "", label) for label in labels] == ["search 4 ms", "forward 6 ms"]
