"""What a process loads on its way to the first reranked list."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

IMPORTING = "from langchain_crossrerank import CrossEncoderReranker"
"""Importing the reranker, with any backend."""

RERANKING = f"""
from langchain_core.documents import Document
{IMPORTING}
CrossEncoderReranker(model="bundled").compress_documents([Document("a ferry"), Document("a bee")], "what flies?")
"""
"""The shortest way to a reranked list: the model inside the package on the onnx backend."""

NEVER = {
    "filelock",
    "huggingface_hub",
    "jinja2",
    "langchain_classic",
    "langchain_community",
    "onnx",
    "openvino",
    "safetensors",
    "sentence_transformers",
    "sqlite3",
    "torch",
    "transformers",
    "yaml",
}
"""Packages for other models and other jobs, which loading the bundled model and scoring with it must not import."""

ONLY_TO_LOAD = {"cachetools", "numpy", "onnxruntime", "tokenizers"}
"""Packages that a model needs, and a reranker without one does not."""


def loaded(script: str) -> set[str]:
    """Return the modules that a script loads in a fresh process, with the packages around them."""
    listing = f"import json, sys\n{script}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("script", "spared"),
    [pytest.param(IMPORTING, NEVER | ONLY_TO_LOAD, id="import"), pytest.param(RERANKING, NEVER, id="first rerank")],
)
def test_starting_loads_only_what_it_needs(script: str, spared: set[str]) -> None:
    """Neither importing the reranker nor its first list loads a package that belongs to another job."""
    modules = loaded(script)
    assert "langchain_crossrerank.reranker" in modules
    assert modules & spared == set()
    assert ("onnxruntime" in modules) is (script == RERANKING)


def test_importing_builds_no_wrapper() -> None:
    """The retries that a reranker can be given, with the libraries that they need, come when one is asked for."""
    with_retry = f"{IMPORTING}\nCrossEncoderReranker(model='bundled').with_retry()"
    assert "langchain_core.runnables.retry" in loaded(with_retry) - loaded(IMPORTING)
