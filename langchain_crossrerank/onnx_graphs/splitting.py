"""Splits a cross-encoder's graph where query and passage meet, so that each text can be read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.rewriting import without_unused
from langchain_crossrerank.onnx_graphs.structure import Structure, read_structure
from langchain_crossrerank.onnx_graphs.tensor_names import QUERY_TERMS, STATES


@dataclass(frozen=True)
class Parts:
    """A graph in parts.

    Attributes:
        reading: Computes the states of texts from their tokens.
        terms: Computes `QUERY_TERMS` from tokens and states; `None` for a graph without them.
        scoring: Computes logits from the tokens and states of pairs, and their query terms.
    """

    reading: Structure
    terms: Structure | None
    scoring: Structure


def state_names(structure: Structure) -> list[str]:
    """Return which of `STATES` a graph has; none if it cannot be split, as the sparse branch alone cannot."""
    made = _made(structure)
    return [name for name in STATES if name in made] if STATES[0] in made else []


def split(structure: Structure) -> Parts:
    """Split a graph that has `STATES`."""
    states = state_names(structure)
    if QUERY_TERMS not in _made(structure):
        return Parts(_cut(structure, outputs=states), None, _cut(structure, inputs=states))
    return Parts(
        _cut(structure, outputs=states),
        _cut(structure, inputs=states, outputs=[QUERY_TERMS]),
        _cut(structure, inputs=[*states, QUERY_TERMS]),
    )


def keep_as_inner_tensors(graph_file: Path, names: Sequence[str]) -> None:
    """Take outputs of a graph off its list of outputs; the tensors keep their names."""
    model = onnx.load(graph_file)
    outputs = [entry for entry in model.graph.output if entry.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    write_whole(graph_file, model.SerializeToString())


def write_part(graph_file: Path, output: str, part_file: Path) -> None:
    """Write the part of a graph that computes one of its tensors, as a graph that reads its weights from the whole one.

    Args:
        graph_file: The whole graph.
        output: The tensor, of shape (pairs, 1); the part calls it `logits`.
        part_file: Where to write the part, in the same folder.
    """
    part = _cut(read_structure(graph_file), outputs=[output])
    graph = part.model.graph
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [None, 1]))
    graph.node.append(onnx.helper.make_node("Identity", [output], ["logits"]))
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for weight in part.weights:
        for entry in tensors[weight.name].external_data:
            if entry.key == "location":
                entry.value = graph_file.name
    write_whole(part_file, part.model.SerializeToString())


def _made(structure: Structure) -> set[str]:
    return {output for node in structure.model.graph.node for output in node.output}


def _cut(structure: Structure, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Structure:
    """Copy what computes `outputs`, by default those of the graph, where the tensors of `inputs` are given."""
    model = onnx.ModelProto()
    model.CopyFrom(structure.model)
    graph = model.graph
    if outputs:
        del graph.output[:]
        graph.output.extend(_described(name) for name in outputs)
    nodes = [node for node in graph.node if not set(inputs).intersection(node.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(_described(name) for name in inputs)
    part = without_unused(Structure(model, structure.weights, structure.external_files))
    read = {name for node in part.model.graph.node for name in node.input}
    used = [entry for entry in part.model.graph.input if entry.name in read]
    del part.model.graph.input[:]
    part.model.graph.input.extend(used)
    return part


def _described(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None, None])
