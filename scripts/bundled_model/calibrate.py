"""Makes a trained model's scores probabilities, on queries that it was not trained on, and says how good they are.

python scripts/bundled_model/calibrate.py TRAINED_FOLDER RESULT_FOLDER --data DATA_FOLDER

Logits are fitted on half of the queries (Platt scaling). The other half is measured: the reliability of each tenth of
the scale, the expected calibration error, and precision and recall by threshold.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from distil import PARTS, SQUAD_QUERIES
from train import as_typed, read_files, share

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.training.data import TrainingData
from langchain_crossrerank.training.loading import load_trainable
from langchain_crossrerank.training.mining import mine
from langchain_crossrerank.training.platt import fit_platt

SOURCES = {"squad_train": 240, "medquad": 80, "debian_docs_sections": 80, "tldr_pages": 80}
"""Queries of each file; Natural Questions are missing, because all of them were trained on."""

NEGATIVES = 3
"""Hard negatives of each query, so that a quarter of the candidates is relevant."""

BINS = 10

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def unseen(data: TrainingData) -> TrainingData:
    """Select queries that neither `train.py` nor `distil.py` draws, with all passages to mine negatives from."""
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
            if len(entry.negatives) < NEGATIVES:
                continue
            pairs.append(((query, source.passages[entry.positives[0]]), True))
            pairs += [((query, source.passages[place]), False) for place in entry.negatives[:NEGATIVES]]
    return pairs


def calibration_error(probabilities: np.ndarray, relevant: np.ndarray) -> float:
    """Return the expected calibration error, in ten bins of equal width (Guo et al., ICML 2017)."""
    bins = bins_of(probabilities)
    parts = [bins == place for place in range(BINS) if (bins == place).any()]
    return float(sum(part.mean() * abs(probabilities[part].mean() - relevant[part].mean()) for part in parts))


def bins_of(probabilities: np.ndarray) -> np.ndarray:
    """Return the number of the bin that each probability falls into."""
    return np.minimum((probabilities * BINS).astype(int), BINS - 1)


def print_reliability(probabilities: np.ndarray, relevant: np.ndarray) -> None:
    """Print, as a Markdown table, how many of the pairs in each tenth of the scale are relevant."""
    print("\n| Score | Pairs | Mean score | Relevant |\n|---|---|---|---|")
    for place in range(BINS):
        part = bins_of(probabilities) == place
        if part.any():
            edges = f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}"
            print(f"| {edges} | {part.sum()} | {probabilities[part].mean():.2f} | {relevant[part].mean():.2f} |")


def print_thresholds(probabilities: np.ndarray, relevant: np.ndarray) -> None:
    """Print, as a Markdown table, which share of the kept pairs is relevant and of the relevant ones is kept."""
    print("\n| Threshold | Precision | Recall | F1 |\n|---|---|---|---|")
    for threshold in THRESHOLDS:
        kept = probabilities >= threshold
        precision, recall = relevant[kept].mean(), kept[relevant].mean()
        print(f"| {threshold} | {precision:.2f} | {recall:.2f} | {2 * precision * recall / (precision + recall):.3f} |")


def main() -> None:
    """Fit, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training files")
    arguments = parser.parse_args()
    model = load_trainable(arguments.trained)
    found = labelled_pairs(unseen(read_files(sorted(arguments.data.glob("*.jsonl.gz")))))
    graph = load_cross_encoder(arguments.trained, backend="onnx", activation="identity")
    logits = np.array(graph.score([pair for pair, _ in found]))
    relevant = np.array([label for _, label in found])
    groups = logits.reshape(-1, NEGATIVES + 1)
    ranks = 1 + (groups[:, 1:] > groups[:, :1]).sum(axis=1)
    print(f"mean reciprocal rank of the positive among {NEGATIVES + 1}: {(1 / ranks).mean():.4f}")
    first = np.arange(len(found)) // (NEGATIVES + 1) % 2 == 0
    factor, shift = fit_platt(logits[first].tolist(), relevant[first].tolist(), prior=1 / (NEGATIVES + 1))
    for name, values in (("before", logits), ("after", factor * logits + shift)):
        error = calibration_error(1 / (1 + np.exp(-values[~first])), relevant[~first])
        print(f"expected calibration error {name} fitting: {error:.3f} on {int((~first).sum())} held-out pairs")
    probabilities = 1 / (1 + np.exp(-(factor * logits[~first] + shift)))
    print_reliability(probabilities, relevant[~first])
    print_thresholds(probabilities, relevant[~first])
    model.rescale(factor, shift)
    arguments.result.mkdir(parents=True, exist_ok=True)
    model.export(arguments.result)
    print(f"\n{arguments.result}: logits times {factor:.3f}, plus {shift:+.3f}")


if __name__ == "__main__":
    main()
