"""What mining and distillation need from models of other packages: a resume key, and vectors of length one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings


_WITHOUT_EFFECT = re.compile("^_|batch|chunk|thread|device|process|progress|timeout|retries|cache")
"""Names of attributes that are private, or that change how fast a model works and not what it returns."""


def model_key(model: Embeddings | BaseCrossEncoder) -> str:
    """Identify a model, the same in every process: by its fingerprint, or else by its type and its plain settings."""
    if isinstance(found := getattr(model, "fingerprint", None), str):
        return found
    settings = {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, str | int | float) and not _WITHOUT_EFFECT.search(name)
    }
    return f"{type(model).__qualname__}{sorted(settings.items())!r}"


def unit_vectors(vectors: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    """Scale vectors to length one.

    Returns:
        Array of shape (texts, dimensions).
    """
    array = np.asarray(vectors, dtype=np.float32)
    scaled: npt.NDArray[np.float32] = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
    return scaled
