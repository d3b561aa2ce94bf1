"""The layers that may follow a transformer, as they are appended to its graph."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Pooling = Literal["cls", "mean"]
"""Which vector stands for a text: that of its first token, or the mean of all of its tokens."""

ACTIVATIONS = ("Identity", "GELU", "ReLU", "SiLU", "Sigmoid", "Tanh")
"""Activations that can be appended, as torch names their classes."""


@dataclass(frozen=True)
class Pool:
    """Makes one vector of the vectors of a text's tokens."""

    mode: Pooling


@dataclass(frozen=True)
class Linear:
    """A linear layer.

    Attributes:
        weight: Shape (outputs, inputs), float32.
        bias: Shape (outputs,), or `None`.
        activation: One of `ACTIVATIONS`.
    """

    weight: Any = field(repr=False)
    bias: Any = field(repr=False)
    activation: str


@dataclass(frozen=True)
class Normalise:
    """A layer normalisation.

    Attributes:
        weight: Shape (size,), float32.
        bias: Shape (size,), float32.
        epsilon: What is added to the variance.
    """

    weight: Any = field(repr=False)
    bias: Any = field(repr=False)
    epsilon: float = 1e-5


Layer = Pool | Linear | Normalise


def head_hash(layers: Sequence[Layer]) -> str:
    """Return a hash of layers and their weights, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for layer in layers:
        digest.update(repr(layer).encode())
        for name in ("weight", "bias"):
            array = getattr(layer, name, None)
            digest.update(b"none" if array is None else array.tobytes())
    return digest.hexdigest()
