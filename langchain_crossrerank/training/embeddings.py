"""What mining and distillation need from models of other packages: a resume key, and vectors of length one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings


def model_key(model: Embeddings | BaseCrossEncoder) -> str:
    """Identify a model by its type and its plain settings, which are the same in every process."""
    settings = {name: value for name, value in vars(model).items() if isinstance(value, str | int | float)}
    return f"{type(model).__qualname__}{sorted(settings.items())!r}"


def unit_vectors(vectors: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    """Scale vectors to length one.

    Returns:
        Array of shape (texts, dimensions).
    """
    array = np.asarray(vectors, dtype=np.float32)
    scaled: npt.NDArray[np.float32] = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
    return scaled
