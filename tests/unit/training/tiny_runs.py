"""A tiny data set, tiny models and short runs for the tests of training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.training import TrainingResult, TrainingSettings, train

SETTINGS = TrainingSettings(
    steps=30, groups_per_step=4, negatives=3, warmup=5, learning_rate=5e-3, validate_every=10, average=0.8
)
ANIMALS = ["heron", "stork", "otter", "badger", "falcon", "salmon", "beetle", "lizard", "weasel", "pigeon"]
DEEDS = ["eats", "hunts", "sleeps", "swims", "nests", "hides"]


def write_animals(file: Path) -> Path:
    """Write sixty queries; a positive names the animal and the deed, other passages name one of them."""
    rows = [
        {"query": f"when the {animal} {deed}", "positive": f"The {animal} {deed} in the morning."}
        for animal in ANIMALS
        for deed in DEEDS
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def save_bi_encoder(folder: Path) -> Path:
    """Save a two-layer BERT encoder with random weights and the bundled model's vocabulary."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=128
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((BUNDLED_FOLDER / "tokenizer.json").read_bytes())
    return folder


def run(data_file: Path, folder: Path, base: Path, **options: Any) -> TrainingResult:
    """Train with `SETTINGS`; options are settings or arguments of `train`."""
    settings = {key: options.pop(key) for key in list(options) if hasattr(SETTINGS, key)}
    return train(
        [data_file],
        folder,
        base=base,
        settings=dataclasses.replace(SETTINGS, **settings),
        **{"max_length": 48, "held_out": 0.3, "show_progress": False, **options},
    )
