"""What people have at hand and pass as a model: objects of other packages that are not LangChain cross-encoders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError

_SCORING_METHODS = ("predict", "rank", "rerank", "compute_score", "score")


class LoadedSentenceTransformer(BaseCrossEncoder):
    """A `CrossEncoder` of sentence-transformers that the caller has loaded, as a LangChain cross-encoder.

    Args:
        client: The loaded model.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.model_name = str(getattr(client.config, "_name_or_path", "") or type(client).__name__)

    def score(self, text_pairs: Sequence[TextPair]) -> list[float]:
        """Score pairs; of two labels the second is taken, as a probability."""
        scores = self.client.predict(list(text_pairs), show_progress_bar=False)
        return [float(row[1] - row[0]) if getattr(row, "ndim", 0) else float(row) for row in scores]


def adapt_model(model: object) -> object:
    """Make a LangChain cross-encoder of a sentence-transformers `CrossEncoder`; return anything else unchanged.

    Raises:
        InvalidInputError: If it is a model object of another package, saying what to pass instead.
    """
    is_known = isinstance(model, BaseCrossEncoder | str | os.PathLike)
    if (
        is_known
        or isinstance(model, type)
        or not any(callable(getattr(model, name, None)) for name in _SCORING_METHODS)
    ):
        return model
    package = type(model).__module__.partition(".")[0]
    if package == "sentence_transformers" and type(model).__name__ == "CrossEncoder":
        return LoadedSentenceTransformer(model)
    raise InvalidInputError(
        f"model is a {type(model).__name__} of the package {package}, which is not a LangChain cross-encoder; pass the "
        "name or the folder of its model instead, or a subclass of BaseCrossEncoder whose score method calls it."
    )
