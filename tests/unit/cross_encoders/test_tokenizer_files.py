"""Loading tokenizers: `tokenizer_config.json` is followed as transformers follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.tokenizer_files import load_tokenizer
from langchain_crossrerank.errors import UnsupportedModelError


def source(folder: Path, *, lower: bool, **config: object) -> ModelSource:
    """A folder with the bundled vocabulary, a normaliser that lowers case or not, and a tokenizer's config."""
    content = json.loads((BUNDLED_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = lower
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return ModelSource("some/model", folder)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", None])
@pytest.mark.parametrize(("said", "expected"), [(True, True), (False, False), (None, True)])
def test_the_config_decides_on_case(
    tmp_path: Path, kind: str | None, lower: bool, said: bool | None, expected: bool
) -> None:
    """BERT's tokenizers follow `do_lower_case`, and without it lower case, whatever `tokenizer.json` does."""
    loaded = load_tokenizer(source(tmp_path, lower=lower, tokenizer_class=kind, do_lower_case=said))
    assert loaded.normalizer.normalize_str("Paris") == ("paris" if expected else "Paris")


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}], ids=str)
def test_other_tokenizers_are_left_alone(tmp_path: Path, lower: bool, config: dict[str, object]) -> None:
    """Without a config, and for a general tokenizer class, `tokenizer.json` decides."""
    loaded = load_tokenizer(source(tmp_path, lower=lower, **config))
    assert loaded.normalizer.normalize_str("Paris") == ("paris" if lower else "Paris")


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"model": {}}'], ids=lambda text: text[:9])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    """A file that is not a fast tokenizer raises with its path."""
    found = source(tmp_path, lower=True)
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        load_tokenizer(found)
