"""Loads and uses a model, then uses it in child processes.

python model_in_child.py METHOD MODEL BACKEND CHILDREN

Prints one line of JSON: the scores in the parent, those of each child, and the exit codes. A child that has not ended
after a while is killed and counts as hanging.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder

PATIENCE = 60.0
"""Seconds after which a child counts as hanging."""

PAIRS = [
    ("how does lora work", f"passage {place} on low rank adapters {'and more ' * (place % 5)}") for place in range(12)
]


def use(model: CrossEncoder) -> list[list[float]]:
    """Score in every way: directly, asynchronously, and in a reranker."""
    reranker = CrossEncoderReranker(model=model, top_n=None, timeout=PATIENCE)
    ranked = reranker.compress_documents([Document(passage) for _, passage in PAIRS], PAIRS[0][0])
    ranked.sort(key=lambda document: int(document.metadata["initial_rank"]))
    by_rank = [float(document.metadata["relevance_score"]) for document in ranked]
    return [model.score(PAIRS), asyncio.run(model.ascore(PAIRS)), by_rank]


def child(model: CrossEncoder, answers: Any) -> None:
    """Use the inherited or unpickled model."""
    answers.put(use(model))


def main(method: str, name: str, backend: Any, children: int) -> None:
    """Use the model in this process and in children, and print the results."""
    model = load_cross_encoder(name, backend=backend)
    here = use(model)
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    processes = [context.Process(target=child, args=(model, answers)) for _ in range(children)]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    codes: list[int | str] = []
    for process in processes:
        process.join(PATIENCE)
        codes.append("hangs" if process.exitcode is None else process.exitcode)
        process.kill()
    there = [answers.get() for code in codes if code == 0]
    print(json.dumps({"here": here, "there": there, "codes": codes, "after": model.score(PAIRS) == here[0]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
