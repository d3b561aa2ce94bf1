"""Production figures: event-loop lag, fairness of throughput, cache speed, and growth with the number of candidates.

    python benchmarks/trust.py [--model bundled] [--passages 20] [--skip-large]

Everything is measured in one run on this machine; timings are ratios or percentiles, and memory is the operating
system's peak for a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

from langchain_core.documents import Document
from timing import in_turns, seconds, time_process

from langchain_crossrerank import CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder

SENTENCE = (
    "a model reads the query and passage together while attention compares every token with every other token so "
    "that ranking documents by relevance becomes precise although slower than comparing two vectors"
)
CALLS = 16
ROUNDS = 5
TICK = 0.001


def make_documents(count: int, seed: int = 0, words: int = 60) -> list[Document]:
    """Make passages of about `words` words that differ from each other."""
    source = random.Random(seed)
    return [Document(f"{i} " + " ".join(source.choices(SENTENCE.split(), k=words))) for i in range(count)]


async def at_once(reranker: CrossEncoderReranker, passages: int) -> None:
    """Run concurrent reranks."""
    calls = [reranker.acompress_documents(make_documents(passages, seed), f"query {seed}") for seed in range(CALLS)]
    await asyncio.gather(*calls)


async def loop_lag(reranker: CrossEncoderReranker, passages: int) -> tuple[float, float]:
    """Run concurrent reranks next to a ticking task; return the 99th percentile and the largest lag in ms."""
    lags: list[float] = []
    running = True

    async def tick() -> None:
        while running:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            lags.append((time.perf_counter() - due) * 1000)

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0.05)
    await at_once(reranker, passages)
    running = False
    await ticking
    return statistics.quantiles(lags, n=100)[98], max(lags)


def in_sequence(reranker: CrossEncoderReranker, passages: int) -> None:
    """Do the same reranks one after the other."""
    for seed in range(CALLS):
        reranker.compress_documents(make_documents(passages, seed), f"query {seed}")


def cache_speed(name: str, passages: int, cache: str | None) -> float:
    """Return how many times faster a repeated rerank is than the first one, both with a warm model."""
    model = load_cross_encoder(name)
    documents = make_documents(passages)
    plain = CrossEncoderReranker(model=model)
    cached = CrossEncoderReranker(model=CachedCrossEncoder(model, cache))
    query = "which model reads both texts"
    watches = in_turns(
        {
            "scoring": lambda _: plain.compress_documents(documents, query),
            "repeated": lambda _: cached.compress_documents(documents, query),
        },
        rounds=7,
    )
    return watches["scoring"].median / watches["repeated"].median


def growth(name: str, count: int) -> tuple[float, float]:
    """Rerank `count` candidates in a fresh process; return its seconds of reranking and its peak MiB."""
    figures = time_process([__file__, "--model", name, "--child", str(count)])
    return float(figures.output), figures.peak_mib


def child(name: str, count: int) -> None:
    """Rerank, print the seconds, and end; the parent reads the peak memory."""
    reranker = CrossEncoderReranker(model=load_cross_encoder(name), top_n=5)
    reranker.compress_documents(make_documents(20), "warm up")
    documents = make_documents(count)
    print(seconds(lambda: reranker.compress_documents(documents, "which model reads both texts")))


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--passages", type=int, default=20, help="candidates of one rerank")
    parser.add_argument("--skip-large", action="store_true", help="leave out the 10,000 candidates, which take minutes")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.model, options.child)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.model}\n")
    print("| what | measured | target |\n|---|---|---|")

    # First, while this process is small: a child's peak memory starts at its parent's.
    if not options.skip_large:
        few_before, peak_few = growth(options.model, 100)
        many, peak_many = growth(options.model, 10_000)
        few = statistics.mean((few_before, growth(options.model, 100)[0]))
        print(f"| time of 10,000 / (100 x time of 100) | {many / (100 * few):.2f} | 0.85 to 1.15 |")
        print(f"| peak memory of 10,000 above that of 100 | {peak_many - peak_few:.0f} MiB | <= 60 |")

    reranker = CrossEncoderReranker(model=load_cross_encoder(options.model))
    reranker.compress_documents(make_documents(options.passages), "warm up")
    p99, largest = asyncio.run(loop_lag(reranker, options.passages))
    watches = in_turns(
        {
            "together": lambda _: asyncio.run(at_once(reranker, options.passages)),
            "sequence": lambda _: in_sequence(reranker, options.passages),
        },
        rounds=ROUNDS,
        warm_up=0,
    )
    throughput = watches["sequence"].median / watches["together"].median
    print(
        f"| event-loop lag p99, {CALLS} reranks of {options.passages} at once "
        f"| {p99:.1f} ms (largest {largest:.1f}) | < 20 |"
    )
    print(f"| throughput at once / in sequence | {throughput:.2f} | >= 1 |")

    memory = cache_speed(options.model, options.passages, None)
    with tempfile.TemporaryDirectory() as folder:
        sqlite = cache_speed(options.model, options.passages, str(Path(folder) / "scores.sqlite"))
    print(f"| repeated query, memory cache / scoring | {memory:.0f} times faster | >= 200 |")
    print(f"| repeated query, SQLite cache / scoring | {sqlite:.0f} times faster | >= 50 |")


if __name__ == "__main__":
    main()
