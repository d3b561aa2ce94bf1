"""How often the right tool is among those offered: by the cross-encoder, by embeddings and by BM25.

    python benchmarks/tool_selection.py [--model bundled] [--embeddings bundled] [--max-tools 5]

60 requests over 50 tools, both in `benchmarks/data`; 20 requests were held out when the wording of tools for the model
was chosen. All three rank the same wording. Prints recall with its 95 % interval, the paired difference from the better
of the others, and milliseconds per selection. LangChain's `LLMToolSelectorMiddleware` has the same interface and calls
a language model instead; what that costs depends on the provider, so only the tokens of its prompt are counted here.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from langchain_core.tools import BaseTool, StructuredTool
from rank_bm25 import BM25Okapi
from shares import wilson
from timing import Stopwatch

from langchain_crossrerank import load_cross_encoder, load_embeddings
from langchain_crossrerank.agents.context import estimate_tokens
from langchain_crossrerank.agents.tool_selection import describe_tool
from langchain_crossrerank.evaluation.significance import paired_difference

DATA = Path(__file__).parent / "data"

_OURS = "cross-encoder"

Array = npt.NDArray[np.float64]


def read(name: str) -> list[dict[str, str]]:
    """Read a file of JSON lines."""
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def as_tool(name: str, description: str) -> BaseTool:
    """Make a tool that does nothing."""
    return StructuredTool.from_function(lambda: None, name=name, description=description)


def words(text: str) -> list[str]:
    """Split a text into lower-cased words."""
    return re.findall(r"\w+", text.lower())


def hits(scores: Array, right: npt.NDArray[np.int_], most: int) -> Array:
    """Whether the right tool is among the best, as 1 or 0; a tie counts against it."""
    of_right = scores[np.arange(len(right)), right][:, None]
    better = (scores >= of_right).sum(axis=1) - 1
    return (better < most).astype(float)


def rank_all(rank: Callable[[str], list[float]], queries: list[str]) -> tuple[Array, float]:
    """Return the scores of all tools for each query, and the median of the milliseconds that a query took."""
    rank("warm up")
    watch = Stopwatch()
    scores = [watch.time(partial(rank, query)) for query in queries]
    return np.array(scores), 1000 * watch.median


def main() -> None:
    """Rank all tools for all requests in three ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--embeddings", default="bundled")
    parser.add_argument("--max-tools", type=int, default=5)
    options = parser.parse_args()
    rows, requests = read("tools.jsonl"), read("tool_requests.jsonl")
    texts = [describe_tool(as_tool(row["name"], row["description"])) for row in rows]
    names = [row["name"] for row in rows]
    right = np.array([names.index(request["tool"]) for request in requests])
    held_out = np.array([request["split"] == "held-out" for request in requests])
    cross_encoder, bi_encoder = load_cross_encoder(options.model), load_embeddings(options.embeddings)
    bm25, vectors = BM25Okapi([words(text) for text in texts]), np.array(bi_encoder.embed_documents(texts))
    ways = {
        _OURS: lambda query: cross_encoder.score([(query, text) for text in texts]),
        "embeddings": lambda query: (vectors @ np.array(bi_encoder.embed_query(query))).tolist(),
        "BM25": lambda query: bm25.get_scores(words(query)).tolist(),
    }
    found: dict[str, Array] = {}
    for name, rank in ways.items():
        scores, milliseconds = rank_all(rank, [request["text"] for request in requests])
        found[name] = hits(scores, right, options.max_tools)
        print(
            f"{name:20} recall@{options.max_tools} {wilson(found[name])}, chosen on {wilson(found[name][~held_out])}, "
            f"held out {wilson(found[name][held_out])}, recall@1 {hits(scores, right, 1).mean():.3f}, "
            f"{milliseconds:.1f} ms per selection"
        )
    ours = found.pop(_OURS)
    best = max(found, key=lambda name: found[name].mean())
    difference = paired_difference(found[best].tolist(), ours.tolist())
    print(
        f"difference from {best}: {difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}), "
        "target: not below 0"
    )
    print(f"the prompt of an LLM selector: about {estimate_tokens(' '.join(texts))} tokens per selection")


if __name__ == "__main__":
    main()
