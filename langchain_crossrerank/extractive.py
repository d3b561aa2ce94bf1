"""Answers by quoting: the sentences of the sources that a cross-encoder scores highest, without a language model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_crossrerank.cross_encoders.base import CrossEncoder, as_cross_encoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.sources import describe_source

NOT_ENOUGH_INFORMATION = "I don't have enough information"
"""What an answer says when the documents do not hold it."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
_SHORTEST_SENTENCE = 25


class ExtractiveAnswerer:
    """Answers a question by quoting the sentences that a cross-encoder scores highest.

    Args:
        model: The cross-encoder, or a function that gives it at the first question.
        max_sentences: Sentences to quote at most.
        min_probability: Quote a sentence only if its probability is at least this; the first sentence decides
            whether there is an answer at all.
    """

    def __init__(
        self, model: BaseCrossEncoder | Any = None, *, max_sentences: int = 3, min_probability: float = 0.02
    ) -> None:
        self._model = model
        self.max_sentences = max_sentences
        self.min_probability = min_probability

    @property
    def cross_encoder(self) -> CrossEncoder:
        """The model, loaded now if it was not."""
        if self._model is None:
            return load_cross_encoder("bundled")
        return as_cross_encoder(self._model if isinstance(self._model, BaseCrossEncoder) else self._model())

    def as_runnable(self) -> Runnable[dict[str, Any], str]:
        """Give the answerer as a step from `{"question", "context"}` to text, synchronous and asynchronous."""
        return RunnableLambda(self._invoke, afunc=self._ainvoke)

    def _invoke(self, state: dict[str, Any]) -> str:
        sentences = split_sentences(state["context"])
        scores = self.cross_encoder.score([(state["question"], sentence) for sentence, _ in sentences])
        return self._compose(sentences, scores)

    async def _ainvoke(self, state: dict[str, Any]) -> str:
        sentences = split_sentences(state["context"])
        scores = await self.cross_encoder.ascore([(state["question"], sentence) for sentence, _ in sentences])
        return self._compose(sentences, scores)

    def _compose(self, sentences: Sequence[tuple[str, Document]], scores: Sequence[float]) -> str:
        order = sorted(range(len(scores)), key=lambda position: -scores[position])[: self.max_sentences]
        likely = [i for i in order if self.cross_encoder.probability(scores[i]) >= self.min_probability]
        if not likely:
            return (
                f"{NOT_ENOUGH_INFORMATION} to answer that. (extractive: no sentence of the sources scored high enough)"
            )
        quotes = [f'- "{sentences[i][0]}" ({describe_source(sentences[i][1])})' for i in likely]
        return "\n".join(["Extractive answer, quoted from the sources without a language model:", *quotes])


def split_sentences(documents: Sequence[Document]) -> list[tuple[str, Document]]:
    """Split documents into whole statements, each with the document it came from; a repeated one comes once.

    Headings, questions and the pieces that a chunk's end cuts off do not end like a statement and are left out, unless
    there is nothing else.
    """
    pieces: dict[str, Document] = {}
    for document in documents:
        for piece in _SENTENCE_END.split(" ".join(document.page_content.split())):
            if len(piece) >= _SHORTEST_SENTENCE:
                pieces.setdefault(piece, document)
    whole = [(piece, document) for piece, document in pieces.items() if piece.rstrip("\"')]").endswith((".", "!"))]
    return whole or list(pieces.items())
