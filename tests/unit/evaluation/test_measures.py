"""Measures against `ir-measures` itself, and names of measures."""

from __future__ import annotations

import math
import random
from importlib.util import find_spec

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.measures import measure_per_query, parse_measure, with_depth

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")

MEASURES = ["nDCG@10", "nDCG@3", "nDCG", "RR@10", "RR", "RR(rel=2)@10", "R@5", "R(rel=2)@100", "AP", "AP@10", "P@3"]

QRELS = {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"a": 1}, "q3": {"z": 2}}


def graded_collection(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Make judgements with grades 0 to 3 and a run of 30 documents a query, of which some are not judged."""
    dice = random.Random(seed)
    names = [f"d{number}" for number in range(60)]
    queries = [f"q{number}" for number in range(8)]
    qrels = {query: {name: dice.choice([0, 0, 1, 2, 3]) for name in dice.sample(names, 20)} for query in queries}
    run = {query: {name: float(-place) for place, name in enumerate(dice.sample(names, 30))} for query in queries}
    return qrels, run


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_what_ir_measures_says(name: str, seed: int) -> None:
    """Every query's value is that of `ir_measures.iter_calc` on the same run, to 1e-9, also with graded judgements."""
    qrels, run = graded_collection(seed)
    expected = {
        value.query_id: value.value for value in ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, run)
    }
    values = measure_per_query([name], qrels, run)[name]
    assert set(values) == set(qrels)
    assert values == pytest.approx(expected, abs=1e-9, rel=0)
    assert any(value > 0 for value in values.values())


def test_measures_together_are_the_measures_one_by_one() -> None:
    """Several measures in one call keep their own values."""
    qrels, run = graded_collection(3)
    together = measure_per_query(MEASURES, qrels, run)
    assert list(together) == MEASURES
    assert together == {name: measure_per_query([name], qrels, run)[name] for name in MEASURES}


def test_values_by_hand() -> None:
    """A run of known order has the values computed by hand."""
    run = {"q1": {"c": 3.0, "b": 2.0, "a": 1.0}}
    values = measure_per_query(["nDCG@10", "RR@10", "R@2", "AP", "P@2"], {"q1": QRELS["q1"]}, run)
    gain = (1 / math.log2(3) + 3 / math.log2(4)) / (3 / math.log2(2) + 1 / math.log2(3))
    expected = {"nDCG@10": gain, "RR@10": 1 / 2, "R@2": 1 / 2, "AP": (1 / 2 + 2 / 3) / 2, "P@2": 1 / 2}
    assert {name: by_query["q1"] for name, by_query in values.items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["nDCG@10", "RR@10", "R@5", "AP", "P@1", "Judged@10"])
def test_a_judged_query_without_results_counts_0(name: str) -> None:
    """A query that the run lacks, or for which it found nothing, is there with 0.0, and one not judged is not."""
    run = {"q1": {"a": 1.0}, "q2": {}, "q9": {"a": 1.0}}
    values = measure_per_query([name], QRELS, run)[name]
    assert sorted(values) == ["q1", "q2", "q3"]
    assert values["q1"] > 0
    assert (values["q2"], values["q3"]) == (0.0, 0.0)


def test_a_query_without_a_single_judgement_counts_0() -> None:
    """A query that qrels names with no documents is there with 0.0 and not dropped."""
    values = measure_per_query(["nDCG@10"], {"q1": {"a": 1}, "q2": {}}, {"q1": {"a": 1.0}, "q2": {"a": 1.0}})
    assert values == {"nDCG@10": {"q1": 1.0, "q2": 0.0}}


def test_a_run_without_any_results_counts_0() -> None:
    """An empty run scores 0 for every judged query."""
    assert measure_per_query(["nDCG@10"], QRELS, {}) == {"nDCG@10": {"q1": 0.0, "q2": 0.0, "q3": 0.0}}


def test_values_are_plain_floats() -> None:
    """Values go through JSON as they are, whatever `ir-measures` counts in."""
    values = measure_per_query(["NumRet", "AP"], QRELS, {"q1": {"a": 1.0}})
    assert {type(value) for by_query in values.values() for value in by_query.values()} == {float}


def test_measuring_leaves_its_input_alone() -> None:
    """Judgements and run are the caller's."""
    qrels, run = {"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}}
    measure_per_query(["nDCG@10"], qrels, run)
    assert (qrels, run) == ({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}})


@pytest.mark.parametrize(
    "names", [("RR@10", "MRR@10"), ("R@5", "Recall@5"), ("AP", "MAP"), ("nDCG@3", "NDCG@3", "nDCG@3 ")]
)
def test_two_names_of_one_measure_have_the_same_values(names: tuple[str, ...]) -> None:
    """`ir-measures` has aliases; each name asked for gets the measure's values."""
    qrels, run = graded_collection(4)
    values = measure_per_query(names, qrels, run)
    expected = measure_per_query([names[0]], qrels, run)[names[0]]
    assert values == dict.fromkeys(names, expected)


@pytest.mark.parametrize(
    "name", ["xyz@3", "nDCG@ten", "", "nDCG@", "nDCG@10 RR@10", "nDCG@10+AP", "R@k", "__import__('os')", "nDCG@-1"]
)
def test_an_unknown_measure_is_refused(name: str) -> None:
    """The error repeats the name and suggests valid ones; nothing is executed."""
    with pytest.raises(InvalidInputError) as caught:
        parse_measure(name)
    assert f"{name!r} is not a measure of ir-measures" in str(caught.value)
    assert "'nDCG@10', 'RR@10', 'R@100'" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "P",
        "R",
        "nDCG@0",
        "R@0",
        "nDCG@1.5",
        "nDCG(x=1)@10",
        pytest.param(
            "alpha_nDCG@10", marks=pytest.mark.skipif(find_spec("pyndeval") is not None, reason="pyndeval is installed")
        ),
    ],
)
def test_a_measure_that_cannot_be_computed_is_refused(name: str) -> None:
    """A missing or impossible depth, and a measure whose program is not installed, are input errors.

    trec_eval ends the whole process at a depth of 0, so nothing may reach it.
    """
    with pytest.raises(InvalidInputError, match=r"measure"):
        parse_measure(name)


@pytest.mark.parametrize(
    ("measures", "k", "expected"),
    [
        (["nDCG@10", "R@k"], 20, ["nDCG@10", "R@20"]),
        (["R@k", "P@k", "nDCG@k"], 7, ["R@7", "P@7", "nDCG@7"]),
        (["R(rel=2)@k"], 50, ["R(rel=2)@50"]),
        (["AP", "RR", "R@100"], 5, ["AP", "RR", "R@100"]),
        (["R@k", "R@10", "R@k"], 10, ["R@10"]),
        (["nDCG@k20", "@kR"], 3, ["nDCG@k20", "@kR"]),
        ([], 3, []),
    ],
)
def test_k_stands_for_the_number_of_candidates(measures: list[str], k: int, expected: list[str]) -> None:
    """A depth written as `k` becomes the number, others stay, and equal measures come once in the first's place."""
    assert with_depth(measures, k) == expected
