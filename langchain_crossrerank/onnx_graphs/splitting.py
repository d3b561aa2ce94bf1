"""Splits a cross-encoder's graph where query and passage meet, so that each text can be read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.rewriting import without_unused
from langchain_crossrerank.onnx_graphs.structure import Structure

STATES = ("states_apart", "sparse_states")
"""Names of the tensors, of shape (pairs, tokens, width), in which the tokens of one text do not depend on the other;
`training.models` exports graphs with them."""


def state_names(structure: Structure) -> list[str]:
    """Return which of `STATES` a graph has; none if it cannot be split."""
    made = {output for node in structure.model.graph.node for output in node.output}
    return [name for name in STATES if name in made]


def split(structure: Structure) -> tuple[Structure, Structure]:
    """Split a graph that has `STATES` in two.

    Returns:
        A graph that computes the states of texts from their tokens, and one that computes logits from the tokens and
        states of pairs.
    """
    names = state_names(structure)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None, None]) for name in names]
    reading, scoring = _copy(structure), _copy(structure)
    del reading.model.graph.output[:]
    reading.model.graph.output.extend(values)
    graph = scoring.model.graph
    nodes = [node for node in graph.node if not set(names).intersection(node.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(values)
    return _with_inputs_used(without_unused(reading)), _with_inputs_used(without_unused(scoring))


def keep_as_inner_tensors(graph_file: Path, names: Sequence[str]) -> None:
    """Take outputs of a graph off its list of outputs; the tensors keep their names."""
    model = onnx.load(graph_file)
    outputs = [entry for entry in model.graph.output if entry.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    write_whole(graph_file, model.SerializeToString())


def _copy(structure: Structure) -> Structure:
    model = onnx.ModelProto()
    model.CopyFrom(structure.model)
    return Structure(model, structure.weights, structure.external_files)


def _with_inputs_used(structure: Structure) -> Structure:
    graph = structure.model.graph
    read = {name for node in graph.node for name in node.input}
    inputs = [entry for entry in graph.input if entry.name in read]
    del graph.input[:]
    graph.input.extend(inputs)
    return structure
