"""Results with figures and texts of every kind, to show them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from langchain_crossrerank.evaluation import (
    Comparison,
    EvaluationResult,
    MeasureResult,
    ProfileResult,
    RankedDocument,
    RerankerComparison,
    RerankerMeasure,
    StageTimes,
    SweepResult,
    SweepRow,
)
from langchain_crossrerank.evaluation.results.lists import QueryLists

LONG = "a passage of many words that no column has room for " * 20


def comparison(moves: list[int | None], *, query: str = "which?", text: str = "passage", **kwargs: Any) -> Comparison:
    """Make a comparison from each candidate's rank after reranking, in the first stage's order."""
    documents = [
        RankedDocument(f"{text} {place}", {}, place, rank, -11.25 + place) for place, rank in enumerate(moves, start=1)
    ]
    return Comparison(query, documents, **{"model": "a model", "retrieve_ms": 12.4, "rerank_ms": 87.6, **kwargs})


def evaluation(count: int = 5, text: str = "query", passage: str = "text") -> EvaluationResult:
    """Make an evaluation of `count` queries whose differences run from loss to gain, with lists of two documents."""
    per_query = {f"q{i}": (0.5, i / max(1, count - 1)) for i in range(count)}
    measures = [MeasureResult(name, 0.5, 0.75, 0.875, 0.25, 0.125, 0.375, 0.01, per_query) for name in ("AP", "R@20")]
    times = dict.fromkeys(per_query, 12.0)
    return EvaluationResult(
        *(measures, count, 0, 0, 20, "a model", times, times, {key: f"{text} {key}" for key in per_query}),
        lists={key: QueryLists(["a", "b"], ["b", "a"], ["b"]) for key in per_query},
        passages={name: f"{passage} of {name}" for name in ("a", "b")},
    )


def sweep_result(count: int = 4) -> SweepResult:
    rows = [SweepRow(5 * 2**i, 0.5 + i / 10, 0.9, 10.0 * 2**i, 12.0 * 2**i) for i in range(count)]
    return SweepResult(rows, "nDCG@10", 0.45, {1: 0.25, 5: 0.75}, "a model")


def profile_result() -> ProfileResult:
    stages = [StageTimes(name, 5.0, 9.0, 0.25) for name in ("search", "tokenise", "forward", "select")]
    return ProfileResult(stages, {5: 2.0, 10: 4.0}, 3, 2, "a model")


RESULTS: dict[str, Any] = {
    "comparison": comparison([2, 1, None]),
    "no candidates": comparison([]),
    "none kept": comparison([None, None]),
    "one candidate": comparison([1]),
    "many candidates": comparison([*range(2, 121), 1], text=LONG),
    "evaluation": evaluation(),
    "one query": evaluation(1),
    "profile": profile_result(),
    "sweep": sweep_result(),
    "one k": sweep_result(1),
}

every_result = pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS.keys())


HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m a\u202eb\u2066c \x00 \r\n1  first\u2028line \ud800 \u0085 end"

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile_results() -> list[Any]:
    """Every kind of result with a hostile text in each place where a document, a query or a name may be."""
    values = {"q": (0.0, 1.0), "p": (1.0, 0.0)}
    measures = [MeasureResult(HOSTILE, 0.5, 0.5, 1.0, 0.0, -1.0, 1.0, 1.0, values)]
    other = RerankerMeasure(HOSTILE, 0.5, 0.5, 0.0, -1.0, 1.0, 1.0, 1, 0, 1, values)
    texts = dict.fromkeys(values, HOSTILE)
    return [
        Comparison(
            HOSTILE, [RankedDocument(HOSTILE, {}, 1, 2, 0.5), RankedDocument(HOSTILE, {}, 2, 1, 0.7)], HOSTILE, 1, 2
        ),
        EvaluationResult(measures, 2, 0, 0, 5, HOSTILE, {}, {}, texts, warnings=[HOSTILE]),
        RerankerComparison(HOSTILE, HOSTILE, [other], 2, texts, [HOSTILE]),
        ProfileResult([StageTimes(HOSTILE, 1.0, 2.0, 1.0)], {5: 1.0}, 1, 1, HOSTILE),
        SweepResult([SweepRow(5, 0.5, 0.9, 1.0, 2.0)], HOSTILE, 0.4, {1: 0.5}, HOSTILE, doubts=[HOSTILE]),
    ]


every_hostile = pytest.mark.parametrize("result", hostile_results(), ids=lambda result: type(result).__name__)


VOID = {"br", "img", "hr", "meta", "link", "input"}


class Balanced(HTMLParser):
    """Reads HTML, and keeps its elements with their classes and texts, and what was closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[str], list[str]]] = []
        self.wrong: list[str] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        self.wrong += [self.elements[place][0] for place in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, (dict(attrs).get("class") or "").split(), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, (dict(attrs).get("class") or "").split(), []))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self.elements[self._open.pop()][0] != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.elements[place][2].append(data)

    def count(self, tag: str) -> int:
        """How many elements have this tag."""
        return sum(name == tag for name, _, _ in self.elements)

    def texts(self, tag: str, kind: str | None = None) -> list[str]:
        """The texts of elements with a tag and, if named, a class, white space flattened."""
        found = [words for name, kinds, words in self.elements if name == tag and (kind is None or kind in kinds)]
        return [" ".join("".join(words).split()) for words in found]
