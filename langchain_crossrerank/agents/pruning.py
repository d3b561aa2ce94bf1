"""Sentence pruning: keep the sentences of each passage that help to answer the query."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr

from langchain_crossrerank.agents.context import CountTokens, estimate_tokens
from langchain_crossrerank.agents.thresholds import MinOdds, check_threshold, sentence_odds
from langchain_crossrerank.blocks import markup_of, split_blocks
from langchain_crossrerank.candidates import check_rerank_input
from langchain_crossrerank.compressors import RerankInput, RunnableCompressor
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scores import log_odds
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.metadata import CARRIED, KEPT_SPANS
from langchain_crossrerank.reranker import CrossEncoderReranker
from langchain_crossrerank.sentences import guess_language, sentence_spans

Span = tuple[int, int]
"""`[start, end)` of a sentence, in characters of its passage."""


class PruneSentences(RunnableCompressor):
    """Keep the sentences of passages that help to answer the query, and drop passages that have none.

    A sentence's value is its odds times those of its passage, by the cross-encoder. It is kept if its value is not too
    far below that of the best sentence of all passages, so that the best one always stays. List items, table rows and
    pieces of code count as sentences.

    Use it after the reranker, `DocumentCompressorPipeline(transformers=[reranker, PruneSentences()])`, or as a step
    from `{"query": ..., "documents": ...}`. The documents keep their order, ids, scores and other metadata; the key
    `kept_spans` says where the sentences were in the passage, to highlight them there. `start_index` and `carried`,
    which would no longer be right, are removed from a document that lost a sentence.
    """

    model: BaseCrossEncoder | str | os.PathLike[str] = "bundled"
    """The cross-encoder; see `CrossEncoderReranker.model`. The default is the one with a measured share."""

    min_odds: MinOdds = "measured"
    """The lowest value that a sentence may have, as a share of the best one's, from 0 to 1. `"measured"` is the share
    measured for the model."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of all kept sentences together, chosen from the best down; `None` for no limit."""

    count_tokens: CountTokens = estimate_tokens
    """Counts the tokens of a text, for example a chat model's `get_num_tokens`; estimated by default."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=(), frozen=True)

    _reranker: CrossEncoderReranker = PrivateAttr()

    if not TYPE_CHECKING:
        # Outside pydantic's validation, which would turn the package's own errors into a ValidationError.
        def __init__(self, **fields: Any) -> None:
            check_extra("rag", needed_for="pruning sentences", modules=("sentencex",), backend="sentencex")
            check_threshold(min_odds=fields.get("min_odds", "measured"))
            reranker = CrossEncoderReranker(model=fields.get("model", "bundled"))
            super().__init__(**{**fields, "model": reranker.model})
            sentence_odds(reranker.model_name, self.min_odds)
            self._reranker = reranker

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return `False`: it may hold a loaded model, which LangChain's own serialisation cannot write."""
        return False

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Prune documents.

        Args:
            input: The query and the documents, best first; they are not changed.
            config: LangChain run configuration.
            **kwargs: Not supported.

        Raises:
            InvalidInputError: If the input is not a query and documents, or an argument is passed.
            ScoringError: If the model fails.
        """
        return self._call_with_config(self._prune, _checked(input, kwargs), config)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Prune documents without blocking the event loop; see `invoke`."""
        return await self._acall_with_config(self._aprune, _checked(input, kwargs), config)

    def _prune(self, input: RerankInput, run_manager: CallbackManagerForChainRun) -> list[Document]:  # noqa: ARG002
        passages, model = _passages(input), self._reranker.cross_encoder
        return self._kept(passages, model, model.score(_text_pairs(input, passages)))

    async def _aprune(
        self,
        input: RerankInput,
        run_manager: AsyncCallbackManagerForChainRun,  # noqa: ARG002
    ) -> list[Document]:
        passages = await asyncio.to_thread(_passages, input)
        model = await self._reranker.aload()
        return self._kept(passages, model, await model.ascore(_text_pairs(input, passages)))

    def _kept(self, passages: Sequence[_Passage], model: CrossEncoder, scores: Sequence[float]) -> list[Document]:
        logits = iter([log_odds(score) if model.activation == "sigmoid" else score for score in scores])
        sentences: list[_Sentence] = []
        for place, passage in enumerate(passages):
            of_passage = next(logits)
            sentences += [_Sentence(place, span, of_passage + next(logits)) for span in passage.spans]
        if not sentences:
            return []
        ranked = sorted(sentences, key=lambda sentence: -sentence.logit)
        share = sentence_odds(self._reranker.model_name, self.min_odds)
        least = ranked[0].logit + math.log(max(share, sys.float_info.min))
        chosen = self._within_budget([one for one in ranked if one.logit >= least], passages)
        spans = [sorted(one.span for one in chosen if one.place == place) for place in range(len(passages))]
        return [
            _pruned(passage.document, kept, is_whole=len(kept) == len(passage.spans))
            for passage, kept in zip(passages, spans, strict=True)
            if kept
        ]

    def _within_budget(self, ranked: Sequence[_Sentence], passages: Sequence[_Passage]) -> list[_Sentence]:
        if self.max_tokens is None:
            return list(ranked)
        chosen, used = [], 0
        for sentence in ranked:
            start, end = sentence.span
            tokens = self.count_tokens(passages[sentence.place].document.page_content[start:end])
            if used + tokens <= self.max_tokens:
                chosen.append(sentence)
                used += tokens
        return chosen


class _Passage(NamedTuple):
    """A document and the places of its sentences."""

    document: Document
    spans: list[Span]


class _Sentence(NamedTuple):
    """A sentence: the place of its passage, its own place in it, and its value as log-odds."""

    place: int
    span: Span
    logit: float


def find_sentences(document: Document) -> list[Span]:
    """Find the sentences, list items, table rows and pieces of code of a document, in order."""
    text = document.page_content
    language = guess_language(text)
    spans: list[Span] = []
    for block in split_blocks(text, markup_of(document.metadata)):
        if block.kind == "paragraph":
            found = sentence_spans(text[block.start : block.end], language)
            spans += [(block.start + start, block.start + end) for start, end in found]
        elif block.kind in ("item", "row", "code"):
            spans.append((block.start, block.end))
    return spans


def _passages(input: RerankInput) -> list[_Passage]:
    return [_Passage(document, find_sentences(document)) for document in input["documents"]]


def _text_pairs(input: RerankInput, passages: Sequence[_Passage]) -> list[TextPair]:
    """The pairs to score: each passage, and its sentences after it."""
    pairs: list[TextPair] = []
    for document, spans in passages:
        texts = [document.page_content, *(document.page_content[start:end] for start, end in spans)]
        pairs += [(input["query"], text) for text in texts]
    return pairs


def _pruned(document: Document, spans: Sequence[Span], *, is_whole: bool) -> Document:
    metadata = {**document.metadata, KEPT_SPANS: [list(span) for span in spans]}
    if is_whole:
        return document.model_copy(update={"metadata": metadata})
    for key in ("start_index", CARRIED):
        metadata.pop(key, None)
    text, end = "", 0
    for start, stop in spans:
        between = document.page_content[end:start]
        # Sentences that were adjacent stay so; a gap becomes a line break.
        text += (between if between.isspace() else "\n") if text else ""
        text += document.page_content[start:stop]
        end = stop
    return document.model_copy(update={"page_content": text, "metadata": metadata})


def _checked(input: Any, others: dict[str, Any]) -> RerankInput:
    if others:
        raise InvalidInputError(f"PruneSentences takes no argument {next(iter(others))!r} at call time.")
    query, documents = check_rerank_input(input)
    return {"query": query, "documents": documents}
