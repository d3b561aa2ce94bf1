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

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.training.models import WEIGHTS, WarmStartModel
from langchain_crossrerank.training.packed_weights import restore

TOLERANCE = 1e-4
"""Largest difference of a logit from the packed model's."""


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
