"""Answers by quoting: the statements of the sources that a cross-encoder scores highest, without a language model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_crossrerank.blocks import Block, Markup, block_text, markup_of, plain_text, split_blocks
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.metadata import CARRIED, CUT_OFF, SECTION
from langchain_crossrerank.reranker import CrossEncoderReranker
from langchain_crossrerank.sentences import (
    COLONS,
    QUESTION_MARKS,
    begins_small,
    guess_language,
    is_statement,
    sentence_spans,
)
from langchain_crossrerank.sources import describe_source

NOT_ENOUGH_INFORMATION = "I don't have enough information"
"""What an answer says when the documents do not hold it."""

_MOST_CHARACTERS = 100_000
"""Characters of a document that are looked at for quotes."""

_LONGEST_LEAD = 200
_LONGEST_QUOTE = 700
_LONGEST_CODE = 300
_SHORTEST_ITEM = 6
_ENDS_OF_LEADS = (*COLONS, ".", "!", "。")
_WORD = re.compile(r"\w")
_BLANK_LINE = re.compile(r"[^\S\n]*\n[^\S\n]*\n")


@dataclass(frozen=True)
class Quote:
    """A statement of a source: a sentence, an item of a list, a row of a table, a line of a card or a piece of code.

    Attributes:
        text: The statement without markup, on one line; a table's row names its columns.
        document: The document that it is in.
        start: Its first character in the document's `page_content`.
        end: The first character after it.
        lead: The line that introduces it, such as the one above a list; `""` if there is none.
        is_whole: Whether it is a whole statement, and not a heading or a piece that a chunk's end cuts off.
    """

    text: str
    document: Document
    start: int
    end: int
    lead: str = ""
    is_whole: bool = True

    @property
    def shown(self) -> str:
        """The statement after its lead, for people and for the cross-encoder."""
        if not self.lead:
            return self.text
        return f"{self.lead}{' ' if self.lead.endswith(_ENDS_OF_LEADS) else ': '}{self.text}"

    @property
    def passage(self) -> str:
        """What the cross-encoder reads: the heading that the statement is below, and the statement.

        The lead is left out, because all items of a list share it.
        """
        section = self.document.metadata.get(SECTION)
        heading = section.rsplit(" > ", 1)[-1] if isinstance(section, str) else ""
        return f"{heading}\n{self.text}" if heading else self.text

    @property
    def source_span(self) -> tuple[int, int] | None:
        """`(start, end)` in the text that `load_documents` returned for the page or file, to highlight it there.

        `None` if the chunk does not say where it starts, or the statement is in what the chunk carries in front.
        """
        start = self.document.metadata.get("start_index")
        carried = self.document.metadata.get(CARRIED, 0)
        if not isinstance(start, int) or not isinstance(carried, int) or self.start < carried:
            return None
        return self.start - carried + start, self.end - carried + start


class ExtractiveAnswerer:
    """Answers a question by quoting the statements that a cross-encoder scores highest.

    Args:
        model: The cross-encoder, or a function that returns a reranker with it at each question; by default
            `"bundled"`.
        max_sentences: The most statements to quote.
        min_probability: Quote a statement only if its probability is at least this; the first one decides whether
            there is an answer at all.

    Raises:
        MissingExtraError: If sentencex, from the `rag` extra, is not installed.
    """

    def __init__(
        self,
        model: BaseCrossEncoder | Callable[[], CrossEncoderReranker] | None = None,
        *,
        max_sentences: int = 3,
        min_probability: float = 0.02,
    ) -> None:
        check_extra("rag", needed_for="answering without a language model", modules=("sentencex",), backend="sentencex")
        self._model: CrossEncoderReranker | Callable[[], CrossEncoderReranker]
        if model is None or isinstance(model, BaseCrossEncoder):
            self._model = CrossEncoderReranker(model="bundled" if model is None else model)
        else:
            self._model = model
        self.max_sentences = max_sentences
        self.min_probability = min_probability

    @property
    def _reranker(self) -> CrossEncoderReranker:
        return self._model if isinstance(self._model, CrossEncoderReranker) else self._model()

    def as_runnable(self) -> Runnable[dict[str, Any], str]:
        """Return the answerer as a step from `{"question", "context"}` to text, synchronous and asynchronous."""
        return RunnableLambda(self._invoke, afunc=self._ainvoke)

    def quote(self, question: str, documents: Sequence[Document]) -> list[Quote]:
        """Return the statements that answer a question, best first; none if nothing scores high enough.

        Args:
            question: The question.
            documents: Documents, best first.
        """
        quotes, model = find_quotes(documents), self._reranker.cross_encoder
        return self._choose(quotes, model, model.score([(question, quote.passage) for quote in quotes]))

    def _invoke(self, state: dict[str, Any]) -> str:
        return _compose(self.quote(state["question"], state["context"]))

    async def _ainvoke(self, state: dict[str, Any]) -> str:
        quotes = await asyncio.to_thread(find_quotes, state["context"])
        model = await self._reranker.aload()
        scores = await model.ascore([(state["question"], quote.passage) for quote in quotes])
        return _compose(self._choose(quotes, model, scores))

    def _choose(self, quotes: Sequence[Quote], model: CrossEncoder, scores: Sequence[float]) -> list[Quote]:
        order = sorted(range(len(scores)), key=lambda position: -scores[position])[: self.max_sentences]
        likely = [i for i in order if model.probability(scores[i]) >= self.min_probability]
        return [quotes[i] for i in likely]


def best_statements(
    model: CrossEncoder, question: str, documents: Sequence[Document], *, min_probability: float = 0.1
) -> list[Quote | None]:
    """Find the statement of each document that answers a question best.

    Args:
        model: The cross-encoder, which scores all statements in one call.
        question: The question.
        documents: The documents.
        min_probability: A document whose best statement has a lower probability than this has none.
    """
    found = [find_quotes([document]) for document in documents]
    scores = model.score([(question, quote.passage) for quotes in found for quote in quotes])
    return choose_statements(found, [model.probability(score) for score in scores], min_probability=min_probability)


def choose_statements(
    found: Sequence[Sequence[Quote]], probabilities: Sequence[float], *, min_probability: float = 0.1
) -> list[Quote | None]:
    """Choose the likeliest statement of each document, the first of equal ones.

    Args:
        found: The statements of each document.
        probabilities: One for each statement, of all documents in a row.
        min_probability: A document whose best statement has a lower probability than this has none.
    """
    left = iter(probabilities)
    best = [max(((next(left), -place, quote) for place, quote in enumerate(quotes)), default=None) for quotes in found]
    return [entry[2] if entry is not None and entry[0] >= min_probability else None for entry in best]


def find_quotes(documents: Sequence[Document]) -> list[Quote]:
    """Find the statements of documents that can be quoted, in the order of the documents; a repeated one comes once.

    Headings, questions, contents lines, markup, and sentences and list items that a chunk's end cuts off are left out.
    One that goes over the end of a chunk is completed from the following chunk of the page or file where that is among
    the documents. Only if no document has a whole statement, incomplete ones are returned.
    """
    found: dict[str, Quote] = {}
    for document in documents:
        for quote in _quotes_of(document, documents):
            found.setdefault(quote.shown, quote)
    whole = [quote for quote in found.values() if quote.is_whole]
    return whole or list(found.values())


def split_sentences(documents: Sequence[Document]) -> list[tuple[str, Document]]:
    """Split documents into the statements that can be quoted, each with its document; `find_quotes` says more of each.

    Use it to see what an answer without a language model can be made of, before any question is asked.
    """
    return [(quote.text, quote.document) for quote in find_quotes(documents)]


def _compose(quotes: Sequence[Quote]) -> str:
    if not quotes:
        return f"{NOT_ENOUGH_INFORMATION} to answer that. (extractive: no sentence of the sources scored high enough)"
    shown = [f'- "{quote.shown}" ({describe_source(quote.document)})' for quote in quotes]
    return "\n".join(["Extractive answer, quoted from the sources without a language model:", *shown])


def _quotes_of(document: Document, others: Sequence[Document]) -> Iterator[Quote]:
    text = document.page_content[:_MOST_CHARACTERS]
    start = _body_start(document)
    body = text[start:]
    markup = markup_of(document.metadata)
    language = guess_language(body)
    blocks = split_blocks(body, markup)
    headers = {(block.start, block.end): block.words for block in blocks if block.kind == "row" and block.level}
    for place, block in enumerate(blocks):
        lead = _lead(body, block, markup, headers)
        at = (start + block.start, start + block.end)
        is_last = place == len(blocks) - 1
        if block.kind == "paragraph":
            for quote in _sentences(body, block, markup, language, document=document, start=start):
                if is_last and not quote.is_whole and quote.end >= start + block.end:
                    yield _completed(quote, document, others)
                else:
                    yield quote
        elif block.kind == "item":
            said = block_text(body, block, markup)
            if len(said) > _LONGEST_QUOTE:
                yield from _sentences(body, block, markup, language, document=document, start=start)
            elif len(said) >= _SHORTEST_ITEM and _WORD.search(said) and not said.endswith((*QUESTION_MARKS, *COLONS)):
                is_whole = not is_last or not document.metadata.get(CUT_OFF)
                quote = Quote(said, document, *at, lead, is_whole)
                yield quote if is_whole else _completed(quote, document, others, is_item=True)
        elif block.kind == "row" and not block.level:
            names = headers.get(block.lead) if block.lead is not None else None
            # A row that is longer than a chunk was cut.
            line = body[block.start : block.end].strip()
            is_whole = line.startswith("|") == line.endswith("|")
            yield Quote(_row(block.words, names, markup), document, *at, is_whole=is_whole)
        elif block.kind == "code":
            yield from _code(body, block, document, start, lead)


def _body_start(document: Document) -> int:
    """Where a chunk's own text begins: after the path of headings that it carries in front."""
    section = document.metadata.get(SECTION)
    first, gap, _ = document.page_content.partition("\n\n")
    carries_path = CARRIED in document.metadata and isinstance(section, str) and bool(gap) and first in section
    return len(first) + len(gap) if carries_path else 0


def _lead(text: str, block: Block, markup: Markup, headers: dict[tuple[int, int], tuple[str, ...]]) -> str:
    if block.lead is None or block.lead in headers:
        return ""
    lead = plain_text(text[slice(*block.lead)], markup)
    return lead if len(lead) <= _LONGEST_LEAD else ""


def _sentences(
    body: str, block: Block, markup: Markup, language: str, *, document: Document, start: int
) -> Iterator[Quote]:
    paragraph = body[block.start : block.end]
    for first, last in sentence_spans(paragraph, language):
        if not _WORD.search(paragraph, first, last):
            continue
        said = block_text(body, Block(block.kind, block.start + first, block.start + last), markup)
        if not _WORD.search(said) or len(said) > _LONGEST_QUOTE:
            continue
        begins_whole = bool(block.start + first) or not begins_small(said)
        place = start + block.start
        is_whole = begins_whole and is_statement(said)
        if not is_whole and said.rstrip().endswith(QUESTION_MARKS):
            continue
        yield Quote(said, document, place + first, place + last, is_whole=is_whole)


def _completed(quote: Quote, document: Document, others: Sequence[Document], *, is_item: bool = False) -> Quote:
    """A statement that the chunk's end cuts off, with its rest from the following chunk if that is here."""
    metadata = document.metadata
    for other in others:
        if other is document or other.metadata.get("source") != metadata.get("source") or "source" not in metadata:
            continue
        rest = _rest(document, other)
        if rest is None:
            continue
        spans = sentence_spans(rest)
        said = f"{quote.text} {plain_text(rest[: spans[0][1]], markup_of(metadata))}" if spans else ""
        # An item may end without a full stop.
        ends = is_statement(said) or (is_item and len(spans) == 1 and not other.metadata.get(CUT_OFF))
        if ends and len(said) <= _LONGEST_QUOTE:
            return Quote(said, document, quote.start, quote.end, quote.lead)
    return quote


def _rest(document: Document, other: Document) -> str | None:
    """What follows a document's end in another chunk of the same text and in the same paragraph or item, or `None`.

    The next page is not looked at, because nothing says whether a chunk is the last one of its page; `split_documents`,
    which knows the pages, completes their last sentences.
    """
    here, there = document.metadata.get("start_index"), other.metadata.get("start_index")
    is_same_text = document.metadata.get("page") == other.metadata.get("page")
    if not is_same_text or not isinstance(here, int) or not isinstance(there, int):
        return None
    text = other.page_content[_carried(other) :]
    end = here + len(document.page_content) - _carried(document)
    # Chunks may overlap, or have a space between them that belongs to neither; a blank line is longer.
    rest = text[max(0, end - there) :] if here < there <= end + 1 and end < there + len(text) else ""
    if not rest or _BLANK_LINE.match(rest):
        return None
    block = next(iter(split_blocks(rest, markup_of(document.metadata))), None)
    return rest[: block.end] if block is not None and block.kind == "paragraph" else None


def _carried(document: Document) -> int:
    carried = document.metadata.get(CARRIED, 0)
    return carried if isinstance(carried, int) else 0


def _row(cells: Sequence[str], names: Sequence[str] | None, markup: Markup) -> str:
    cells = [plain_text(cell, markup) for cell in cells]
    if names is None or len(names) != len(cells):
        return " | ".join(filter(None, cells))
    named = zip((plain_text(name, markup) for name in names), cells, strict=True)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)


def _code(body: str, block: Block, document: Document, start: int, lead: str) -> Iterator[Quote]:
    """A short piece of code whole; of a long one, its lines."""
    said = block_text(body, block)
    if len(said) <= _LONGEST_CODE:
        yield Quote(" ".join(said.split()), document, start + block.start, start + block.end, lead)
        return
    place = start + block.start
    for line in body[block.start : block.end].splitlines(keepends=True):
        if len(line.split()) > 1 and len(line) <= _LONGEST_CODE:
            yield Quote(" ".join(line.split()), document, place, place + len(line.rstrip()), lead)
        place += len(line)
