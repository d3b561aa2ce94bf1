"""The embeddings inside the package: their golden vectors, and what using them costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_EMBEDDINGS_FOLDER
from langchain_crossrerank.embeddings import load_embeddings

GOLDEN = json.loads((BUNDLED_EMBEDDINGS_FOLDER / "golden.json").read_text(encoding="utf-8"))

LEAST_COSINE = 0.999
"""How close a vector is to that of the original weights in fp32."""

LARGEST_FILE = 25_000_000
"""Bytes that the graph may take."""


def test_the_vectors_are_close_to_the_original_ones() -> None:
    """Packing into eight bits moves no golden vector by more than a cosine of 0.999, and all have length 1."""
    vectors = np.array(load_embeddings("bundled").embed_documents([row["text"] for row in GOLDEN]))
    original = np.array([row["vector"] for row in GOLDEN])
    cosines = (vectors * original).sum(axis=1) / np.linalg.norm(original, axis=1)
    assert cosines.min() >= LEAST_COSINE
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_folder_is_complete_and_small() -> None:
    """The graph stays within its share of the wheel, and card and licence are there."""
    assert (BUNDLED_EMBEDDINGS_FOLDER / "model.onnx").stat().st_size < LARGEST_FILE
    assert "Apache-2.0" in (BUNDLED_EMBEDDINGS_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Apache License" in (BUNDLED_EMBEDDINGS_FOLDER / "LICENSE").read_text(encoding="utf-8")


def _run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_embedding_needs_no_torch_and_no_network() -> None:
    """In a fresh process the bundled embeddings load and embed without torch, transformers, onnx or a socket."""
    done = _run(
        """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")
socket.socket.connect = refuse
from langchain_crossrerank import load_embeddings
assert len(load_embeddings("bundled").embed_query("What is LoRA?")) == 384
heavy = {"torch", "transformers", "sentence_transformers", "langchain_huggingface", "onnx", "huggingface_hub"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
"""
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_embeds_with_inherited_embeddings() -> None:
    """Embeddings used before a fork give the child the same vectors, by both ways to embed."""
    done = _run(
        """
import asyncio, os, signal, sys
from langchain_crossrerank import load_embeddings
texts = ["What is LoRA?", "The weather."] * 20
embeddings = load_embeddings("bundled")
expected = embeddings.embed_documents(texts)
assert asyncio.run(embeddings.aembed_documents(texts)) == expected
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = embeddings.embed_documents(texts) == expected
    same = same and asyncio.run(embeddings.aembed_documents(texts)) == expected
    os._exit(0 if same and load_embeddings("bundled") is embeddings else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )
    assert done.returncode == 0, done.stderr
