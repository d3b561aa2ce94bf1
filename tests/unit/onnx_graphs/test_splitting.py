"""Graphs split where query and passage meet."""

from __future__ import annotations

from pathlib import Path

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.onnx_graphs.splitting import STATES, split, state_names
from langchain_crossrerank.onnx_graphs.structure import read_structure


def test_each_part_has_the_weights_it_needs_alone() -> None:
    """Together the two parts take no more than the whole graph and what both need of it."""
    whole = read_structure(BUNDLED_FOLDER / "model.onnx")
    assert state_names(whole) == list(STATES)
    reading, scoring = split(whole)
    names = [{weight.name for weight in part.weights} for part in (whole, reading, scoring)]
    assert names[1] | names[2] == names[0]
    assert not names[1] > names[2]
    assert not names[2] > names[1]
    assert sum(weight.length for weight in scoring.weights) < 0.6 * sum(weight.length for weight in whole.weights)


def test_the_whole_graph_stays_as_it_was() -> None:
    """Splitting works on copies."""
    whole = read_structure(BUNDLED_FOLDER / "model.onnx")
    before = whole.model.SerializeToString()
    split(whole)
    assert whole.model.SerializeToString() == before


def test_a_graph_whose_texts_meet_at_once_has_no_states(tiny_onnx_folder: Path) -> None:
    """An ordinary cross-encoder's graph cannot be split."""
    assert state_names(read_structure(next(tiny_onnx_folder.rglob("model.onnx")))) == []
