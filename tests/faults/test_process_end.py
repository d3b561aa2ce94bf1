"""The end of a process that gave up on work: it exits as if nothing had happened, whatever its threads are doing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.fault_tally import Tally

WATCHDOG = 120
"""Seconds after which a child that hangs fails its test."""

_BEGINNING = """
import asyncio, sys, threading, time
from langchain_core.documents import Document
from langchain_crossrerank import CrossEncoderReranker, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.errors import RerankTimeoutError

class LongEnd:
    # Keeps the interpreter alive while it shuts down, so that threads inside native code come back meanwhile.
    def __del__(self, sleep=time.sleep):
        for _ in range(40):
            sleep(0.05)

long_end = LongEnd()
begun = threading.Event()
score_batch = OnnxCrossEncoder._score_batch

def noted(self, batch):
    if len(batch) > 1:
        begun.set()
    return score_batch(self, batch)

OnnxCrossEncoder._score_batch = noted
documents = [Document(f"{number} " + "words of a long passage " * 100) for number in range(1000)]
settings = {"max_batch_tokens": 4096}
"""

_LOADED = """
model = load_cross_encoder("bundled", **settings)
model.warm_up()
"""

_WHILE_LOADING = "a load under way"

SCRIPTS = {
    "a timeout": """
    try:
        CrossEncoderReranker(model="bundled", model_kwargs=settings, timeout=1.0).compress_documents(documents, "q")
    except RerankTimeoutError:
        print("given up")
    """,
    "a timeout that keeps the order": """
    reranker = CrossEncoderReranker(model="bundled", model_kwargs=settings, timeout=1.0, on_error="keep_order")
    if reranker.compress_documents(documents, "q")[0].metadata["reranked"] is False:
        print("given up")
    """,
    "wait_for": """
    reranker = CrossEncoderReranker(model="bundled", model_kwargs=settings)
    try:
        asyncio.run(asyncio.wait_for(reranker.acompress_documents(documents, "q"), 1.0))
    except TimeoutError:
        print("given up")
    """,
    "cancelled tasks": """
    reranker = CrossEncoderReranker(model="bundled", model_kwargs=settings)
    async def main():
        tasks = [asyncio.ensure_future(reranker.acompress_documents(documents, f"q{n}")) for n in range(8)]
        await asyncio.to_thread(begun.wait, 60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.run(main())
    print("given up")
    """,
    "work that nobody cancelled": """
    futures = [model.submit([("q", document.page_content) for document in documents]) for _ in range(4)]
    begun.wait(60)
    print("given up")
    """,
    _WHILE_LOADING: """
    try:
        CrossEncoderReranker(model="bundled", timeout=0.001).compress_documents(documents, "q")
    except RerankTimeoutError:
        print("given up")
    """,
    "an exception": """
    model.submit([("q", document.page_content) for document in documents])
    begun.wait(60)
    print("given up")
    sys.exit(3)
    """,
}


@pytest.mark.parametrize("how", SCRIPTS)
def test_a_process_that_gave_up_on_work_exits_as_usual(
    how: str, child_environment: dict[str, str], tally: Tally
) -> None:
    """After the caller gave up, the interpreter ends with its own status and without a word, never by an abort."""
    tally(f"the end of a process after {how}")
    script = _BEGINNING + ("" if how == _WHILE_LOADING else _LOADED) + textwrap.dedent(SCRIPTS[how])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        env=child_environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3 if "sys.exit(3)" in script else 0, "given up\n"), done.stderr
    assert "Traceback" not in done.stderr
