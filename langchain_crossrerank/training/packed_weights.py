"""Restores the weights of a packed warm-started model, such as the bundled one, to train it further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs.packing import unpack_weight
from langchain_crossrerank.training.warm_start import WarmStartConfig, WarmStartCrossEncoder


class _PackedGraph:
    """The tensors of a packed graph, unpacked.

    Args:
        file: The graph.
    """

    def __init__(self, file: Path) -> None:
        self._graph = onnx.load(str(file)).graph
        self._stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.initializer}
        self._makers = {name: node for node in self._graph.node for name in node.output}

    def tensor(self, name: str) -> Any:
        """Return a tensor by its name, unpacked if necessary; `None` if it is not a constant."""
        weight = unpack_weight(self._stored, name)
        if weight is not None:
            return weight
        maker = self._makers.get(name)
        return self.tensor(maker.input[0]) if maker is not None and maker.op_type == "Identity" else None

    def matrices(self) -> dict[str, Any]:
        """Return each matrix that is multiplied before a bias is added, by the name of the bias."""
        users: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
        found: dict[str, Any] = {}
        for node in self._graph.node:
            if node.op_type != "MatMul" or (matrix := self.tensor(node.input[1])) is None:
                continue
            for user in users.get(node.output[0], []):
                (bias,) = [name for name in user.input if name != node.output[0]] or [""]
                if user.op_type == "Add":
                    found[bias] = np.ascontiguousarray(matrix.T)
        return found

    def text_type(self, embeddings: str) -> Any:
        """Return what is added to the sum of the word and position embeddings before the norm `embeddings`."""
        norm = next(node for node in self._graph.node if f"{embeddings}embedding_norm.weight" in node.input)
        return next(value for name in self._makers[norm.input[0]].input if (value := self.tensor(name)) is not None)


def restore(folder: Path) -> WarmStartCrossEncoder:
    """Build the network of a packed model, with its weights as rounded when they were packed.

    Args:
        folder: A folder like that of the bundled model.

    Raises:
        UnsupportedModelError: If a weight is not found in the graph.
    """
    network = WarmStartCrossEncoder(WarmStartConfig.from_dict(json.loads((folder / "config.json").read_text("utf-8"))))
    graph = _PackedGraph(folder / "model.onnx")
    matrices = graph.matrices()
    weights: dict[str, Any] = {}
    for name, expected in network.state_dict().items():
        found = matrices.get(name.removesuffix("weight") + "bias") if name.endswith("weight") else None
        found = graph.tensor(name) if found is None or graph.tensor(name) is not None else found
        if name == "types.weight":
            found = np.stack([graph.text_type(""), np.zeros(expected.shape[1])])
        elif name == "sparse.text_type":
            found = graph.text_type("sparse.")
        if found is None:
            raise UnsupportedModelError(
                f"{folder} has no weight {name}; it was packed by another version of this package."
            )
        weights[name] = torch.from_numpy(np.asarray(found, dtype=np.float32)).reshape(expected.shape)
    network.load_state_dict(weights)
    return network.eval()
