"""Adds a learned sparse encoder to a trained model.

python scripts/bundled_model/add_sparse_branch.py TRAINED_FOLDER SPLADE_FOLDER RESULT_FOLDER

`SPLADE_FOLDER` holds a BERT masked language model with the same vocabulary, as `config.json` and `model.safetensors`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from langchain_crossrerank.training.loading import load_trainable
from langchain_crossrerank.training.models import WarmStartModel
from langchain_crossrerank.training.sparse_branch import SparseBranchConfig, splade_weights
from langchain_crossrerank.training.warm_start import WarmStartCrossEncoder


def with_branch(model: WarmStartModel, folder: Path, weight: float) -> WarmStartModel:
    """Return the model with the encoder of a folder as its sparse branch."""
    described = json.loads((folder / "config.json").read_text("utf-8"))
    shape = SparseBranchConfig(
        hidden_size=described["hidden_size"],
        num_hidden_layers=described["num_hidden_layers"],
        num_attention_heads=described["num_attention_heads"],
        intermediate_size=described["intermediate_size"],
        weight=weight,
    )
    network = WarmStartCrossEncoder(dataclasses.replace(model.network.config, sparse=shape))
    branch = splade_weights(load_file(folder / "model.safetensors"), shape.num_hidden_layers)
    weights = {**model.network.state_dict(), **{f"sparse.{name}": value for name, value in branch.items()}}
    network.load_state_dict({**weights, "sparse.weight": torch.tensor(weight)})
    return WarmStartModel(network.eval(), model.tokenizer, max_length=model.max_length)


def main() -> None:
    """Add the branch and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("splade", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--weight", type=float, default=0.5, help="of the branch (default %(default)s)")
    arguments = parser.parse_args()
    base = load_trainable(arguments.trained)
    if not isinstance(base, WarmStartModel):
        raise SystemExit(f"{arguments.trained} is another kind of model; only a warm-started one takes a branch")
    model = with_branch(base, arguments.splade, arguments.weight)
    arguments.result.mkdir(parents=True, exist_ok=True)
    model.export(arguments.result)


if __name__ == "__main__":
    main()
