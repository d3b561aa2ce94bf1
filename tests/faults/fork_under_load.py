"""Forks children while threads score through one model, and says how each child ended; run as a script.

Arguments: what to score with, how many children. Prints one line: children that scored rightly, wrongly, and that hung.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_crossrerank import CrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.remote.client import RemoteCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.testing import FakeCrossEncoder

PATIENCE = 60
"""Seconds after which a child counts as hung; a child that scores needs less than one."""

LOAD = [("what is lora", f"passage {number} on low rank adapters") for number in range(400)]
"""What the parent's threads score all the time."""

PAIRS = LOAD[:20]
"""What a child scores."""


class Rerank(BaseHTTPRequestHandler):
    """A rerank server whose scores depend on the passage alone."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer with one score a passage."""
        passages = json.loads(self.rfile.read(int(self.headers["content-length"])))["documents"]
        results = [{"index": i, "relevance_score": 1 / (1 + len(text))} for i, text in enumerate(passages)]
        body = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def remote() -> CrossEncoder:
    """A model behind a server in a process of its own, which no fork here disturbs and which ends with this one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rerank)
    parent, leash = os.pipe()
    if os.fork() == 0:
        os.close(leash)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Nothing is ever written: this returns when the parent and its children are gone.
        os.read(parent, 1)
        os._exit(0)
    return RemoteCrossEncoder(f"http://127.0.0.1:{server.server_port}/rerank")


def models(folder: str) -> dict[str, Callable[[], CrossEncoder]]:
    """What can be scored with."""
    return {
        "memory": lambda: CachedCrossEncoder(FakeCrossEncoder(), MemoryScoreCache(20_000)),
        "sqlite": lambda: CachedCrossEncoder(FakeCrossEncoder(), SQLiteScoreCache(f"{folder}/s.db", max_bytes=50_000)),
        "onnx": lambda: load_cross_encoder("bundled"),
        "torch": lambda: load_cross_encoder(os.environ["TORCH_MODEL"], backend="torch"),
        "remote": remote,
    }


def main(kind: str, children: int) -> None:
    """Fork the children one after the other under load."""
    sys.setswitchinterval(1e-5)
    with tempfile.TemporaryDirectory() as folder:
        model = models(folder)[kind]()
        expected = model.score(PAIRS)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                model.score(LOAD)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        ends: Counter[str] = Counter()
        for _ in range(children):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(PATIENCE)
                status = 2
                try:
                    scores = model.score(PAIRS)
                    same = all(abs(one - other) < 1e-4 for one, other in zip(scores, expected, strict=True))
                    status = 0 if same else 1
                finally:
                    os._exit(status)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ends["right" if code == 0 else "hung" if code == -signal.SIGALRM else "wrong"] += 1
        stop.set()
        print(ends["right"], ends["wrong"], ends["hung"], flush=True)
        # Torch and onnxruntime may wait for threads at the end.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
