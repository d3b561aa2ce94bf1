"""What many reranks with different texts leave behind: resident memory, threads and open files, on each backend.

`python benchmarks/long_life.py` runs 10,000 reranks of two short passages and prints a line at the start, after a
quarter, after half and at the end: memory must level off, threads and files must not grow. Other work on the machine
does not matter. With `--timeout`, each rerank runs on the worker threads that a timeout needs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache


class Answer(BaseHTTPRequestHandler):
    """Scores passages by their length, in the shape of Cohere's API."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one request."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        results = [{"index": n, "relevance_score": len(text) / 1000} for n, text in enumerate(asked["documents"])]
        content = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def remote(stack: ExitStack) -> CrossEncoder:
    """Start a server in this process and connect to it."""
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return load_cross_encoder(f"http://127.0.0.1:{server.server_address[1]}/rerank")


def cached(stack: ExitStack) -> CrossEncoder:
    """Put a score cache on disk in front of the bundled model."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return CachedCrossEncoder(load_cross_encoder("bundled"), SQLiteScoreCache(Path(folder) / "scores.db"))


MODELS: dict[str, Callable[[ExitStack], CrossEncoder]] = {
    "onnx": lambda _: load_cross_encoder("bundled"),
    "openvino": lambda _: load_cross_encoder("bundled", backend="openvino"),
    "cached": cached,
    "remote": remote,
}


def state() -> str:
    """Say what this process holds now; Linux only."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    resident = int(status["VmRSS"].split()[0]) / 1024
    return f"{resident:7.0f} MiB {threading.active_count():4} threads {len(os.listdir('/proc/self/fd')):4} files"


def main() -> None:
    """Rerank many times on the chosen model, and print what is held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="onnx", choices=sorted(MODELS))
    parser.add_argument("--reranks", type=int, default=10_000)
    parser.add_argument("--timeout", type=float, help="seconds; none by default")
    options = parser.parse_args()
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    with ExitStack() as stack:
        model = MODELS[options.model](stack)
        reranker = CrossEncoderReranker(model=model, timeout=options.timeout)
        shown = {options.reranks // 50, options.reranks // 4, options.reranks // 2, options.reranks}
        for number in range(1, options.reranks + 1):
            texts = [" ".join(draw.choices(words, k=draw.randint(1, 40))) for _ in range(2)]
            reranker.compress_documents([Document(text) for text in texts], f"query {number} {draw.choice(words)}")
            if number in shown:
                print(f"{options.model:10} {number:7} reranks {state()}", flush=True)


if __name__ == "__main__":
    main()
