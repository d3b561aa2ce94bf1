"""Whose scores a model in training may follow: its own at the start, a bi-encoder's, or another cross-encoder's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.embeddings import Embeddings
from torch import Tensor

from langchain_crossrerank.cross_encoders.base import ForeignCrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scores import log_odds
from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.training.models import Trainable
from langchain_crossrerank.training.vectors import described, unit

COSINE_SCALE = 20.0
"""What a cosine is multiplied by to be a logit: the scale that sentence-transformers trains bi-encoders with (Reimers
and Gurevych, `MultipleNegativesRankingLoss`)."""


class Teacher(ABC):
    """Has scores for the pairs that a step sees."""

    @abstractmethod
    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Score pairs; float32, of shape (pairs,)."""


class StartingModel(Teacher):
    """The model that is trained, as it was at the start.

    Args:
        model: What is going to be trained; its weights are copied.
        max_batch_tokens: Tokens, padding included, in one forward pass.
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
        key: A text that differs whenever the scores could; a run is only resumed with the teacher it began with.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.key = described(embeddings)

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Embed the texts of the pairs, equal ones once, and compare."""
        queries = list(dict.fromkeys(query for query, _ in pairs))
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        vectors = {query: unit([self._embeddings.embed_query(query)])[0] for query in queries}
        others = dict(zip(passages, unit(self._embeddings.embed_documents(passages)), strict=True))
        cosines = [float(vectors[query] @ others[passage]) for query, passage in pairs]
        if not all(map(math.isfinite, cosines)):
            raise TrainingError(
                f"{type(self._embeddings).__name__} gave a vector that is not of finite numbers; check it, or train "
                "without this teacher."
            )
        return COSINE_SCALE * torch.tensor(cosines)


class CrossEncoderTeacher(Teacher):
    """Another cross-encoder, usually a larger one; probabilities are turned back into log-odds.

    Args:
        cross_encoder: Anything that LangChain takes for a cross-encoder.

    Attributes:
        key: A text that differs whenever the scores could; a run is only resumed with the teacher it began with.
    """

    def __init__(self, cross_encoder: BaseCrossEncoder) -> None:
        self._cross_encoder = as_cross_encoder(cross_encoder)
        # The fingerprint of another package's model is one of the object, and a resumed run has another object.
        foreign = isinstance(self._cross_encoder, ForeignCrossEncoder)
        self.key = described(cross_encoder) if foreign else self._cross_encoder.fingerprint

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Score pairs."""
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
