"""The rerank server against the same model in this process, alone and with many clients, and against Infinity.

Run it on an idle machine: `python benchmarks/server.py`, with `--soak 600` for ten minutes of traffic at the end.
`--infinity infinity/bin/infinity_emb --model FOLDER` also times Infinity with the same weights; see
`benchmarks/infinity_server.py` for how to install it. Needs the `server` and `remote` extras.

- One client sends 20 requests of 500 passages; the same calls are made in this process, in turns.
- Sixteen clients send requests of 20 passages at once; sixteen tasks do the same in this process. Fair sharing would
  finish each in sixteen times what it takes alone, which is compared with the 99th percentile.
- The soak keeps four clients busy, kills one in the middle of a request every few seconds, and reports the server's
  memory after the first minute and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from infinity_server import serve as serve_infinity
from timing import Stopwatch, in_turns

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.pooled import PooledCrossEncoder

CLIENTS = 16
QUERY = "How does low-rank adaptation save memory?"
WORDS = ("rank", "matrix", "model", "memory", "weights", "ferry", "harbour", "training", "adapter", "layer", "bread")


def passages(number: int, *, seed: int, words: int = 60) -> list[str]:
    """Make different passages of many lengths around a number of words."""
    choice = random.Random(seed)
    return [" ".join(choice.choices(WORDS, k=choice.randint(words // 3, words * 5 // 3))) for _ in range(number)]


@contextlib.contextmanager
def crossrerank(model: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run our server, and yield its address and process id."""
    command = [sys.executable, "-m", "langchain_crossrerank.cli", "serve", model, "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://[^\s,]+", line)
        if found is None:
            raise SystemExit(f"the server does not start: {line}{process.stderr.read()}")
        while not _is_ready(found[0]):
            time.sleep(0.1)
        yield found[0], process.pid
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health").status_code == httpx.codes.OK
    return False


def post(client: httpx.Client, url: str, texts: Sequence[str]) -> None:
    """Send one request, and check that it is answered whole."""
    answer = client.post(f"{url}/rerank", json={"query": QUERY, "documents": list(texts)})
    assert len(answer.raise_for_status().json()["results"]) == len(texts)


def one_client(model: str, url: str, *, requests: int, candidates: int, others: dict[str, str]) -> dict[str, Stopwatch]:
    """Time one caller in this process, at our server, and at others, in turns."""
    local = load_cross_encoder(model)
    batches = [passages(candidates, seed=seed) for seed in range(requests + 1)]
    with httpx.Client(timeout=600) as client:
        return in_turns(
            {
                "in process": lambda turn: local.score([(QUERY, text) for text in batches[turn % len(batches)]]),
                "server": lambda turn: post(client, url, batches[turn % len(batches)]),
                **{
                    name: lambda turn, other=other: post(client, other, batches[turn % len(batches)])  # type: ignore[misc]
                    for name, other in others.items()
                },
            },
            rounds=requests,
            pause=0.3,
        )


async def many_clients(
    url: str | None, model: str, *, clients: int, requests: int, candidates: int
) -> list[list[float]]:
    """Run clients at once, each sending one request after another; return the seconds of each client's requests.

    Args:
        url: The server; `None` for calls in this process.
        model: The model of calls in this process.
        clients: Number of clients.
        requests: Requests of each client.
        candidates: Passages of a request.
    """
    local = PooledCrossEncoder(load_cross_encoder(model))

    async def work(number: int) -> list[float]:
        watch = []
        async with httpx.AsyncClient(timeout=600) as client:
            for turn in range(requests):
                texts = passages(candidates, seed=1000 * number + turn)
                started = time.perf_counter()
                if url is None:
                    await local.ascore([(QUERY, text) for text in texts])
                else:
                    body = {"query": QUERY, "documents": texts}
                    (await client.post(f"{url}/rerank", json=body)).raise_for_status()
                watch.append(time.perf_counter() - started)
        return watch

    return await asyncio.gather(*(work(number) for number in range(clients)))


def throughput(model: str, url: str, *, requests: int, candidates: int) -> None:
    """Print throughput and waiting times of many clients, in this process and at the server, in turns."""
    rows: dict[str, list[tuple[float, float]]] = {"in process": [], "server": []}
    for _ in range(3):
        for name, where in (("in process", None), ("server", url)):
            started = time.perf_counter()
            seconds = asyncio.run(many_clients(where, model, clients=CLIENTS, requests=requests, candidates=candidates))
            spent = time.perf_counter() - started
            waits = sorted(itertools.chain.from_iterable(seconds))
            rows[name].append((CLIENTS * requests * candidates / spent, waits[int(0.99 * (len(waits) - 1))]))
    alone = statistics.median(
        asyncio.run(many_clients(None, model, clients=1, requests=2 * requests, candidates=candidates))[0]
    )
    figures = {name: tuple(map(statistics.median, zip(*row, strict=True))) for name, row in rows.items()}
    for name, (pairs, slowest) in figures.items():
        print(f"| {CLIENTS} clients, {name} | {pairs:.0f} pairs/s, p99 {1000 * slowest:.0f} ms |")
    (local, _), (served, slowest) = figures["in process"], figures["server"]
    print(f"| throughput of the server against in process | {served / local:.2f} (target: 0.95 or more) |")
    print(f"| p99 of the server against fair sharing | {slowest / (CLIENTS * alone):.2f} (target: 1.5 or less) |")


def soak(url: str, process: int, seconds: float) -> None:
    """Keep the server busy, kill clients, and print its memory over time and the requests that failed.

    In the first minute the passages are short and many, so that the tokens of passages, which are kept in 16 MB, fill
    them within it.
    """
    program = (
        "import sys, httpx\n"
        "while True: httpx.post(sys.argv[1], json={'query': 'q', 'documents': ['some words'] * 200}, timeout=600)"
    )
    started, failed, sent, memory = time.monotonic(), 0, 0, {}
    killed = 0
    victim: subprocess.Popen[bytes] | None = None
    with httpx.Client(timeout=600) as client:
        while (spent := time.monotonic() - started) < seconds:
            if victim is None or sent % 20 == 0:
                if victim is not None:
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
                    killed += 1
                victim = subprocess.Popen([sys.executable, "-c", program, f"{url}/v1/rerank"])
            try:
                post(client, url, passages(500, seed=sent, words=6) if spent < 60 else passages(50, seed=sent))
            except (httpx.HTTPError, AssertionError):
                failed += 1
            sent += 1
            memory[int(spent // 60)] = _memory(process)
        if victim is not None:
            victim.kill()
            victim.wait()
        time.sleep(2)
        in_flight = re.search(r"^crossrerank_requests_in_flight (\S+)", client.get(f"{url}/metrics").text, re.MULTILINE)
    figures = ", ".join(f"{minute} min {size:.0f}" for minute, size in memory.items())
    print(f"| soak of {seconds:.0f} s | {sent} requests, {failed} failed, {killed} clients killed |")
    print(f"| memory of the server in MiB | {figures} |")
    print(f"| requests left in the server | {in_flight[1] if in_flight else 'unknown'} (target: 0) |")


def _memory(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # Linux always has it


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", help='"bundled" or a folder; Infinity needs a folder')
    parser.add_argument("--infinity", type=Path, help="the executable infinity_emb")
    parser.add_argument("--requests", type=int, default=20, help="requests of one client")
    parser.add_argument("--candidates", type=int, default=500, help="passages of each of them")
    parser.add_argument("--soak", type=float, default=0, help="seconds of traffic at the end")
    options = parser.parse_args()
    print("| what | measured |\n|---|---|")
    with contextlib.ExitStack() as stack:
        url, process = stack.enter_context(crossrerank(options.model))
        others = {}
        if options.infinity is not None:
            others["Infinity"] = stack.enter_context(serve_infinity(options.infinity, options.model))
        watches = one_client(
            options.model, url, requests=options.requests, candidates=options.candidates, others=others
        )
        for name, watch in watches.items():
            print(f"| one client, {options.candidates} passages, {name} | {1000 * watch.median:.0f} ms |")
        ratio = watches["server"].median / watches["in process"].median
        print(f"| one client at the server against in process | {ratio:.2f} (target: 1.10 or less) |")
        if "Infinity" in watches:
            ratio = watches["server"].median / watches["Infinity"].median
            print(f"| one client at the server against Infinity | {ratio:.2f} (target: 1.00 or less) |")
        throughput(options.model, url, requests=max(1, options.requests // 4), candidates=20)
        if options.soak:
            soak(url, process, options.soak)


if __name__ == "__main__":
    main()
