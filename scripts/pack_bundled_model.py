"""Makes the bundled model's folder from a trained one: packed weights, tokenizer, config, card and golden pairs.

    python scripts/pack_bundled_model.py TRAINED_FOLDER --pairs BEIR_FOLDER

Prints the size and how far the packed model's scores are from the trained one's on the golden pairs and, with
`--pairs`, on every query of a BEIR folder against its judged documents (up to `--most` pairs).
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path

from langchain_crossrerank.cross_encoders.packing import pack_weights
from langchain_crossrerank.cross_encoders.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.source import BUNDLED_FOLDER, ModelSource


def judged_pairs(folder: Path, most: int) -> list[tuple[str, str]]:
    """Read up to `most` (query, document) pairs that a BEIR folder has judgements for."""
    corpus, queries = {}, {}
    for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        corpus[row["_id"]] = row["text"]
    for line in (folder / "queries.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        queries[row["_id"]] = row["text"]
    judged = itertools.islice((folder / "qrels.tsv").open(encoding="utf-8"), 1, None)
    ids = (line.split("\t")[:2] for line in judged)
    return list(itertools.islice(((queries[q], corpus[d]) for q, d in ids if q in queries and d in corpus), most))


def main() -> None:
    """Pack, then compare with the original."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--pairs", type=Path, help="BEIR folder to compare scores on")
    parser.add_argument("--most", type=int, default=1000)
    arguments = parser.parse_args()

    BUNDLED_FOLDER.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json", "golden.json"):
        shutil.copyfile(arguments.trained / file, BUNDLED_FOLDER / file)
    pack_weights(arguments.trained / "model.onnx", BUNDLED_FOLDER / "model.onnx")
    golden = json.loads((BUNDLED_FOLDER / "golden.json").read_text(encoding="utf-8"))
    pairs = [(row["query"], row["passage"]) for row in golden]
    if arguments.pairs:
        pairs += judged_pairs(arguments.pairs, arguments.most)
    size = (BUNDLED_FOLDER / "model.onnx").stat().st_size
    print(f"{BUNDLED_FOLDER / 'model.onnx'}: {size / 1e6:.1f} MB, {len(pairs)} pairs")
    for activation in ("identity", "sigmoid"):
        before, after = (
            OnnxCrossEncoder(ModelSource(folder.name, folder), activation=activation).score(pairs)
            for folder in (arguments.trained, BUNDLED_FOLDER)
        )
        differences = sorted(abs(a - b) for a, b in zip(before, after, strict=True))
        print(
            f"{activation}: largest difference {differences[-1]:.4f}, median {differences[len(differences) // 2]:.5f}"
        )


if __name__ == "__main__":
    main()
