"""Many callers at once, and models in other processes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank import CrossEncoder, CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends import onnx_session
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair
from langchain_crossrerank.cross_encoders.scheduling import interruptible
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import ModelNotFoundError
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally

CALLERS = 64

WATCHDOG = 60
"""Seconds after which a test that hangs fails; no test waits for it to pass."""

TOPICS = ["lora adapters", "ferry timetable", "low rank matrices", "tokenizer pieces"]


def candidates_of(caller: int, number: int) -> list[Document]:
    """Make the candidates of one caller; some are the same as another caller's."""
    return [
        Document(f"{TOPICS[(caller + place) % 4]} {'word ' * ((caller * place) % 11)}", id=f"{caller}-{place}")
        for place in range(number)
    ]


def query_of(caller: int) -> str:
    """Give the query of one caller."""
    return f"what about {TOPICS[caller % 4]} {caller // 8}"


def by_threads(call: Callable[[int], Any]) -> list[Any]:
    """Call from 64 threads that begin together."""
    together = threading.Barrier(CALLERS)

    def one(caller: int) -> Any:
        together.wait(WATCHDOG)
        return call(caller)

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(CALLERS)))


Everybody = Callable[[CrossEncoderReranker, int], list[list[Document]]]


def threads(reranker: CrossEncoderReranker, number: int) -> list[list[Document]]:
    """Rerank for 64 callers at once, each on a thread of its own."""
    return by_threads(lambda caller: reranker.compress_documents(candidates_of(caller, number), query_of(caller)))


def tasks(reranker: CrossEncoderReranker, number: int) -> list[list[Document]]:
    """Rerank for 64 callers at once, each a task of one event loop."""

    async def run() -> list[list[Document]]:
        calls = [
            reranker.acompress_documents(candidates_of(caller, number), query_of(caller)) for caller in range(CALLERS)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(run())


def loops(reranker: CrossEncoderReranker, number: int) -> list[list[Document]]:
    """Rerank for 64 callers at once, each with an event loop and a thread of its own."""
    return by_threads(
        lambda caller: asyncio.run(reranker.acompress_documents(candidates_of(caller, number), query_of(caller)))
    )


@pytest.fixture(params=[threads, tasks, loops])
def everybody(request: pytest.FixtureRequest, tally: Tally) -> Everybody:
    """64 callers at once, of each kind."""
    tally(f"{CALLERS} callers at once, {request.param.__name__}", CALLERS)
    way: Everybody = request.param
    return way


@pytest.fixture(scope="module")
def bundled() -> CrossEncoder:
    """The bundled model on one thread, so that the same batch always gives the same bits."""
    return load_cross_encoder("bundled", num_threads=1, max_length=24)


MODELS: dict[str, Callable[[CrossEncoder], CrossEncoder]] = {
    "fake": lambda bundled: FakeCrossEncoder(max_batch_tokens=30),
    "fake with a timeout": lambda bundled: FakeCrossEncoder(max_batch_tokens=30),
    "bundled": lambda bundled: bundled,
    "bundled in windows": lambda bundled: WindowedCrossEncoder(bundled, overlap=4),
}


@pytest.mark.parametrize("kind", MODELS)
def test_many_callers_get_what_one_gets(everybody: Everybody, kind: str, bundled: CrossEncoder) -> None:
    """Each of 64 callers at once gets exactly the documents and scores that it would get alone."""
    number = 20 if kind.startswith("fake") else 2
    timeout = WATCHDOG if kind.endswith("timeout") else None
    reranker = CrossEncoderReranker(model=MODELS[kind](bundled), top_n=3, timeout=timeout)
    alone = CrossEncoderReranker(model=MODELS[kind](bundled), top_n=3)
    expected = [alone.compress_documents(candidates_of(n, number), query_of(n)) for n in range(CALLERS)]
    assert everybody(reranker, number) == expected


@pytest.mark.parametrize("place", ["memory", "file"])
def test_many_callers_share_a_cache(everybody: Everybody, place: str, tmp_path: Path) -> None:
    """64 callers on one cache get the right scores, every look-up is counted, and a second round finds everything."""
    asked = FakeCrossEncoder(max_batch_tokens=30)
    model = CachedCrossEncoder(asked, tmp_path / "scores.db" if place == "file" else None)
    alone = CrossEncoderReranker(model=FakeCrossEncoder())
    expected = [alone.compress_documents(candidates_of(n, 8), query_of(n)) for n in range(CALLERS)]
    assert everybody(CrossEncoderReranker(model=model), 8) == expected
    different = sum(len({document.page_content for document in candidates_of(n, 8)}) for n in range(CALLERS))
    assert model.counts.hits + model.counts.misses == different
    before = model.counts
    assert everybody(CrossEncoderReranker(model=model), 8) == expected
    assert (model.counts.hits - before.hits, model.counts.misses) == (different, before.misses)


class Gated(FakeCrossEncoder):
    """A model whose first batch lasts until the test opens the gate; batches hold one pair."""

    def __init__(self) -> None:
        super().__init__(max_batch_tokens=1)
        self.begun, self.opened = threading.Event(), threading.Event()

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        self.begun.set()
        assert self.opened.wait(WATCHDOG), "nobody opened the gate"
        return super()._score_batch(batch)


@pytest.fixture
def gated() -> Iterator[Gated]:
    """A gated model, let go at the end so that no thread outlives its test."""
    model = Gated()
    yield model
    model.opened.set()


async def test_a_short_rerank_is_not_stuck_behind_a_long_one(gated: Gated, tally: Tally) -> None:
    """A rerank of 3 candidates submitted during one of 200 is done after a few batches, not after 200."""
    tally("a short call behind a long one")
    reranker = CrossEncoderReranker(model=gated, top_n=None)
    done: list[tuple[str, int]] = []

    def note(name: str, _: object) -> None:
        done.append((name, len(gated.batches)))

    long = asyncio.create_task(reranker.acompress_documents(candidates("long", 200), "long"))
    long.add_done_callback(partial(note, "long"))
    assert await asyncio.to_thread(gated.begun.wait, WATCHDOG)
    short = asyncio.create_task(reranker.acompress_documents(candidates("short", 3), "short"))
    await until(lambda: gated.scheduler.waiting == 1)
    gated.opened.set()
    assert [len(result) for result in await asyncio.gather(long, short)] == [200, 3]
    assert [name for name, _ in done] == ["long"]
    turns = [batch[0][0] for batch in gated.batches]
    assert turns[:8] == ["long", "long", "short", "long", "short", "long", "short", "long"]


def candidates(name: str, number: int) -> list[Document]:
    """Make different candidates."""
    return [Document(f"{name} {place}") for place in range(number)]


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go on until something is so."""
    while not condition():  # noqa: ASYNC110 - conditions of threads have no asyncio event
        await asyncio.sleep(0)


async def test_many_short_reranks_all_pass_a_long_one(gated: Gated, tally: Tally) -> None:
    """20 calls of 2 candidates, submitted during one of 500, all take turns with it and with each other."""
    tally("many short calls behind a long one", 20)
    long = asyncio.create_task(gated.ascore([("long", str(place)) for place in range(500)]))
    assert await asyncio.to_thread(gated.begun.wait, WATCHDOG)
    short = [asyncio.create_task(gated.ascore([(f"s{n}", "a"), (f"s{n}", "b")])) for n in range(20)]
    await until(lambda: gated.scheduler.waiting == 20)
    gated.opened.set()
    await asyncio.gather(*short)
    turns = [batch[0][0] for batch in gated.batches]
    last = max(place for place, name in enumerate(turns) if name != "long")
    assert turns[: last + 1].count("long") <= 4
    assert [name for name in turns if name != "long"] == [f"s{n}" for n in range(20)] * 2
    await long


async def test_thousands_of_calls_without_a_deadline_all_wait(tally: Tally) -> None:
    """Far more reranks than can run at a time are all served, because callers without a deadline wait their turn."""
    tally("calls without a deadline", 3000)
    reranker = CrossEncoderReranker(model=FakeCrossEncoder())
    calls = [reranker.acompress_documents(candidates(str(n), 2), "q") for n in range(3000)]
    assert [len(result) for result in await asyncio.gather(*calls)] == [2] * 3000


async def test_cancelled_calls_leave_no_work_behind(gated: Gated, tally: Tally) -> None:
    """Of 64 calls 63 are cancelled while they wait: the one that is left gets its scores, and no other is computed."""
    tally("cancelled calls", CALLERS - 1)
    first = asyncio.create_task(gated.ascore([("first", "a")]))
    assert await asyncio.to_thread(gated.begun.wait, WATCHDOG)
    others = [asyncio.create_task(gated.ascore([(f"other {n}", "a")])) for n in range(CALLERS - 1)]
    await until(lambda: gated.scheduler.waiting == CALLERS - 1)
    for task in others:
        task.cancel()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    gated.opened.set()
    assert await first == FakeCrossEncoder().score([("first", "a")])
    assert await gated.ascore([("last", "a")]) == FakeCrossEncoder().score([("last", "a")])
    assert [batch[0][0] for batch in gated.batches] == ["first", "last"]


async def test_a_call_that_is_given_up_stops_inside_a_forward_pass(
    monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """On onnxruntime a cancelled call ends the pass that is under way, and the model serves the next one."""
    tally("a call cancelled inside a forward pass")
    model = load_cross_encoder("bundled", max_batch_tokens=200_000)
    begun, outcomes = threading.Event(), Queue[str]()
    score_batch = OnnxCrossEncoder._score_batch

    @contextmanager
    def begins(stop: Callable[[], None]) -> Iterator[None]:
        with interruptible(stop):
            begun.set()
            yield

    def noted(self: OnnxCrossEncoder, batch: Sequence[EncodedPair]) -> Sequence[float]:
        try:
            scores = score_batch(self, batch)
        except Exception as err:
            outcomes.put(str(err))
            raise
        outcomes.put("done")
        return scores

    monkeypatch.setattr(OnnxCrossEncoder, "_score_batch", noted)
    monkeypatch.setattr(onnx_session, "interruptible", begins)
    call = asyncio.create_task(model.ascore([("q", f"{number} " + "word " * 400) for number in range(100)]))
    assert await asyncio.to_thread(begun.wait, WATCHDOG)
    call.cancel()
    assert "terminate" in await asyncio.to_thread(outcomes.get, timeout=WATCHDOG)
    assert len(await model.ascore([("q", "a passage")])) == 1


def test_a_model_is_loaded_once_for_many_threads(monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """64 threads that ask first at the same time get one and the same model, which was loaded once."""
    tally(f"{CALLERS} threads that load at once", CALLERS)
    loads: list[int] = []
    load = OnnxCrossEncoder._checked_session

    def counted(self: OnnxCrossEncoder) -> Any:
        loads.append(threading.get_ident())
        return load(self)

    monkeypatch.setattr(OnnxCrossEncoder, "_checked_session", counted)
    models = by_threads(lambda caller: load_cross_encoder("bundled", max_length=61))
    assert len({id(model) for model in models}) == 1
    assert len(loads) == 1


def test_a_load_that_fails_holds_nobody_up(tmp_path: Path, tally: Tally) -> None:
    """64 threads that ask for a missing model all get the error, and once the model is there it loads."""
    tally(f"{CALLERS} threads that fail to load at once", CALLERS)
    from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER

    place = tmp_path / "model"

    def outcome(caller: int) -> str:
        try:
            load_cross_encoder(place)
        except ModelNotFoundError:
            return "missing"
        return "loaded"

    assert by_threads(outcome) == ["missing"] * CALLERS
    place.symlink_to(BUNDLED_FOLDER)
    assert outcome(0) == "loaded"


METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]


def in_children(method: str, name: str, backend: str, environment: dict[str, str], *, children: int) -> dict[str, Any]:
    """Run the script that uses a model in its children."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("model_in_child.py")), method, name, backend, str(children)],
        capture_output=True,
        text=True,
        timeout=4 * WATCHDOG,
        env=environment,
        check=False,
    )
    assert done.stdout, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.parametrize(
    ("method", "parallelism"),
    # A process that begins afresh has no threads of its parent's tokenizers to miss.
    [(method, setting) for method in METHODS for setting in (None, "true") if method == "fork" or setting is None],
)
def test_a_loaded_model_works_in_a_child_process(
    method: str, parallelism: str | None, child_environment: dict[str, str], tally: Tally
) -> None:
    """Children that inherit or unpickle a model that was used before score right by every way, and none hangs."""
    children = 2 if method == "fork" else 1
    tally(f"a child process by {method}", children)
    child_environment.pop("TOKENIZERS_PARALLELISM", None)
    if parallelism is not None:
        child_environment["TOKENIZERS_PARALLELISM"] = parallelism
    outcome = in_children(method, "bundled", "onnx", child_environment, children=children)
    assert outcome["codes"] == [0] * children
    for there in outcome["there"]:
        for scores, expected in zip(there, outcome["here"], strict=True):
            assert scores == pytest.approx(expected, abs=1e-5)
    assert outcome["after"] is True, "the parent scores otherwise after its children"


@pytest.mark.skipif("fork" not in METHODS, reason="this system cannot fork")
def test_a_torch_model_works_in_a_forked_child(
    request: pytest.FixtureRequest, child_environment: dict[str, str], tally: Tally
) -> None:
    """A child that inherits a model on torch scores right and does not hang."""
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs the torch extra")
    tally("a child process by fork, torch")
    folder = request.getfixturevalue("tiny_model_folder")
    outcome = in_children("fork", str(folder), "torch", child_environment, children=1)
    assert outcome["codes"] == [0]
    for scores, expected in zip(outcome["there"][0], outcome["here"], strict=True):
        assert scores == pytest.approx(expected, abs=1e-5)
