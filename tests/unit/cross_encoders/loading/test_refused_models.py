"""Models that are unknown, missing, incomplete or broken: the error names them and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from tests.unit.cross_encoders.loading.stubs import Install, MakeFolder


@pytest.mark.parametrize(
    "settings", [{}, {"local_files_only": True}, {"backend": "onnx"}, {"backend": "torch"}], ids=str
)
@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "no-such-model", "not a valid name!"])
def test_an_unknown_name_offline_names_the_bundled_model(
    install_torch: Install, name: str, settings: dict[str, Any]
) -> None:
    """A hub model that cannot be reached raises, names itself and `"bundled"`, and is never replaced in silence."""
    install_torch(True)
    with pytest.raises(ModelNotFoundError, match='"bundled"') as raised:
        load_cross_encoder(name, **settings)
    assert repr(name) in str(raised.value)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("backend", ["auto", "onnx", "torch"])
def test_a_missing_folder_is_named(tmp_path: Path, install_torch: Install, backend: Any) -> None:
    """A path that is not there raises with the path, on every backend."""
    install_torch(True)
    with pytest.raises(ModelNotFoundError, match="no model folder") as raised:
        load_cross_encoder(tmp_path / "nope", backend=backend)
    assert str(tmp_path / "nope") in str(raised.value)


@pytest.mark.parametrize(
    ("without", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("model.onnx", "model.onnx")],
)
def test_a_folder_that_lacks_a_file_is_refused(make_folder: MakeFolder, without: str, named: str) -> None:
    """The error says which file is missing and where."""
    folder = make_folder(without)
    with pytest.raises(ModelNotFoundError, match=named) as raised:
        load_cross_encoder(folder, backend="onnx")
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config__json", "{", r"config\.json is not valid JSON"),
        ("tokenizer_config__json", "nope", r"tokenizer_config\.json is not valid JSON"),
        ("tokenizer__json", "{", r"tokenizer\.json cannot be read as a fast tokenizer"),
        ("tokenizer__json", "", r"tokenizer\.json cannot be read as a fast tokenizer"),
        ("model__onnx", "not a graph", r"model\.onnx"),
        ("model__onnx", "", r"model\.onnx"),
    ],
)
def test_a_folder_with_a_broken_file_is_refused(make_folder: MakeFolder, file: str, content: str, message: str) -> None:
    """The error says which file is broken, and where."""
    folder = make_folder(**{file: content})
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        load_cross_encoder(folder)
    assert str(folder) in str(raised.value)
