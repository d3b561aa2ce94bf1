"""Runs one scenario on a local Ray cluster of two nodes with a core each, and prints what came of it as JSON.

python ray_cluster.py SCENARIO, where SCENARIO is `score`, `kill` or `serve`
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Before ray is imported: nothing is reported to anyone.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A busy machine takes its time to start processes.
os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "120"

import psutil
import pyarrow
import ray
from ray.cluster_utils import Cluster

from langchain_crossrerank.ray import create_deployment, score_dataset
from langchain_crossrerank.scoring import BatchScorer
from langchain_crossrerank.server.config import ServerConfig

ROWS = [
    {
        "id": number,
        "query": "what is LoRA?" if number % 2 else "when does the ferry leave?",
        "passage": f"{number}: LoRA adds small matrices to a frozen model. " * (1 + number % 9),
    }
    for number in range(360)
]
STORE_BYTES = 100 << 20


@contextmanager
def local_cluster(nodes: int) -> Iterator[Cluster]:
    """Start a head without cores and nodes with one core each, in processes of this machine."""
    common = {"object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(**common, num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def actors(title: str) -> list[psutil.Process]:
    """Find the actors of this cluster whose title contains a text."""
    return [child for child in psutil.Process().children(recursive=True) if title in _title(child)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def scored(*, when_busy: Callable[[], None] | None = None) -> dict[str, Any]:
    """Score the rows on two workers, and compare with the model in this process."""
    # In memory already: the two cores belong to the workers, and none is left for tasks that read.
    data = ray.data.from_arrow([pyarrow.Table.from_pylist(ROWS[start : start + 30]) for start in range(0, 360, 30)])
    lazy = score_dataset(data, "bundled", workers=2, batch_rows=30)
    found: list[dict[str, Any]] = []
    for row in lazy.iter_rows():
        found.append(row)
        if when_busy is not None:
            when_busy()
    expected = BatchScorer("bundled", num_threads=1).model.score([(row["query"], row["passage"]) for row in ROWS])
    errors = [abs(row["score"] - expected[row["id"]]) for row in found]
    return {"ids": sorted(row["id"] for row in found), "largest_error": max(errors)}


def kill_one(done: list[int]) -> Callable[[], None]:
    """Make a function that kills one of two scoring actors, the first time that it is called."""

    def kill() -> None:
        workers = actors("BatchScorer")
        if not done and workers:
            done.append(workers[0].pid)
            workers[0].kill()

    return kill


def served() -> dict[str, Any]:
    """Serve two replicas, ask them, kill one, and ask again until two are there."""
    import httpx
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
    config = ServerConfig({"bundled": "bundled"}, api_keys=("a-key-for-the-test",))
    serve.run(create_deployment(config, replicas=(2, 2), options={"health_check_period_s": 1.0}))
    passages = [row["passage"] for row in ROWS[:20]]
    body = {"model": "bundled", "query": "what is LoRA?", "documents": passages}
    client = httpx.Client(base_url=url, headers={"authorization": "Bearer a-key-for-the-test"}, timeout=120)
    answers = [client.post("/v2/rerank", json=body) for _ in range(8)]
    first = {process.pid for process in actors("RerankServer")}
    actors("RerankServer")[0].kill()
    statuses = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        statuses.append(client.post("/v2/rerank", json=body).status_code)
        now = {process.pid for process in actors("RerankServer")}
        if len(now) == 2 and now != first:
            break
    unknown = client.post("/v2/rerank", json={**body, "model": "other"}).status_code
    denied = httpx.post(f"{url}/v2/rerank", json=body, timeout=120).status_code
    health = client.get("/health").json()
    serve.shutdown()
    expected = BatchScorer("bundled", num_threads=1).model.score([("what is LoRA?", passage) for passage in passages])
    results = [answer.json()["results"] for answer in answers]
    return {
        "largest_error": max(abs(row["relevance_score"] - expected[row["index"]]) for rows in results for row in rows),
        "counts": [len(rows) for rows in results],
        "replicas": len(first),
        "replaced": len(now - first),
        "last_status": statuses[-1],
        "unknown": unknown,
        "denied": denied,
        "health": health,
    }


def main() -> None:
    """Run the scenario that is named."""
    scenario = sys.argv[1]
    with local_cluster(2):
        killed: list[int] = []
        when_busy = kill_one(killed) if scenario == "kill" else None
        result = served() if scenario == "serve" else scored(when_busy=when_busy)
    print(json.dumps({**result, "killed": len(killed)}))


if __name__ == "__main__":
    main()
