"""Graphs split where query and passage meet."""

from __future__ import annotations

from pathlib import Path

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.onnx_graphs.splitting import split, state_names
from langchain_crossrerank.onnx_graphs.structure import read_structure
from langchain_crossrerank.onnx_graphs.tensor_names import QUERY_TERMS, STATES


def test_each_part_has_the_weights_it_needs_alone() -> None:
    """Together the parts have what the whole graph has, and none has what another one alone needs."""
    whole = read_structure(BUNDLED_FOLDER / "model.onnx")
    assert state_names(whole) == list(STATES)
    parts = split(whole)
    assert parts.terms is not None
    every = (whole, parts.reading, parts.terms, parts.scoring)
    all_names, reading, terms, scoring = ({weight.name for weight in part.weights} for part in every)
    assert reading | terms | scoring == all_names
    assert not reading > scoring
    assert not scoring > reading
    assert not terms & scoring
    assert sum(weight.length for weight in parts.scoring.weights) < 0.5 * sum(weight.length for weight in whole.weights)


def test_a_query_is_the_only_text_whose_terms_are_sought() -> None:
    """The terms come from a graph of their own, which runs once for a query, and the scores need its result alone."""
    parts = split(read_structure(BUNDLED_FOLDER / "model.onnx"))
    assert parts.terms is not None
    assert [entry.name for entry in parts.terms.model.graph.output] == [QUERY_TERMS]
    assert "TopK" in {node.op_type for node in parts.terms.model.graph.node}
    assert "TopK" not in {node.op_type for node in parts.scoring.model.graph.node}


def test_the_whole_graph_stays_as_it_was() -> None:
    """Splitting works on copies."""
    whole = read_structure(BUNDLED_FOLDER / "model.onnx")
    before = whole.model.SerializeToString()
    split(whole)
    assert whole.model.SerializeToString() == before


def test_a_graph_whose_texts_meet_at_once_has_no_states(tiny_onnx_folder: Path) -> None:
    """An ordinary cross-encoder's graph cannot be split."""
    assert state_names(read_structure(next(tiny_onnx_folder.rglob("model.onnx")))) == []
