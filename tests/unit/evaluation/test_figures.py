"""Every figure is the one that `ir-measures` computes itself, on random runs with everything that real ones have."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from langchain_crossrerank import create_rerank_retriever
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation import Collection, evaluate, load_qrels, load_run, run_retriever
from langchain_crossrerank.evaluation.measures import measure_per_query
from langchain_crossrerank.evaluation.significance import paired_difference
from langchain_crossrerank.testing import ScriptedCrossEncoder

ir_measures = pytest.importorskip("ir_measures", reason="needs the eval extra")

MEASURES = ["nDCG@10", "nDCG@3", "RR@10", "AP", "P@5", "R@k", "RR(rel=2)@10"]
NAMES = [f"d{number}" for number in range(14)]
GONE = ["gone1", "gone2"]
"""Documents that are judged and that the corpus lacks."""

Scores = dict[str, dict[str, float]]
Grades = dict[str, dict[str, int]]

grades = st.dictionaries(st.sampled_from([*NAMES, *GONE]), st.integers(-2, 3), min_size=1, max_size=10)
# Few different values make ties; two of them differ by less than single precision.
scores = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([0.5, 1.0, 1.0 + 1e-9, -2.0, 7.25, 1e6]), max_size=len(NAMES)
)
queries = st.sampled_from(["q1", "q2", "q3", "q4"])


def own(name: str, qrels: Grades, run: Scores) -> dict[str, float]:
    """Ask `ir-measures` itself; a query that the run lacks has the measure's value of nothing found.

    It crashes at grades below -1, which mean the same as -1.
    """
    values = dict.fromkeys(qrels, 0.0)
    safe = {key: {document: max(grade, -1) for document, grade in judged.items()} for key, judged in qrels.items()}
    for value in ir_measures.iter_calc([ir_measures.parse_measure(name)], safe, run):
        values[value.query_id] = value.value
    return values


def written(folder: Path, qrels: Grades, run: Scores) -> tuple[Path, Path]:
    """Write judgements and run as TREC does."""
    judged, found = folder / "x.qrels", folder / "x.run"
    judged.write_text("".join(f"{q} 0 {d} {g}\n" for q, entries in qrels.items() for d, g in entries.items()))
    found.write_text("".join(f"{q} Q0 {d} 0 {s!r} t\n" for q, entries in run.items() for d, s in entries.items()))
    return judged, found


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(qrels=st.dictionaries(queries, grades, min_size=1), run=st.dictionaries(queries, scores), data=st.data())
def test_every_figure_is_that_of_ir_measures(tmp_path: Path, qrels: Grades, run: Scores, data: Any) -> None:
    """Before and after reranking, with ties, gaps, negative grades, missing documents and queries without results.

    Ties are in the order of trec_eval. `ir-measures` computes reciprocal ranks with a cut-off by another program, which
    breaks ties the other way round, so these are compared on the list with its ties broken.
    """
    judged_file, run_file = written(tmp_path, qrels, run)
    judged, found = load_qrels(judged_file), load_run(run_file)
    assert judged == qrels
    relevant = {key: entries for key, entries in qrels.items() if max(entries.values()) > 0}
    documents = [Document(name, id=name) for name in NAMES]
    texts = {key: f"text of {key}" for key in qrels}
    new = {name: float(rank) for rank, name in enumerate(data.draw(st.permutations(NAMES)))}
    base = create_rerank_retriever(
        run_retriever(Collection(documents, texts, qrels), found), model=ScriptedCrossEncoder(new)
    )
    if not relevant:
        with pytest.raises(InvalidInputError, match="no query has a relevant document"):
            evaluate(base, texts, judged, measures=MEASURES, show_progress=False)
        return
    result = evaluate(base, texts, judged, measures=MEASURES, show_progress=False)
    before = {key: entries for key, entries in run.items() if key in relevant}
    after = {key: {name: new[name] for name in entries} for key, entries in before.items()}
    for row in result.measures:
        broken = {key: {name: -float(place) for place, (name, _) in enumerate(found[key])} for key in found}
        firsts = own(row.name, relevant, broken if row.name.startswith("RR") else before)
        seconds = own(row.name, relevant, after)
        assert row.per_query == {key: pytest.approx((firsts[key], seconds[key]), abs=1e-9) for key in relevant}
        assert row.before == pytest.approx(statistics.fmean(firsts.values()), abs=1e-9)
        assert row.after == pytest.approx(statistics.fmean(seconds.values()), abs=1e-9)
        assert row.ceiling >= max(row.before, row.after) - 1e-9


@settings(deadline=None, max_examples=40)
@given(qrels=st.dictionaries(queries, grades, min_size=1), run=st.dictionaries(queries, scores))
def test_a_runs_own_scores_are_measured_as_they_are(qrels: Grades, run: Scores) -> None:
    """A run measured by its scores, ties and all, has exactly the values of `ir-measures`, by every measure."""
    whole = {key: found for key, found in run.items() if found}
    assert measure_per_query(["nDCG@10", "RR@10", "AP", "Judged@10", "R@5"], qrels, run) == {
        name: pytest.approx(own(name, qrels, whole), abs=1e-9)
        for name in ["nDCG@10", "RR@10", "AP", "Judged@10", "R@5"]
    }


@pytest.mark.parametrize("queries", [10, 30])
def test_where_nothing_differs_there_is_hardly_ever_a_verdict(queries: int) -> None:
    """Two rankers of equal quality are distinguished in at most 5 % of the draws."""
    random = np.random.default_rng(queries)
    draws = 200
    found = 0
    for _ in range(draws):
        # Reciprocal ranks of one relevant document: many ties, and far from normal.
        before, after = (1 / random.integers(1, 6, size=queries) for _ in range(2))
        found += paired_difference(before.tolist(), after.tolist()).verdict in ("helped", "hurt")
    assert found <= 0.05 * draws
