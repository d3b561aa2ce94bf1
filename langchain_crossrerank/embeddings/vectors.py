"""From the vectors of a text's tokens to the vector of the text, by the modules that sentence-transformers saved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from langchain_crossrerank.cross_encoders.head_modules import (
    ModuleEntry,
    module_folder,
    read_layer,
    read_modules,
    unsupported,
)
from langchain_crossrerank.cross_encoders.model_config import read_description
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.onnx_graphs.head_layers import Linear, Normalise

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of a text's tokens become one vector, under the names of sentence-transformers."""

_OLDER_KEYS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Settings of older releases, in the order in which the vectors of several modes are concatenated."""

_LEAST_LENGTH = 1e-12
_ERF: Callable[[Any], Any] = np.vectorize(math.erf, otypes=[np.float32])


class _PoolingSettings(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    pooling_mode: str | list[str] | None = None
    include_prompt: bool = True


class _UnitLengthSettings(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None


@dataclass(frozen=True)
class UnitLength:
    """Scales each vector to length 1."""


Module = Linear | Normalise | UnitLength


@dataclass(frozen=True)
class TextVectors:
    """What follows a transformer.

    Attributes:
        pooling: How the tokens' vectors become one; the vectors of several modes are concatenated.
        include_prompt: Whether the tokens of a prompt count.
        modules: What is done with that vector, in order.
        dimension: How many numbers of the result are kept, from the first; `None` for all.
    """

    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True
    modules: tuple[Module, ...] = field(default=(), repr=False)
    dimension: int | None = None

    @property
    def reads_first_token(self) -> bool:
        """Whether nothing but the vector of the first token is needed."""
        return self.pooling == ("cls",) and self.include_prompt

    @property
    def allows_pooled(self) -> bool:
        """Whether a graph that returns one vector for each text can be used: doing the rest twice changes nothing."""
        return all(isinstance(module, UnitLength) for module in self.modules)

    def of_tokens(self, vectors: Any, mask: Any, prompt_tokens: int = 0) -> Any:
        """Return the vectors of texts.

        Args:
            vectors: The vectors of tokens, float32 of shape (texts, tokens, size).
            mask: 1 for a token and 0 for padding, of shape (texts, tokens).
            prompt_tokens: Tokens at the beginning of each text that are those of a prompt.
        """
        counted = mask.copy()
        if not self.include_prompt:
            counted[:, :prompt_tokens] = 0
        return self.of_pooled(np.concatenate([_pool(mode, vectors, counted) for mode in self.pooling], axis=1))

    def of_pooled(self, vectors: Any) -> Any:
        """Return the vectors of texts from what pooling made, float32 of shape (texts, size)."""
        for module in self.modules:
            vectors = _apply(module, vectors)
        return vectors[:, : self.dimension]


def read_text_vectors(source: ModelSource) -> TextVectors:
    """Read what follows a model's transformer.

    A model without `modules.json` gets the mean of its tokens' vectors, or the last one's if it is a causal language
    model, as in sentence-transformers.

    Args:
        source: Where the model's files are.

    Raises:
        ModelNotFoundError: If a module's settings are missing.
        UnsupportedModelError: If a module is not supported; the message names it.
    """
    dimension = source.sentence_transformers.truncate_dim
    entries = read_modules(source.folder)
    if not entries:
        return TextVectors(("lasttoken",) if source.is_causal else ("mean",), dimension=dimension)
    kinds = [entry.kind for entry in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or "Pooling" in kinds[2:]:
        raise unsupported(source.name, f"its modules are {', '.join(kinds)}, not Transformer, Pooling and what follows")
    pooling, include_prompt = _read_pooling(module_folder(source.folder, entries[1], source.name), source.name)
    modules = [module for entry in entries[2:] if (module := _read_module(source, entry)) is not None]
    return TextVectors(pooling, include_prompt, tuple(modules), dimension)


def _read_pooling(place: Path, name: str) -> tuple[tuple[PoolingMode, ...], bool]:
    said = read_description(place / "config.json", _PoolingSettings)
    older = [mode for key, mode in _OLDER_KEYS.items() if (said.model_extra or {}).get(key)]
    modes = [said.pooling_mode] if isinstance(said.pooling_mode, str) else said.pooling_mode or older or ["mean"]
    if unknown := [mode for mode in modes if mode not in get_args(PoolingMode)]:
        raise unsupported(name, f"its pooling {unknown[0]!r} is not supported")
    return tuple(modes), said.include_prompt  # type: ignore[arg-type]  # checked just now


def _read_module(source: ModelSource, entry: ModuleEntry) -> Module | None:
    if entry.kind != "Normalize":
        return read_layer(source.folder, entry, source.name)  # type: ignore[return-value]  # a Pooling is refused above
    place = module_folder(source.folder, entry, source.name)
    said = read_description(place / "config.json", _UnitLengthSettings)
    if {said.module_input_name, said.module_output_name or "sentence_embedding"} != {"sentence_embedding"}:
        raise unsupported(source.name, f"its module {entry.path} normalises {said.module_input_name!r}")
    return UnitLength()


def _pool(mode: PoolingMode, vectors: Any, mask: Any) -> Any:
    texts, tokens = mask.shape
    if mode == "cls":
        return vectors[np.arange(texts), mask.argmax(axis=1)]
    if mode == "lasttoken":
        last = tokens - 1 - mask[:, ::-1].argmax(axis=1)
        return np.where(mask.any(axis=1, keepdims=True), vectors[np.arange(texts), last], 0)
    if mode == "max":
        return np.where(mask[:, :, None] != 0, vectors, -np.inf).max(axis=1)
    weights = mask.astype(np.float32)
    if mode == "weightedmean":
        weights *= np.arange(1, tokens + 1, dtype=np.float32)
    sums = (weights[:, None] @ vectors)[:, 0]
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return sums / (np.sqrt(total) if mode == "mean_sqrt_len_tokens" else total)


def _apply(module: Module, vectors: Any) -> Any:
    if isinstance(module, UnitLength):
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST_LENGTH)
    if isinstance(module, Normalise):
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + module.epsilon) * module.weight + module.bias
    made = vectors @ module.weight.T
    return _activate(module.activation, made if module.bias is None else made + module.bias)


def _activate(kind: str, values: Any) -> Any:
    if kind == "Tanh":
        return np.tanh(values)
    if kind == "ReLU":
        return np.maximum(values, 0)
    if kind == "Sigmoid":
        return 1 / (1 + np.exp(-values))
    if kind == "SiLU":
        return values / (1 + np.exp(-values))
    if kind == "GELU":
        return values * (1 + _ERF(values / math.sqrt(2))) / 2
    return values
