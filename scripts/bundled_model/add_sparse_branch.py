"""Adds a learned sparse encoder to a trained model, and calibrates the sum on queries that were not trained on.

python scripts/bundled_model/add_sparse_branch.py TRAINED_FOLDER SPLADE_FOLDER RESULT_FOLDER --data DATA_FOLDER

`SPLADE_FOLDER` holds a BERT masked language model with the same vocabulary, as `config.json` and `model.safetensors`.
Logits are fitted on half of the queries (Platt scaling); the expected calibration error is that of the other half.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from train import PARTS, SQUAD_QUERIES, as_typed, read_files, share

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.training.data import TrainingData
from langchain_crossrerank.training.mining import mine
from langchain_crossrerank.training.models import WarmStartModel, load_trainable
from langchain_crossrerank.training.platt import fit_platt
from langchain_crossrerank.training.sparse_branch import SparseBranchConfig, splade_weights
from langchain_crossrerank.training.warm_start import WarmStartCrossEncoder

SOURCES = {"squad_train": 240, "medquad": 80, "debian_docs_sections": 80, "tldr_pages": 80}
"""Queries of each file to calibrate on; Natural Questions are missing, because all of them were trained on."""

NEGATIVES = 3
"""Hard negatives of each query, so that a quarter of the candidates is relevant."""

BINS = 10


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


def unseen(data: TrainingData) -> TrainingData:
    """Select queries that `train.py` does not draw, with all passages to mine negatives from."""
    taken = dict.fromkeys(SOURCES, 0)
    chosen = []
    for entry in sorted(data.examples, key=lambda entry: share(entry.query, "calibration")):
        if entry.source == "squad_train":
            drawn = share(entry.query, "query") < SQUAD_QUERIES
        else:
            drawn = share(entry.unit or entry.query, "part") < PARTS.get(entry.source, 1.0)
        if not drawn and taken.get(entry.source, 0) < SOURCES.get(entry.source, 0):
            taken[entry.source] += 1
            chosen.append(dataclasses.replace(entry, query=as_typed(entry.query)))
    return TrainingData(chosen, {source: data.passages[source] for source in SOURCES})


def labelled_pairs(data: TrainingData) -> list[tuple[TextPair, bool]]:
    """Return each query's positive and its hardest negatives."""
    pairs = []
    for source in mine(data, k=20).values():
        for entry in source.examples:
            query = entry.example.query
            pairs.append(((query, source.passages[entry.positives[0]]), True))
            pairs += [((query, source.passages[place]), False) for place in entry.negatives[:NEGATIVES]]
    return pairs


def calibration_error(probabilities: np.ndarray, relevant: np.ndarray) -> float:
    """Return the expected calibration error, in ten bins of equal width (Guo et al., ICML 2017)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    parts = [bins == place for place in range(BINS) if (bins == place).any()]
    return float(sum(part.mean() * abs(probabilities[part].mean() - relevant[part].mean()) for part in parts))


def main() -> None:
    """Add the branch, calibrate, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("splade", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    parser.add_argument("--weight", type=float, default=1.0, help="of the branch (default %(default)s)")
    arguments = parser.parse_args()
    base = load_trainable(arguments.trained)
    if not isinstance(base, WarmStartModel):
        raise SystemExit(f"{arguments.trained} is another kind of model; only a warm-started one takes a branch")
    model = with_branch(base, arguments.splade, arguments.weight)
    found = labelled_pairs(unseen(read_files(sorted(arguments.data.glob("*.jsonl.gz")))))
    with torch.no_grad():
        logits = model.all_logits([pair for pair, _ in found]).numpy().astype(float)
    relevant = np.array([label for _, label in found])
    first = np.arange(len(found)) // (NEGATIVES + 1) % 2 == 0
    factor, shift = fit_platt(logits[first].tolist(), relevant[first].tolist(), prior=1 / (NEGATIVES + 1))
    for name, values in (("before", logits), ("after", factor * logits + shift)):
        error = calibration_error(1 / (1 + np.exp(-values[~first])), relevant[~first])
        print(f"expected calibration error {name} fitting: {error:.3f} on {int((~first).sum())} held-out pairs")
    model.rescale(factor, shift)
    arguments.result.mkdir(parents=True, exist_ok=True)
    model.export(arguments.result)
    print(f"{arguments.result}: logits times {factor:.3f}, plus {shift:+.3f}")


if __name__ == "__main__":
    main()
