"""What mining and distillation need of a bi-encoder: its identity, and vectors of length one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


def described(embeddings: Embeddings) -> str:
    """Name a bi-encoder by its type and its plain settings, as well as can be told from outside."""
    settings = {name: value for name, value in vars(embeddings).items() if isinstance(value, str | int | float)}
    return f"{type(embeddings).__qualname__}{sorted(settings.items())!r}"


def unit(vectors: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    """Scale vectors to length one; shape (texts, dimensions)."""
    array = np.asarray(vectors, dtype=np.float32)
    scaled: npt.NDArray[np.float32] = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
    return scaled
