"""Teachers whose scores a model in training can follow: itself at the start, a bi-encoder, another cross-encoder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.embeddings import Embeddings
from torch import Tensor

from langchain_crossrerank.cross_encoders.base import AdaptedCrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scores import log_odds
from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.training.embeddings import model_key, unit_vectors
from langchain_crossrerank.training.models import Trainable

COSINE_SCALE = 20.0
"""Factor from a cosine to a logit: the scale with which sentence-transformers trains bi-encoders (Reimers and
Gurevych, `MultipleNegativesRankingLoss`)."""


class Teacher(ABC):
    """Scores the pairs of a training step."""

    @abstractmethod
    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Return a float32 logit for each pair, of shape (pairs,)."""


class StartingModel(Teacher):
    """The model in training with its starting weights.

    Args:
        model: The model; its weights are copied.
        max_batch_tokens: Maximum number of tokens, padding included, in one forward pass.
    """

    def __init__(self, model: Trainable, max_batch_tokens: int) -> None:
        self._model = model.frozen()
        self._max_batch_tokens = max_batch_tokens

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Score pairs with the starting weights."""
        with torch.no_grad():
            return self._model.all_logits(pairs, self._max_batch_tokens)


class BiEncoderTeacher(Teacher):
    """Scaled cosines of a bi-encoder's embeddings.

    Args:
        embeddings: The bi-encoder.

    Attributes:
        key: Differs for models that score differently; a run is only resumed with the same teacher.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.key = model_key(embeddings)

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Embed the distinct texts of the pairs and compare.

        Raises:
            TrainingError: If a vector has a value that is not finite.
        """
        queries = list(dict.fromkeys(query for query, _ in pairs))
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        vectors = {query: unit_vectors([self._embeddings.embed_query(query)])[0] for query in queries}
        others = dict(zip(passages, unit_vectors(self._embeddings.embed_documents(passages)), strict=True))
        cosines = [float(vectors[query] @ others[passage]) for query, passage in pairs]
        if not all(map(math.isfinite, cosines)):
            raise TrainingError(
                f"{type(self._embeddings).__name__} returned a vector with values that are not finite; check it, or "
                "train without this teacher."
            )
        return COSINE_SCALE * torch.tensor(cosines)


class CrossEncoderTeacher(Teacher):
    """Another cross-encoder, usually a larger one; probabilities are turned back into log-odds.

    Args:
        cross_encoder: Any LangChain cross-encoder.

    Attributes:
        key: Differs for models that score differently; a run is only resumed with the same teacher.
    """

    def __init__(self, cross_encoder: BaseCrossEncoder) -> None:
        self._cross_encoder = as_cross_encoder(cross_encoder)
        # An adapter's fingerprint is that of one object, and a resumed run has another object.
        is_adapter = isinstance(self._cross_encoder, AdaptedCrossEncoder)
        self.key = model_key(cross_encoder) if is_adapter else self._cross_encoder.fingerprint

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Score pairs.

        Raises:
            ScoringError: If the cross-encoder fails.
        """
        scores = self._cross_encoder.score(pairs)
        if self._cross_encoder.activation == "sigmoid":
            scores = [log_odds(score) for score in scores]
        return torch.tensor(scores)


def as_teacher(teacher: Embeddings | BaseCrossEncoder) -> BiEncoderTeacher | CrossEncoderTeacher:
    """Make a teacher of a bi-encoder or a cross-encoder.

    Raises:
        InvalidInputError: If it is neither.
    """
    if isinstance(teacher, Embeddings):
        return BiEncoderTeacher(teacher)
    if isinstance(teacher, BaseCrossEncoder):
        return CrossEncoderTeacher(teacher)
    raise InvalidInputError(
        f"teacher is a {type(teacher).__name__}; pass LangChain Embeddings (a bi-encoder) or a cross-encoder, for "
        "example load_cross_encoder(...)."
    )
