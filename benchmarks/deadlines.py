"""How long a call with a timeout takes to return, on every backend, with threads and with asyncio.

Run it with nothing else running: `python benchmarks/deadlines.py`. Each model gets work for many times the timeout: the
backends on this machine 2,000 long passages, the remote one a server that sends a byte every 100 ms and never ends.
Prints the seconds until each call returned; with `timeout=1` none may take more than 1.5. Needs the `torch`,
`openvino` and `remote` extras; what is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_core.documents import Document
from timing import seconds

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.errors import MissingExtraError


class SlowAnswer(socketserver.BaseRequestHandler):
    """Announces a long answer and sends it a byte at a time."""

    def handle(self) -> None:
        """Answer until the client has gone."""
        self.request.recv(65536)
        try:
            self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
            for _ in range(100_000):
                self.request.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            return


@contextmanager
def slow_server() -> Iterator[str]:
    """Run the slow server and yield its address."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), SlowAnswer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/rerank"
        server.shutdown()


def torch_model(folder: Path) -> str:
    """Write a BERT of MiniLM-L6's size with random weights, and return its folder."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    shutil.copyfile(BUNDLED_FOLDER / "tokenizer.json", folder / "tokenizer.json")
    BertTokenizerFast.from_pretrained(folder, model_max_length=512).save_pretrained(folder)
    return str(folder)


def documents(number: int, calls: int) -> list[Document]:
    """Return long passages that no other call has."""
    return [
        Document(f"passage {n} of call {calls}: " + "the ferry to the island leaves at nine. " * 40)
        for n in range(number)
    ]


def main() -> None:
    """Measure each backend, and print a line for each way to call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds")
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="deadlines-"))
    try:
        with slow_server() as url:
            models: dict[str, Callable[[], CrossEncoder]] = {
                "onnx": lambda: load_cross_encoder("bundled"),
                "openvino": lambda: load_cross_encoder("bundled", backend="openvino"),
                "torch": lambda: load_cross_encoder(torch_model(work / "torch"), backend="torch", device="cpu"),
                "remote": lambda: load_cross_encoder(url, timeout=60, max_retries=0),
            }
            for name, load in models.items():
                try:
                    model = load()
                except (ImportError, MissingExtraError) as err:
                    print(f"{name:10} left out: {err}")
                    continue
                measure(name, model, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure(name: str, model: CrossEncoder, options: argparse.Namespace) -> None:
    """Print how long calls with a timeout took on one model."""
    reranker = CrossEncoderReranker(model=model, timeout=options.timeout, on_error="keep_order")
    number = 2 if name == "remote" else options.passages
    reranked: list[bool] = []

    def note(found: list[Document] | tuple[Document, ...]) -> None:
        reranked.append(found[0].metadata.get("reranked") is not False)

    def by_thread(calls: int) -> float:
        candidates = documents(number, calls)
        return seconds(lambda: note(list(reranker.compress_documents(candidates, "when does the ferry leave"))))

    def by_task(calls: int) -> float:
        candidates = documents(number, calls)

        async def call() -> None:
            note(list(await reranker.acompress_documents(candidates, "when does the ferry leave")))

        return seconds(lambda: asyncio.run(call()))

    for way, measured in (("sync", by_thread), ("async", by_task)):
        took = [measured(calls) for calls in range(options.rounds)]
        print(f"{name:10} {way:6} back after {', '.join(f'{each:.2f}' for each in sorted(took))} s", flush=True)
    if any(reranked):
        print(f"{name:10} {sum(reranked)} calls were done in time: pass more --passages")


if __name__ == "__main__":
    main()
