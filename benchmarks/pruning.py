"""Tokens that sentence pruning saves, against the answers that it loses.

    python benchmarks/pruning.py [--model bundled] [--embeddings bundled] [--k 20] [--top-n 5]

Each of the 60 judged questions of `notebooks/data` gets its context: the best `top_n` of the `k` nearest chunks.
`answers.jsonl` has the wording that answers each question. Of the wordings that are in the context, the share that is
still in the pruned one is its containment. Prints both for a range of `min_odds`; the one to record in
`langchain_crossrerank/agents/thresholds.py` is the highest that loses no answer, or that saves 40 % if each loses some.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import create_rerank_retriever, load_cross_encoder, load_embeddings
from langchain_crossrerank.agents.context import estimate_tokens
from langchain_crossrerank.agents.pruning import PruneSentences
from langchain_crossrerank.agents.thresholds import MEASURED
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder

QUESTIONS = Path(__file__).parent.parent / "notebooks" / "data" / "llm_fundamentals_questions"
ODDS = (0.0, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.05, 0.1)


def read(name: str) -> list[dict[str, object]]:
    """Read a file of JSON lines."""
    with (QUESTIONS / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def flat(documents: list[Document]) -> str:
    """Join the texts of documents, with white space collapsed."""
    return " ".join(" ".join(document.page_content for document in documents).split())


def main() -> None:
    """Prune every context with every setting and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--embeddings", default="bundled")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--top-n", type=int, default=5)
    options = parser.parse_args()
    model = CachedCrossEncoder(load_cross_encoder(options.model))
    store = InMemoryVectorStore.from_documents(
        [Document(str(row["text"])) for row in read("corpus.jsonl")], load_embeddings(options.embeddings)
    )
    retriever = create_rerank_retriever(store, model=model, k=options.k, top_n=options.top_n)
    answers = {str(row["_id"]): row["answers"] for row in read("answers.jsonl")}
    contexts = [
        (str(row["_id"]), str(row["text"]), retriever.invoke(str(row["text"]))) for row in read("queries.jsonl")
    ]
    whole = sum(estimate_tokens(flat(documents)) for _, _, documents in contexts)
    recorded = (MEASURED[options.model].sentence_odds,) if options.model in MEASURED else ()
    print(f"{options.model}: {len(contexts)} contexts of {options.top_n} chunks, about {whole} tokens")
    for odds in sorted({*ODDS, *recorded}):
        prune = PruneSentences(model=model, min_odds=odds)
        tokens, present, lost = 0, 0, []
        for key, query, documents in contexts:
            before, after = flat(documents), flat(prune.invoke({"query": query, "documents": documents}))
            tokens += estimate_tokens(after)
            found = [text for text in answers[key] if text in before]  # type: ignore[attr-defined]
            present += len(found)
            lost += [key for text in found if text not in after]
        mark = " (recorded)" if odds in recorded else ""
        print(
            f"min_odds {odds:<6}{mark}: {1 - tokens / whole:.1%} of the tokens saved, {present - len(lost)} of "
            f"{present} answers still there{', lost: ' if lost else ''}{' '.join(lost)}"
        )


if __name__ == "__main__":
    main()
