"""Restores the weights of a packed bundled model, to train it further or to add to it.

python scripts/bundled_model/unpack.py BUNDLED_FOLDER TRAINED_FOLDER

The weights are those that users have, rounded to the bits in which they are stored. Fails if the restored scores
differ from the packed ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.onnx_graphs.packing import unpack_weight
from langchain_crossrerank.training.models import WEIGHTS, WarmStartModel
from langchain_crossrerank.training.warm_start import WarmStartConfig, WarmStartCrossEncoder

TOLERANCE = 1e-4
"""Largest difference of a logit from the packed model's."""


class PackedGraph:
    """The tensors of a packed graph, unpacked.

    Args:
        file: The graph, as `pack.py` writes it.
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
    """Build the network of a packed model."""
    network = WarmStartCrossEncoder(WarmStartConfig.from_dict(json.loads((folder / "config.json").read_text("utf-8"))))
    graph = PackedGraph(folder / "model.onnx")
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
            raise SystemExit(f"{folder} has no weight {name}; it was made by another version of these scripts")
        weights[name] = torch.from_numpy(np.asarray(found, dtype=np.float32)).reshape(expected.shape)
    network.load_state_dict(weights)
    return network.eval()


def main() -> None:
    """Restore, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundled", type=Path)
    parser.add_argument("trained", type=Path)
    arguments = parser.parse_args()
    network = restore(arguments.bundled)
    tokenizer = Tokenizer.from_file(str(arguments.bundled / "tokenizer.json"))
    config = json.loads((arguments.bundled / "config.json").read_text("utf-8"))
    model = WarmStartModel(network, tokenizer, max_length=config["max_length"])
    rows = json.loads((arguments.bundled / "golden.json").read_text("utf-8"))
    pairs = [(row["query"], row["passage"]) for row in rows]
    packed = load_cross_encoder(arguments.bundled, activation="identity").score(pairs)
    with torch.no_grad():
        restored = model.all_logits(pairs).tolist()
    difference = max(abs(one - other) for one, other in zip(packed, restored, strict=True))
    if difference > TOLERANCE:
        raise SystemExit(f"the restored model's logits differ by {difference:.2g}; nothing was written")
    arguments.trained.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(arguments.bundled / file, arguments.trained / file)
    save_file(network.state_dict(), arguments.trained / WEIGHTS)
    print(f"{arguments.trained}: {len(pairs)} pairs within {difference:.1e} of the packed model")


if __name__ == "__main__":
    main()
