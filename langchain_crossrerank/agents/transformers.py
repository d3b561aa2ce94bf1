"""Steps after the reranker, each doing one thing: near-duplicates, diversity, boosts by metadata, order in the prompt.

They are LangChain document transformers, so that a `DocumentCompressorPipeline` takes them, and Runnables from
documents to documents, so that they can be piped: `retriever | DropNearDuplicates() | LongContextOrder()`. The
documents keep their scores, and the caller's are not changed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import BOOSTED_SCORE, RELEVANCE_SCORE, RERANKED

Boost = Callable[[Document, float], float]
"""Returns a new score for a document and its score."""

_SHINGLE = 8
"""Characters of a shingle: long enough to be rare, and independent of how a script separates words."""

_LEAST_WEIGHT = 1e-300
"""The weight of what is so old that its own would be 0: a logit divided by it is still finite."""


class DocumentStep(BaseDocumentTransformer, RunnableSerializable[Sequence[Document], list[Document]]):
    """Base class of the steps: a subclass implements `_transform`."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    def invoke(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Transform documents, best first, as a run of its own.

        Args:
            input: The documents.
            config: LangChain run configuration.
            **kwargs: Not supported.

        Raises:
            InvalidInputError: If the input is not a list of documents, or an argument is passed.
        """
        if kwargs:
            raise InvalidInputError(f"{type(self).__name__} takes no argument {next(iter(kwargs))!r} at call time.")
        return self._call_with_config(self._transform, _checked(input), config)

    async def ainvoke(
        self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """Transform documents on a thread of its own; see `invoke`."""
        return await run_in_executor(config, self.invoke, input, config, **kwargs)

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """Transform documents, best first; see `invoke`."""
        return self.invoke(documents, **kwargs)

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> list[Document]:
        """Transform documents on a thread of its own; see `invoke`."""
        return await self.ainvoke(documents, **kwargs)

    @abstractmethod
    def _transform(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents, in a new list."""


class DropNearDuplicates(DocumentStep):
    """Drop documents that nearly repeat a better one.

    Texts are compared by the share of eight-character pieces that they have in common, whatever their language; with
    `embeddings` by the cosine of their vectors, which also finds the same statement in other words. Vectors that
    LangChain's embedding filters left on the documents are reused.
    """

    embeddings: Embeddings | None = None
    """Embeds the documents; `None` compares characters."""

    max_similarity: float | None = Field(default=None, ge=0, le=1)
    """Drop a document whose similarity to one before it is higher; by default 0.7 for characters and 0.95 for cosines.
    """

    def _transform(self, documents: Sequence[Document]) -> list[Document]:
        similarity = similarities(documents, self.embeddings)
        default = 0.7 if self.embeddings is None else 0.95
        limit = default if self.max_similarity is None else self.max_similarity
        kept: list[int] = []
        for place in range(len(documents)):
            if all(similarity[place, other] <= limit for other in kept):
                kept.append(place)
        return [documents[place] for place in kept]


class SelectDiverse(DocumentStep):
    """Choose documents that are relevant and differ from each other: maximal marginal relevance by the score.

    Each choice maximises `weight * score - (1 - weight) * similarity`, with scores scaled to 0 to 1 and the
    similarity to the most similar document chosen before. The first is always the best one.
    """

    top_n: int = Field(default=5, ge=1)
    """Number of documents to choose."""

    weight: float = Field(default=0.7, ge=0, le=1)
    """Share of the score; 1 keeps the order by score."""

    embeddings: Embeddings | None = None
    """Embeds the documents; `None` compares characters."""

    def _transform(self, documents: Sequence[Document]) -> list[Document]:
        scores = _scores(documents)
        if scores is None:
            return list(documents[: self.top_n])
        relevance = _stretched(scores)
        similarity = similarities(documents, self.embeddings)
        left = list(range(len(documents)))
        chosen: list[int] = []
        while left and len(chosen) < self.top_n:
            gains = [
                self.weight * relevance[place]
                - (1 - self.weight) * max((similarity[place, other] for other in chosen), default=0.0)
                for place in left
            ]
            chosen.append(left.pop(int(np.argmax(gains))))
        return [documents[place] for place in chosen]


class BoostByMetadata(DocumentStep):
    """Order documents by their score after a boost, for example by `recency` or `source_weight`.

    `relevance_score` stays the cross-encoder's; the new score is written to `boosted_score`.
    """

    boost: Boost
    """Returns the new score for a document and its score."""

    def _transform(self, documents: Sequence[Document]) -> list[Document]:
        scores = _scores(documents)
        if scores is None:
            return list(documents)
        boosted = [float(self.boost(document, score)) for document, score in zip(documents, scores, strict=True)]
        for document, score in zip(documents, boosted, strict=True):
            if not math.isfinite(score):
                raise InvalidInputError(f"boost returned {score} for {shorten(document)}; return a finite number.")
        order = sorted(range(len(documents)), key=lambda place: -boosted[place])
        return [_with_metadata(documents[place], {BOOSTED_SCORE: boosted[place]}) for place in order]


class LongContextOrder(DocumentStep):
    """Put the best documents at both ends, where language models use a long context best ("lost in the middle").

    The best comes first, the second best last, the third best second, and so on; the weakest is in the middle.
    """

    def _transform(self, documents: Sequence[Document]) -> list[Document]:
        return [*documents[::2], *documents[1::2][::-1]]


def recency(half_life: timedelta, *, key: str = "date", now: datetime | None = None, floor: float = 0.0) -> Boost:
    """Make a boost that weighs a document by its age.

    Args:
        half_life: Age at which the weight is one half.
        key: Metadata key of the date: a `datetime`, a `date`, seconds since 1970, or an ISO 8601 string. A document
            without it keeps its score.
        now: The time to count from; by default, the time of the call. Times without a zone are taken as UTC.
        floor: The lowest weight, from 0 to 1.

    Raises:
        InvalidInputError: If `half_life` is not above 0; in the boost, if a date cannot be read.
    """
    if half_life <= timedelta(0):
        raise InvalidInputError(f"half_life is {half_life!r}; pass a duration above 0.")

    def boost(document: Document, score: float) -> float:
        value = document.metadata.get(key)
        if value is None:
            return score
        age = max(timedelta(0), _in_utc(now or datetime.now(UTC)) - _as_time(value, key))
        return weighted(score, max(floor, 0.5 ** (age / half_life)))

    return boost


def source_weight(weights: Mapping[str, float], *, key: str = "source") -> Boost:
    """Make a boost that weighs a document by the value of a metadata key.

    Args:
        weights: Weight, above 0, by value; a value that is not listed has weight 1.
        key: The metadata key.

    Raises:
        InvalidInputError: If a weight is not above 0.
    """
    for value, weight in weights.items():
        if not weight > 0:
            raise InvalidInputError(f"the weight of {value!r} is {weight!r}; pass a number above 0.")
    return lambda document, score: weighted(score, weights.get(str(document.metadata.get(key)), 1.0))


def weighted(score: float, weight: float) -> float:
    """Multiply a score by a weight so that a higher weight never makes it worse, even if it is a negative logit."""
    if score >= 0:
        return score * weight
    return score / max(weight, _LEAST_WEIGHT)


def similarities(documents: Sequence[Document], embeddings: Embeddings | None = None) -> npt.NDArray[np.float64]:
    """Return how similar each document is to every other, from 0 to 1.

    Args:
        documents: The documents.
        embeddings: Embeds those without a vector; `None` compares eight-character pieces of the texts.

    Returns:
        Similarities of shape (documents, documents).
    """
    if not documents:
        return np.zeros((0, 0))
    return _overlaps(documents) if embeddings is None else _cosines(documents, embeddings)


def _overlaps(documents: Sequence[Document]) -> npt.NDArray[np.float64]:
    pieces = [_shingles(document.page_content) for document in documents]
    shares = np.eye(len(documents))
    for first, one in enumerate(pieces):
        for second in range(first):
            other = pieces[second]
            shares[first, second] = shares[second, first] = len(one & other) / len(one | other)
    return shares


def _shingles(text: str) -> frozenset[str]:
    text = " ".join(text.casefold().split())
    return frozenset(text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1)))


def _cosines(documents: Sequence[Document], embeddings: Embeddings) -> npt.NDArray[np.float64]:
    # LangChain's embedding filters return documents that carry their vector.
    vectors = [getattr(document, "state", {}).get("embedded_doc") for document in documents]
    missing = [place for place, vector in enumerate(vectors) if vector is None]
    found = embeddings.embed_documents([documents[place].page_content for place in missing]) if missing else []
    for place, vector in zip(missing, found, strict=True):
        vectors[place] = vector
    array = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    array = array / np.where(lengths > 0, lengths, 1.0)
    cosines: npt.NDArray[np.float64] = np.clip(array @ array.T, 0.0, 1.0)
    return cosines


def _scores(documents: Sequence[Document]) -> list[float] | None:
    """The scores of documents, or `None` if the reranker failed and kept the first stage's order."""
    scores: list[float] = []
    for place, document in enumerate(documents):
        score = document.metadata.get(RELEVANCE_SCORE)
        if score is None and document.metadata.get(RERANKED) is False:
            return None
        if score is None:
            raise InvalidInputError(f"documents[{place}] has no {RELEVANCE_SCORE!r} in its metadata; rerank first.")
        scores.append(float(score))
    return scores


def _stretched(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    if not len(array) or array.max() == array.min():
        return np.ones(len(array))
    stretched: npt.NDArray[np.float64] = (array - array.min()) / (array.max() - array.min())
    return stretched


def _with_metadata(document: Document, added: dict[str, Any]) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, **added}})


def _as_time(value: object, key: str) -> datetime:
    try:
        if isinstance(value, datetime):
            return _in_utc(value)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return _in_utc(datetime.fromisoformat(str(value)))
    except (ValueError, OverflowError, OSError) as err:
        raise InvalidInputError(
            f"the metadata key {key!r} is {shorten(value)}, which is not a date; use ISO 8601, such as '2024-05-01'."
        ) from err


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _checked(documents: object) -> list[Document]:
    if isinstance(documents, Sequence) and all(isinstance(document, Document) for document in documents):
        return list(documents)
    raise InvalidInputError(f"documents is {shorten(documents)}; pass a list of LangChain Document objects.")
