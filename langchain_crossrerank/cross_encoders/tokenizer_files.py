"""Loads a model's fast tokenizer, as `tokenizer.json` and the other description files define it."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, normalizers

from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.errors import UnsupportedModelError

_BERT_TOKENIZERS = {
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MobileBertTokenizer",
    "LayoutLMTokenizer",
}
_BERT_MODELS = {"bert", "distilbert", "electra", "mobilebert", "layoutlm"}


def load_tokenizer(source: ModelSource) -> Tokenizer:
    """Load a model's tokenizer, without padding.

    Args:
        source: Where the model's files are.

    Raises:
        ModelNotFoundError: If there is no `tokenizer.json`.
        UnsupportedModelError: If it is not a fast tokenizer's file.
    """
    path = source.tokenizer_file
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as err:  # tokenizers raises plain Exception
        raise UnsupportedModelError(f"{path} cannot be read as a fast tokenizer: {err}") from err
    tokenizer.no_padding()
    _normalise_as_transformers(tokenizer, source)
    if source.reads_lower_case:
        steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer is not None else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _normalise_as_transformers(tokenizer: Tokenizer, source: ModelSource) -> None:
    """Follow `tokenizer_config.json` where it says another treatment of case and accents than `tokenizer.json`.

    transformers builds BERT's tokenizers from the vocabulary and the config, and takes no notice of the normaliser that
    `tokenizer.json` has.
    """
    if not (source.folder / "tokenizer_config.json").is_file():
        return
    said = source.tokenizer_settings
    kind = (said.tokenizer_class or "").removesuffix("Fast")
    is_bert = kind in _BERT_TOKENIZERS or (not kind and source.settings.model_type in _BERT_MODELS)
    normaliser: dict[str, Any] = json.loads(tokenizer.to_str())["normalizer"] or {}
    if is_bert and normaliser.get("type") == "BertNormalizer":
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=said.tokenize_chinese_chars,
            strip_accents=said.strip_accents,
            lowercase=said.do_lower_case is not False,
        )
