"""Recognising weights that are saved as pickles."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.pickles import find_pickle, refuse_pickles
from langchain_crossrerank.errors import ModelNotFoundError


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], "pytorch_model-00001-of-00002.bin"),
        (["model.pt"], "model.pt"),
        (["model.safetensors", "2_Dense/pytorch_model.bin"], "2_Dense/pytorch_model.bin"),
        (["pytorch_model.bin", "model.safetensors"], None),
        (["model-00001-of-00002.safetensors", "pytorch_model.bin"], None),
        (["model.safetensors", "training/optimizer.pt"], None),
        (["model.safetensors", "openvino/openvino_model.bin"], None),
        ([], None),
    ],
    ids=str,
)
def test_a_pickle_counts_where_there_are_no_safetensors(files: list[str], expected: str | None) -> None:
    """A folder and each module's folder are looked at by themselves; other folders hold no weights that are read."""
    assert find_pickle(files) == expected


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    """The error names the model and the file, and how to convert it."""
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "pytorch_model.bin").touch()
    with pytest.raises(ModelNotFoundError, match=r"^the weights of 'a' are a pickle \(2_Dense/pytorch_model.bin\)"):
        refuse_pickles("a", tmp_path)
    (tmp_path / "2_Dense" / "model.safetensors").touch()
    refuse_pickles("a", tmp_path)
