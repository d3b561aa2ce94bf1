"""Packs a trained model into the bundled model's folder: weights, tokenizer, config and golden pairs.

python scripts/bundled_model/pack.py TRAINED_FOLDER BUNDLED_FOLDER --pairs BEIR_FOLDER

Prints the size, and how far the packed model's scores are from the trained model's on the golden pairs and, with
`--pairs`, on judged pairs of a BEIR folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.graph_files import SPARSE_GRAPH
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.scores import Activation
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.packing import pack_weights
from langchain_crossrerank.onnx_graphs.splitting import write_part
from langchain_crossrerank.onnx_graphs.tensor_names import SPARSE_SCORES

GOLDEN = Path(__file__).with_name("golden_triples.jsonl")


def judged_pairs(folder: Path, most: int) -> list[tuple[str, str]]:
    """Read up to `most` judged (query, document) pairs of a BEIR folder."""
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
    """Pack the model, then compare its scores with the original's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("bundled", type=Path)
    parser.add_argument("--pairs", type=Path, help="BEIR folder to compare scores on")
    parser.add_argument(
        "--bits", type=int, choices=(8, 16), default=8, help="bits of a matrix weight (default %(default)s)"
    )
    parser.add_argument("--most", type=int, default=1000, help="judged pairs to compare (default %(default)s)")
    arguments = parser.parse_args()

    arguments.bundled.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(arguments.trained / file, arguments.bundled / file)
    pack_weights(arguments.trained / "model.onnx", arguments.bundled / "model.onnx", matrix_bits=arguments.bits)
    write_part(arguments.bundled / "model.onnx", SPARSE_SCORES, arguments.bundled / SPARSE_GRAPH)
    pairs = golden_pairs()
    logits = score(arguments.trained, pairs, "identity")
    golden = [
        {"query": query, "passage": passage, "logit": round(logit, 4)}
        for (query, passage), logit in zip(pairs, logits, strict=True)
    ]
    write_whole(arguments.bundled / "golden.json", json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    if arguments.pairs:
        pairs += judged_pairs(arguments.pairs, arguments.most)
    size = (arguments.bundled / "model.onnx").stat().st_size
    print(f"{arguments.bundled / 'model.onnx'}: {size / 1e6:.1f} MB, {len(pairs)} pairs")
    for activation in ("identity", "sigmoid"):
        before, after = (score(folder, pairs, activation) for folder in (arguments.trained, arguments.bundled))
        differences = sorted(abs(a - b) for a, b in zip(before, after, strict=True))
        print(
            f"{activation}: largest difference {differences[-1]:.4f}, median {differences[len(differences) // 2]:.5f}"
        )


def golden_pairs() -> list[tuple[str, str]]:
    """Read the pairs whose scores are stored with the model."""
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    return [(row["query"], passage) for row in rows for passage in row["passages"]]


def score(folder: Path, pairs: list[tuple[str, str]], activation: Activation) -> list[float]:
    """Score pairs with the graph of a folder."""
    return OnnxCrossEncoder(ModelSource(folder.name, folder), activation=activation).score(pairs)


if __name__ == "__main__":
    main()
