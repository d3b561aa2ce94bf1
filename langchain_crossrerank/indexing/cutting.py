"""Cuts documents into chunks: by structure and whole sentences, or by size alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.documents import Document

from langchain_crossrerank.blocks import Block, markup_of, split_blocks
from langchain_crossrerank.checks import check_choices
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.indexing.pdf import HEADINGS
from langchain_crossrerank.metadata import CARRIED, CUT_OFF, SECTION
from langchain_crossrerank.sentences import (
    COLONS,
    QUESTION_MARKS,
    begins_small,
    guess_language,
    is_statement,
    sentence_spans,
)

Splitter = Literal["structure", "plain"]

CHUNK_SIZE = 500
"""Characters that a chunk has at most, by default."""

CHUNK_OVERLAP = 50
"""Characters that neighbouring chunks of one section share at most, by default."""

_PATH = " > "
_LONGEST_TITLE = 300
_LONGEST_SECTION = 1000
_LONGEST_LEAD = 200
_LONGEST_COMPLETION = 300
_SHORTEST_FULL = 40
"""Characters of the shortest line of running text that counts as full, whatever its page is like."""


def split_documents(
    documents: Sequence[Document],
    *,
    chunk_size: int = CHUNK_SIZE,
    chunk_overlap: int = CHUNK_OVERLAP,
    splitter: Splitter = "structure",
) -> list[Document]:
    """Split documents into chunks.

    With `"structure"` a chunk never goes over a heading, and it ends at the end of a sentence, a list item or a table
    row unless that alone is longer than `chunk_size`. In front of its text it carries what is needed to understand it:
    the path of its headings, the header row of its table, the line that introduces its list. A sentence that goes over
    the end of a PDF's page stays whole.

    With `"plain"` it is LangChain's `RecursiveCharacterTextSplitter`.

    Args:
        documents: What `load_documents` returned, or any documents.
        chunk_size: Characters that a chunk has at most. Only a sentence that is completed from the next page may exceed
            it.
        chunk_overlap: Characters that neighbouring chunks share; less than `chunk_size`. With `"structure"` only whole
            sentences are shared.
        splitter: `"structure"` or `"plain"`.

    Returns:
        Chunks with the metadata of their document, and `start_index`, their first character in it; with `"structure"`
        also `section`, the path of headings in at most 1,000 characters, and `carried`, the number of characters in
        front of the text that starts at `start_index`, both only if there are any, and `cut_off` where a chunk ends
        inside what is longer than one.

    Raises:
        InvalidInputError: If the sizes do not fit together, or `splitter` is neither of the two.
        MissingExtraError: If the `rag` extra is not installed.
    """
    if chunk_size < 1 or not 0 <= chunk_overlap < chunk_size:
        raise InvalidInputError(
            f"chunk_size={chunk_size} and chunk_overlap={chunk_overlap} do not fit; "
            "pass a positive size and a smaller overlap."
        )
    check_choices(splitter=(splitter, ("structure", "plain")))
    check_extra(
        "rag",
        needed_for="splitting documents",
        modules=("langchain_text_splitters", "sentencex"),
        backend="splitting",
    )
    if splitter == "structure":
        return list(_Cutter(documents, chunk_size, chunk_overlap).chunks())
    chunks = _by_size(chunk_size, chunk_overlap).split_documents(
        [_without_headings(document) for document in documents]
    )
    return list(chunks)


def _by_size(chunk_size: int, chunk_overlap: int) -> Any:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    return RecursiveCharacterTextSplitter(chunk_size=chunk_size, chunk_overlap=chunk_overlap, add_start_index=True)


def _without_headings(document: Document) -> Document:
    metadata = {key: value for key, value in document.metadata.items() if key != HEADINGS}
    return document.model_copy(update={"metadata": metadata})


@dataclass(frozen=True)
class _Unit:
    """What is not divided: a sentence, a list item, a table row, a line of code; `[start, end)` in its document.

    Attributes:
        opening: What introduces it at the end of the page before.
    """

    start: int
    end: int
    block: int
    lead: tuple[int, int] | None = None
    is_row: bool = False
    opening: str = ""


class _Cutter:
    """Cuts documents that follow one another; headings of a PDF hold until the next one, over the ends of pages."""

    def __init__(self, documents: Sequence[Document], size: int, overlap: int) -> None:
        self.documents = documents
        self.size = size
        self.overlap = overlap
        self.path: list[tuple[int, str]] = []
        self.source: object = None
        # What the last page ends with, if that introduces a list on the next one.
        self.opening = ""

    def chunks(self) -> Iterator[Document]:
        skip = 0
        for place, document in enumerate(self.documents):
            following = self.documents[place + 1] if place + 1 < len(self.documents) else None
            if document.metadata.get("source") != self.source or "page" not in document.metadata:
                self.path, self.source, self.opening = [], document.metadata.get("source"), ""
            completion = self._completion(document, following)
            yield from self._cut(document, skip, completion)
            skip = len(completion)

    def _cut(self, document: Document, skip: int, completion: str) -> Iterator[Document]:
        text = document.page_content
        markup = markup_of(document.metadata)
        language = guess_language(text)
        run: list[_Unit] = []
        bare: Block | None = None
        block: Block | None = None
        for block in split_blocks(text, markup, document.metadata.get(HEADINGS)):
            if block.end <= skip:
                continue
            if block.kind == "heading":
                self.opening = ""
                yield from self._pack(document, run, self._section())
                run = []
                if bare is not None and bare.level >= block.level:
                    yield from self._alone(document, bare)
                while self.path and self.path[-1][0] >= block.level:
                    self.path.pop()
                self.path.append((block.level, block.words[0][:_LONGEST_TITLE] if block.words else ""))
                bare = block
            elif block.kind == "noise":
                yield from self._pack(document, run, self._section())
                run = []
            else:
                if block.kind != "item" or block.lead is not None:
                    self.opening = ""
                run += self._units(text, block, language, max(skip, block.start))
                bare = None
        if block is not None and block.kind == "paragraph":
            last_line = text[block.start : block.end].rpartition("\n")[2].strip()
            self.opening = last_line if last_line.endswith(COLONS) else ""
        chunks = list(self._pack(document, run, self._section()))
        if chunks and completion:
            last = chunks[-1]
            last.page_content = _join_pages(last.page_content.rstrip(), completion.strip())
        yield from chunks
        if bare is not None and ("page" not in document.metadata or document is self.documents[-1]):
            yield from self._alone(document, bare)

    def _section(self) -> str:
        return _shorten_path(_PATH.join(title for _, title in self.path if title), _LONGEST_SECTION)

    def _alone(self, document: Document, heading: Block) -> Iterator[Document]:
        """A heading without any text below it is text itself."""
        yield from self._pack(document, [_Unit(heading.start, heading.end, heading.start)], "")

    def _units(self, text: str, block: Block, language: str, start: int) -> list[_Unit]:
        lead = block.lead if block.lead is not None and block.lead[0] < start else None
        if block.kind == "row":
            return [_Unit(start, block.end, block.start, lead, is_row=True)]
        room = self.size - min(len(self._section()), self.size // 3)
        if block.kind in ("item", "code") and block.end - start <= room:
            return [_Unit(start, block.end, block.start, lead, opening=self.opening)]
        if block.kind == "code":
            return _code_lines(text, start, block, lead)
        spans = sentence_spans(text[start : block.end], language)
        return [_Unit(start + first, start + last, block.start, lead) for first, last in spans]

    def _pack(self, document: Document, units: Sequence[_Unit], section: str) -> Iterator[Document]:
        """Fill chunks with units; a block that fits into one chunk is not divided."""
        text = document.page_content
        first = 0
        while first < len(units):
            front = self._front(text, units[first], section)
            room = self.size - len(front)
            last = _last_that_fits(units, first, room)
            start, end = units[first].start, units[last].end
            if end - start > room:
                yield from self._by_force(document, start, end, section, front)
            else:
                yield _chunk(document, start, text[start:end], section, front)
            first = self._next_first(units, first, last, room)

    def _next_first(self, units: Sequence[_Unit], first: int, last: int, room: int) -> int:
        """The unit that the next chunk begins with: inside a block, the last ones of this chunk come once more."""
        following = last + 1
        if following == len(units) or units[last].block != units[following].block:
            return following
        begin = following
        while (
            begin - 1 > first
            and units[begin - 1].block == units[following].block
            and units[last].end - units[begin - 1].start <= self.overlap
            and units[following].end - units[begin - 1].start <= room
        ):
            begin -= 1
        return begin

    def _front(self, text: str, unit: _Unit, section: str) -> str:
        """What a chunk that begins with this unit carries in front, in at most half of its size."""
        most = self.size // 2
        front = ""
        if section and most >= 40:
            front = _shorten_path(section, min(most, 160)) + "\n\n"
        if unit.lead is not None and unit.lead[1] - unit.lead[0] <= self.size:
            lead = text[slice(*unit.lead)].strip()
            if unit.is_row and len(front) + len(lead) < self.size * 2 // 3:
                front += lead + "\n"
            elif not unit.is_row and len(front) + len(lead) < most and len(lead) <= _LONGEST_LEAD:
                front += " ".join(lead.split()) + "\n\n"
        elif unit.opening and len(front) + len(unit.opening) < most:
            front += unit.opening + "\n\n"
        return front

    def _by_force(self, document: Document, start: int, end: int, section: str, front: str) -> Iterator[Document]:
        """Cut what is longer than a chunk and has no joint: between words, and if need be inside them."""
        room = self.size - len(front)
        pieces = _by_size(room, min(self.overlap, room - 1)).create_documents([document.page_content[start:end]])
        for number, piece in enumerate(pieces, start=1):
            place = start + piece.metadata["start_index"]
            chunk = _chunk(document, place, piece.page_content, section, front)
            if number < len(pieces):
                chunk.metadata[CUT_OFF] = True
            yield chunk

    def _completion(self, document: Document, following: Document | None) -> str:
        """The rest of a page's last sentence, from the top of the next page; `""` where the page ends with its end."""
        page, source = document.metadata.get("page"), document.metadata.get("source")
        if following is None or not isinstance(page, int) or following.metadata.get("page") != page + 1:
            return ""
        if following.metadata.get("source") != source or self.size < _LONGEST_COMPLETION:
            return ""
        ending, beginning = document.page_content.rstrip()[-300:], following.page_content
        last_line, first_line = ending.rpartition("\n")[2], beginning.partition("\n")[0]
        headings = following.metadata.get(HEADINGS) or [(len(beginning), 0, "")]
        if is_statement(ending) or ending.endswith((*QUESTION_MARKS, *COLONS)) or len(last_line.split()) < 4:
            return ""
        top = split_blocks(beginning, markup_of(following.metadata), following.metadata.get(HEADINGS))[:1]
        goes_on = begins_small(beginning) or (_is_full(last_line, document) and _is_full(first_line, following))
        if not top or top[0].kind != "paragraph" or headings[0][0] == 0 or not goes_on:
            return ""
        spans = sentence_spans(beginning[: top[0].end])
        if not spans or spans[0][1] > _LONGEST_COMPLETION or not is_statement(beginning[slice(*spans[0])]):
            return ""
        return beginning[: spans[0][1]]


def _chunk(document: Document, start: int, body: str, section: str, front: str) -> Document:
    metadata = {key: value for key, value in document.metadata.items() if key != HEADINGS}
    metadata["start_index"] = start
    if section:
        metadata.setdefault(SECTION, section)
    if front:
        metadata[CARRIED] = len(front)
    return Document(front + body, metadata=metadata)


def _join_pages(ending: str, beginning: str) -> str:
    """Put the end of a page and the rest of its sentence together, and the halves of a word that is broken there."""
    is_broken = ending[-1:] == "-" and ending[-2:-1].isalpha() and begins_small(beginning)
    return ending[:-1] + beginning if is_broken else f"{ending} {beginning}"


def _is_full(line: str, page: Document) -> bool:
    """Whether a line is about as long as the longest one of its page, unlike a heading or the end of a paragraph."""
    longest = max(map(len, page.page_content.splitlines()), default=0)
    return len(line) >= max(_SHORTEST_FULL, longest * 0.8)


def _shorten_path(section: str, limit: int) -> str:
    """Leave out headings from the front until the path fits; the last one counts most."""
    if len(section) <= limit:
        return section
    titles = section.split(_PATH)
    while len(titles) > 1 and len(_PATH.join(titles)) > limit:
        titles.pop(0)
    return _PATH.join(titles)[:limit]


def _last_that_fits(units: Sequence[_Unit], first: int, room: int) -> int:
    last = first
    while last + 1 < len(units) and units[last + 1].end - units[first].start <= room:
        last += 1
    if last + 1 == len(units) or units[last].block != units[last + 1].block:
        return last
    # The end lies inside a block. If that block fits into a chunk of its own, it goes there whole.
    begin = end = last
    while begin > first and units[begin - 1].block == units[last].block:
        begin -= 1
    while (
        end + 1 < len(units)
        and units[end + 1].block == units[last].block
        and units[end].end - units[begin].start <= room
    ):
        end += 1
    return begin - 1 if begin > first and units[end].end - units[begin].start <= room else last


def _code_lines(text: str, start: int, block: Block, lead: tuple[int, int] | None) -> list[_Unit]:
    units: list[_Unit] = []
    place = start
    for line in text[start : block.end].splitlines(keepends=True):
        body = line.rstrip("\r\n")
        if body.strip():
            units.append(_Unit(place, place + len(body), block.start, lead))
        place += len(line)
    return units
