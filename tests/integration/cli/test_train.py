"""`crossrerank train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank import cli
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_EMBEDDINGS_FOLDER


@pytest.mark.parametrize(
    ("base", "named"),
    [
        ("crossrerank-tests/none", "offline mode is enabled"),
        ("./no-folder", "'./no-folder'"),
        (str(BUNDLED_EMBEDDINGS_FOLDER), "no model.safetensors"),
    ],
)
def test_a_base_that_cannot_be_trained_is_answered_with_bases_that_can(
    tmp_path: Path, error_of: Callable[[int], str], base: str, named: str
) -> None:
    """A base without weights to train, or one that is not there, is one line with the reason and with models to use."""
    (tmp_path / "pairs.jsonl").write_text('{"query": "What is bread?", "positive": "Bread is made of flour."}\n' * 4)
    said = error_of(cli.main(["train", "pairs.jsonl", "--base", base, "--output", "trained"]))
    assert named in said
    assert "cross-encoder/ms-marco-MiniLM-L6-v2" in said
    assert "sentence-transformers/all-MiniLM-L6-v2" in said
    assert "--offline" not in said
    assert not (tmp_path / "trained").exists()
