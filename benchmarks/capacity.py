"""Throughput of scoring on one core and on Ray workers with a core each, and what millions of pairs cost.

    python benchmarks/capacity.py [--model bundled] [--pairs 4000] [--json out.json]

Needs the `ray` extra and a machine with two idle cores. Pairs have passages of 300 to 700 characters. The first figure
is of one process with one thread and no Ray; the others are of a local cluster with one worker, and then two. Starting
a worker and loading its model are not counted: what is counted is the pairs scored while all workers are busy, by the
clock of the machine, for each batch in proportion to its time in that window.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

# Before ray is imported: nothing is reported to anyone.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pyarrow
import ray
from ray.cluster_utils import Cluster

from langchain_crossrerank.scoring import BatchScorer

TEXT = Path(__file__).parent.parent / "notebooks" / "data" / "llm_fundamentals.md"
QUERIES = ("how does attention read a passage?", "what is LoRA?", "when is a smaller model enough?")
BATCH_ROWS = 250
STORE_BYTES = 200 << 20
MILLIONS = (1, 10, 1000)


class TimedScorer(BatchScorer):
    """Notes for each row when its batch began and ended, and by which process."""

    def __call__(self, batch: Any) -> Any:
        """Return the batch with scores and the three columns."""
        began = time.time()
        scored = super().__call__(batch)
        for name, value in (("began", began), ("ended", time.time()), ("worker", os.getpid())):
            scored = scored.append_column(name, pyarrow.array([value] * scored.num_rows))
        return scored


def make_table(pairs: int) -> pyarrow.Table:
    """Cut passages out of the teaching text, each different."""
    source = random.Random(pairs)
    text = TEXT.read_text(encoding="utf-8")
    passages = []
    for number in range(pairs):
        length = source.randint(300, 700)
        start = source.randrange(len(text) - length)
        passages.append(f"{number} {text[start : start + length]}")
    return pyarrow.table({"query": [QUERIES[n % len(QUERIES)] for n in range(pairs)], "passage": passages})


def speed_without_ray(model: str, table: pyarrow.Table) -> float:
    """Score batches in this process with one thread; pairs per second."""
    scorer = BatchScorer(model, num_threads=1)
    scorer(table.slice(0, BATCH_ROWS))
    began = time.perf_counter()
    for start in range(0, table.num_rows, BATCH_ROWS):
        scorer(table.slice(start, BATCH_ROWS))
    return float(table.num_rows / (time.perf_counter() - began))


def speed_on_ray(model: str, table: pyarrow.Table, workers: int) -> float:
    """Score on a cluster of `workers` nodes with a core each; pairs per second while all of them are busy."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    try:
        for _ in range(workers):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        blocks = [table.slice(start, BATCH_ROWS) for start in range(0, table.num_rows, BATCH_ROWS)]
        # As score_dataset does it, with another scorer.
        scored = ray.data.from_arrow(blocks).map_batches(
            TimedScorer,
            fn_constructor_kwargs={"model": model, "num_threads": 1},
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        rows = [row for batch in scored.iter_batches(batch_format="pyarrow") for row in batch.to_pylist()]
    finally:
        ray.shutdown()
        cluster.shutdown()
    return busy_speed([(row["worker"], row["began"], row["ended"]) for row in rows])


def busy_speed(rows: list[tuple[int, float, float]]) -> float:
    """Count the rows scored while every worker was busy, without each worker's first batch, per second."""
    workers = {worker for worker, _, _ in rows}
    firsts = [min(end for worker, _, end in rows if worker == this) for this in workers]
    lasts = [max(end for worker, _, end in rows if worker == this) for this in workers]
    start, end = max(firsts), min(lasts)
    shares = [max(0.0, min(stop, end) - max(begun, start)) / (stop - begun) for _, begun, stop in rows]
    return sum(shares) / (end - start)


def main() -> None:
    """Measure, and print the table of the capacity page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = make_table(options.pairs)
    alone = speed_without_ray(options.model, table)
    one, two = (speed_on_ray(options.model, table, workers) for workers in (1, 2))
    print("| | pairs/s |\n|---|---|")
    for name, speed in (("one core, no Ray", alone), ("one Ray worker", one), ("two Ray workers", two)):
        print(f"| {name} | {speed:.0f} |")
    print(f"\ntwo workers : one worker = {two / one:.2f}; Ray : no Ray on one core = {one / alone:.2f}\n")
    print("| pairs | core hours |\n|---|---|")
    for millions in MILLIONS:
        print(f"| {millions:,} million | {millions * 1e6 / (two / 2) / 3600:,.1f} |")
    if options.json is not None:
        options.json.write_text(json.dumps({"alone": alone, "one_worker": one, "two_workers": two}))


if __name__ == "__main__":
    main()
