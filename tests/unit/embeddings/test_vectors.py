"""What follows a transformer, as sentence-transformers saved it: read, or refused by name."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.head_modules import check_modules
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.embeddings.vectors import UnitLength, read_text_vectors
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from tests.unit.embeddings.conftest import MakeEmbeddings


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({}, ("mean",)),
        ({"pooling_mode": "max"}, ("max",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_lasttoken": True}, ("lasttoken",)),
    ],
)
def test_pooling_is_read_in_old_and_new_words(
    make_embeddings: MakeEmbeddings, settings: dict[str, Any], pooling: tuple[str, ...]
) -> None:
    """The modes are those of the config, whatever release wrote it."""
    assert read_text_vectors(ModelSource("a model", make_embeddings({"Pooling": settings}))).pooling == pooling


def test_a_model_without_modules_takes_the_mean(make_embeddings: MakeEmbeddings) -> None:
    """Without `modules.json` the mean is taken, or the last token of a causal language model."""
    folder = make_embeddings()
    (folder / "modules.json").unlink()
    assert read_text_vectors(ModelSource("a model", folder)).pooling == ("mean",)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3ForCausalLM"]}))
    assert read_text_vectors(ModelSource("a model", folder)).pooling == ("lasttoken",)


def test_normalisation_is_read(make_embeddings: MakeEmbeddings) -> None:
    """A Normalize module scales vectors to length 1."""
    source = ModelSource("a model", make_embeddings({"Pooling": {}, "Normalize": {}, "Dropout": {}}))
    assert read_text_vectors(source).modules == (UnitLength(),)


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ({"Pooling": {}, "CNN": {}}, r"sentence_transformers\.CNN"),
        ({"WordWeights": {}, "Pooling": {}}, "WordWeights"),
        ({"Pooling": {"pooling_mode": "median"}}, "'median'"),
        ({"Pooling": {}, "Normalize": {"module_input_name": "token_embeddings"}}, "'token_embeddings'"),
        ({"Normalize": {}}, "Normalize"),
    ],
)
def test_what_is_not_known_is_named(make_embeddings: MakeEmbeddings, modules: dict[str, Any], named: str) -> None:
    """A module, a pooling or an input that cannot be computed is refused by name, with the way out."""
    with pytest.raises(UnsupportedModelError, match=rf"{named}.*torch backend"):
        read_text_vectors(ModelSource("a model", make_embeddings(modules)))


def test_a_model_of_another_kind_is_named(make_embeddings: MakeEmbeddings) -> None:
    """A model that does not begin with a transformer is refused by the name of its module."""
    folder = make_embeddings()
    entry = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}
    (folder / "modules.json").write_text(json.dumps([entry]))
    with pytest.raises(UnsupportedModelError, match="StaticEmbedding"):
        read_text_vectors(ModelSource("a model", folder))


@pytest.mark.parametrize("kind", ["Pooling", "Dense", "LayerNorm"])
def test_a_module_without_its_settings_is_named(make_embeddings: MakeEmbeddings, kind: str) -> None:
    """What a module does is never guessed where its settings are missing, as in an incomplete download."""
    folder = make_embeddings({"Pooling": {"pooling_mode": "cls"}, "Dense": {}, "LayerNorm": {}})
    (lost,) = folder.glob(f"*_{kind}/config.json")
    lost.unlink()
    with pytest.raises(ModelNotFoundError, match=f"no {lost.relative_to(folder).as_posix()}.*fetch"):
        check_modules(folder, "a model")
    if kind == "Pooling":
        with pytest.raises(ModelNotFoundError, match="'a model' lists a module Pooling"):
            read_text_vectors(ModelSource("a model", folder))


def test_modules_without_settings_of_their_own_need_none(make_embeddings: MakeEmbeddings) -> None:
    """Older releases saved an empty folder for a Normalize module, which git does not keep."""
    folder = make_embeddings({"Pooling": {}, "Normalize": {}})
    shutil.rmtree(folder / "2_Normalize")
    assert read_text_vectors(ModelSource("a model", folder)).modules == (UnitLength(),)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_modules_outside_the_folder_are_refused(make_embeddings: MakeEmbeddings, path: str) -> None:
    """`modules.json` cannot make anything outside the model's folder be read."""
    folder = make_embeddings()
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    listed[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder.parent / "elsewhere").mkdir()
    with pytest.raises(UnsupportedModelError, match="outside its folder"):
        read_text_vectors(ModelSource("a model", folder))
