"""What packing costs: the packed embeddings against the exact ones, in cosines and in nDCG@10 of searching by them.

python scripts/bundled_embeddings/measure.py EXACT_FOLDER PACKED_FOLDER BEIR_FOLDER [BEIR_FOLDER ...]

Of each collection a sample of the judged queries is searched in a sample of the corpus, which has all documents that
are relevant to them and others at random. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langchain_crossrerank import load_embeddings
from langchain_crossrerank.evaluation import load_beir, load_qrels
from langchain_crossrerank.evaluation.judgements import Qrels
from langchain_crossrerank.evaluation.measures import measure_per_query

MEASURE = "nDCG@10"
_DEPTH = 100


def sample(folder: Path, most_queries: int, most_passages: int) -> tuple[dict[str, str], Qrels, list[Document]]:
    """Draw queries with their judgements, and passages: all that are relevant to them first, the same at every call."""
    collection = load_beir(folder)
    full = folder / "qrels_full.tsv"
    qrels = load_qrels(full) if full.exists() else collection.qrels
    drawn = random.Random(0)
    keys = sorted(key for key in collection.queries if any(grade > 0 for grade in qrels.get(key, {}).values()))
    keys = sorted(drawn.sample(keys, min(most_queries, len(keys))))
    relevant = {name for key in keys for name, grade in qrels[key].items() if grade > 0}
    documents = list(collection.documents)
    drawn.shuffle(documents)
    documents.sort(key=lambda document: document.id not in relevant)
    kept = documents[: max(most_passages, sum(document.id in relevant for document in documents))]
    return {key: collection.queries[key] for key in keys}, {key: qrels[key] for key in keys}, kept


def unit(vectors: list[list[float]]) -> Any:
    """Scale vectors to length 1."""
    array = np.asarray(vectors, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def search(queries: Any, passages: Any, ids: list[str]) -> list[dict[str, float]]:
    """Return the best passages of each query with their cosines."""
    cosines = queries @ passages.T
    best = np.argsort(-cosines, axis=1)[:, :_DEPTH]
    return [{ids[place]: float(row[place]) for place in places} for row, places in zip(cosines, best, strict=True)]


def compare(folder: Path, exact: Embeddings, packed: Embeddings, options: argparse.Namespace) -> str:
    """Measure one collection; return a row of the table."""
    queries, qrels, documents = sample(folder, options.queries, options.passages)
    ids, texts = [str(document.id) for document in documents], [document.page_content for document in documents]
    means, vectors = [], []
    for embeddings in (exact, packed):
        asked, found = (
            unit([embeddings.embed_query(text) for text in queries.values()]),
            unit(embeddings.embed_documents(texts)),
        )
        run = dict(zip(queries, search(asked, found, ids), strict=True))
        means.append(float(np.mean(list(measure_per_query([MEASURE], qrels, run)[MEASURE].values()))))
        vectors.append(np.concatenate([asked, found]))
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    row = [folder.name, str(len(queries)), str(len(texts)), *(f"{mean:.4f}" for mean in means)]
    row += [f"{means[1] - means[0]:+.4f}", f"{np.median(cosines):.5f}", f"{cosines.min():.5f}"]
    return f"| {' | '.join(row)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exact", type=Path)
    parser.add_argument("packed", type=Path)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=100, help="queries of a collection (default %(default)s)")
    parser.add_argument("--passages", type=int, default=1000, help="passages of a collection (default %(default)s)")
    options = parser.parse_args()
    exact, packed = load_embeddings(options.exact), load_embeddings(options.packed)
    print(
        f"| collection | queries | passages | {MEASURE}, exact | packed | difference | median cosine | lowest cosine |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for folder in options.folders:
        print(compare(folder, exact, packed, options), flush=True)


if __name__ == "__main__":
    main()
