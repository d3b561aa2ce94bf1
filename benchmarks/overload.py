"""How many reranks are in time when more are asked for than the machine can do, and how late anybody is.

Run it with nothing else running: `python benchmarks/overload.py`. Each burst asks for 2, 4 or 8 times as many reranks
as fit into their timeout, all at once, from threads or from tasks of one event loop. Capacity is measured in turn with
the bursts, from the same reranks without a timeout, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.testing import FakeCrossEncoder

TIMES = (2, 4, 8)
"""Sizes of the bursts, as multiples of capacity."""


class SleepingCrossEncoder(FakeCrossEncoder):
    """A model whose forward pass takes 20 ms of no processor's time, so that the scheduler alone is measured."""

    max_batch_pairs = 4

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        time.sleep(0.02)
        return super()._score_batch(batch)


@dataclass(frozen=True)
class Outcome:
    """What one caller got.

    Attributes:
        reranked: Whether the documents were reranked, and not returned in the order in which they came.
        seconds: How long the call took.
    """

    reranked: bool
    seconds: float


class Load:
    """Reranks of one kind, each with a query and documents of its own, so that nothing is found in a cache."""

    def __init__(self, model: CrossEncoder, candidates: int, words: int) -> None:
        self._model = model
        self._candidates = candidates
        self._words = words
        self._calls = 0

    def _input(self) -> tuple[str, list[Document]]:
        self._calls += 1
        text = " ".join(f"ferry{self._calls} island {word}" for word in range(self._words // 3))
        return f"when does ferry {self._calls} leave", [Document(f"{n} {text}") for n in range(self._candidates)]

    def _outcome(self, documents: list[Document], started: float) -> Outcome:
        return Outcome(documents[0].metadata.get("reranked") is not False, time.perf_counter() - started)

    def by_threads(self, number: int, timeout: float | None) -> list[Outcome]:
        """Rerank from as many threads, which begin together."""
        reranker = CrossEncoderReranker(model=self._model, timeout=timeout, on_error="keep_order")
        inputs = [self._input() for _ in range(number)]
        together = threading.Barrier(number)
        outcomes: list[Outcome] = []

        def call(query: str, documents: list[Document]) -> None:
            together.wait()
            started = time.perf_counter()
            outcomes.append(self._outcome(reranker.compress_documents(documents, query), started))

        threads = [threading.Thread(target=call, args=each) for each in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def by_tasks(self, number: int, timeout: float | None) -> list[Outcome]:
        """Rerank from as many tasks of one event loop."""
        reranker = CrossEncoderReranker(model=self._model, timeout=timeout, on_error="keep_order")
        inputs = [self._input() for _ in range(number)]

        async def call(query: str, documents: list[Document]) -> Outcome:
            started = time.perf_counter()
            return self._outcome(await reranker.acompress_documents(documents, query), started)

        async def run() -> list[Outcome]:
            return await asyncio.gather(*(call(*each) for each in inputs))

        return asyncio.run(run())


def seconds_each(load: Load, number: int) -> float:
    """Measure how long a rerank takes among others, without a timeout, in seconds."""
    started = time.perf_counter()
    load.by_tasks(number, None)
    return (time.perf_counter() - started) / number


def batch_seconds(model: CrossEncoder, words: int) -> float:
    """Measure one forward pass of the usual size, in seconds."""
    pairs = [("when does the ferry leave", f"{n} " + "island " * words) for n in range(64)]
    steps = model.score_steps(pairs)
    spent = []
    while True:
        started = time.perf_counter()
        try:
            next(steps)
        except StopIteration:
            return statistics.median(spent[1:] or spent)
        spent.append(time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled", help='a model, or "sleeping" for one that takes no processor')
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds that each rerank is given")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = SleepingCrossEncoder() if arguments.model == "sleeping" else load_cross_encoder(arguments.model)
    model.warm_up()
    load = Load(model, arguments.candidates, arguments.words)
    load.by_tasks(5, None)
    batch = batch_seconds(model, arguments.words)
    print(f"{model!r}\none forward pass {1000 * batch:.0f} ms, timeout {arguments.timeout} s")
    ways: dict[str, Callable[[int, float | None], list[Outcome]]] = {"threads": load.by_threads, "tasks": load.by_tasks}
    shares = []
    for times in TIMES:
        for name, way in ways.items():
            for _ in range(arguments.rounds):
                before = seconds_each(load, 10)
                capacity = max(1, int(arguments.timeout / before))
                outcomes = way(times * capacity, arguments.timeout)
                after = seconds_each(load, 10)
                possible = min(capacity, int(arguments.timeout / after)) or 1
                done = sum(outcome.reranked for outcome in outcomes)
                late = max(outcome.seconds for outcome in outcomes) - arguments.timeout
                shares.append(done / possible)
                print(
                    f"{times} x capacity, {name:7}: {done:3} of {len(outcomes):4} reranked, {possible:3} possible, "
                    f"share {done / possible:.2f}, latest {late / batch:+.1f} batches past its deadline",
                    flush=True,
                )
    print(f"lowest share {min(shares):.2f}, median {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
