"""Weights in files: what a loaded model sees of later changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs import stored_weights
from langchain_crossrerank.onnx_graphs.stored_weights import StoredWeight, WeightFiles

VALUES = np.arange(1000, dtype=np.float32)


@pytest.fixture
def files(tmp_path: Path) -> WeightFiles:
    """One weight that begins at the second byte of a file."""
    (tmp_path / "model.onnx").write_bytes(b"x" + VALUES.tobytes())
    return WeightFiles(tmp_path / "model.onnx", [StoredWeight("w", 1, (1000,), "", 1, 4000)])


def test_weights_are_read_where_they_are(files: WeightFiles) -> None:
    """A weight at any offset is an array of its values, and a value of onnxruntime."""
    assert np.array_equal(files.arrays()["w"], VALUES)
    assert np.array_equal(files.values()["w"].numpy(), VALUES)


def test_a_file_that_is_replaced_stays_what_it_was(files: WeightFiles, tmp_path: Path) -> None:
    """Deploying another model in the same place does not change one that is loaded."""
    (tmp_path / "new").write_bytes(b"y" + (VALUES + 1).tobytes())
    (tmp_path / "new").replace(tmp_path / "model.onnx")
    assert np.array_equal(files.arrays()["w"], VALUES)


def test_a_file_that_is_changed_in_place_is_refused(files: WeightFiles, tmp_path: Path) -> None:
    """Weights that were overwritten since are not used under the old name."""
    (tmp_path / "model.onnx").write_bytes(b"y" + (VALUES + 1).tobytes())
    with pytest.raises(UnsupportedModelError, match="load the model again"):
        files.arrays()


def test_memory_is_given_back_while_weights_are_copied(files: WeightFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving the mapped pages back, at the end at the latest, leaves the weights as they are."""
    monkeypatch.setattr(stored_weights, "_WORTH_RELEASING", 1)
    released: list[int] = []
    release = files._release
    monkeypatch.setattr(files, "_release", lambda: released.append(1) or release())
    with files.while_copied():
        copy = files.arrays()["w"].copy()
    assert released
    assert np.array_equal(copy, VALUES)
    assert np.array_equal(files.arrays()["w"], VALUES)
