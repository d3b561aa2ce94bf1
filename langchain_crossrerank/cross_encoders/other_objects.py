"""What people have at hand and pass as a model: objects of other packages that are not LangChain cross-encoders."""

from __future__ import annotations

import os

from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank.cross_encoders.settings import check_one
from langchain_crossrerank.errors import InvalidInputError

_SCORING_METHODS = ("predict", "rank", "rerank", "compute_score", "score")


def adapt_model(model: object) -> object:
    """Make a cross-encoder of a sentence-transformers `CrossEncoder`; return anything else unchanged.

    Raises:
        InvalidInputError: If it is a list, or a model object of another package, saying what to pass instead.
        UnsupportedModelError: If it is a `CrossEncoder` with other than one or two outputs, such as an NLI model.
    """
    check_one(model)
    is_known = isinstance(model, BaseCrossEncoder | str | os.PathLike)
    if (
        is_known
        or isinstance(model, type)
        or not any(callable(getattr(model, name, None)) for name in _SCORING_METHODS)
    ):
        return model
    package = type(model).__module__.partition(".")[0]
    if package == "sentence_transformers" and type(model).__name__ == "CrossEncoder":
        from langchain_crossrerank.cross_encoders.backends.torch import TorchCrossEncoder

        return TorchCrossEncoder.from_model(model)  # type: ignore[arg-type]  # known by its name
    raise InvalidInputError(
        f"model is a {type(model).__name__} of the package {package}, which is not a LangChain cross-encoder; pass the "
        "name or the folder of its model instead, or a subclass of BaseCrossEncoder whose score method calls it."
    )
