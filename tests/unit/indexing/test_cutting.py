"""Chunks: cut by structure, with what is needed to understand them, and never inside a sentence without need."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extractive import find_quotes
from langchain_crossrerank.indexing import split_documents
from langchain_crossrerank.indexing.pdf import HEADINGS
from langchain_crossrerank.sentences import is_statement

SENTENCE = "Keep it dry and clean before the first use. "


def own_text(chunk: Document) -> str:
    """A chunk's text without what it carries in front."""
    return chunk.page_content[chunk.metadata.get("carried", 0) :]


def test_a_chunk_carries_the_path_of_its_headings() -> None:
    """Each chunk of a section begins with its headings and names them in its metadata."""
    text = "# Guide\n\n## Heron pump\n\n" + SENTENCE * 20 + "\n\n## Otter mower\n\n" + SENTENCE * 3
    chunks = split_documents([Document(text, metadata={"source": "a.md"})])
    assert {chunk.metadata["section"] for chunk in chunks} == {"Guide > Heron pump", "Guide > Otter mower"}
    for chunk in chunks:
        assert chunk.page_content.startswith(chunk.metadata["section"] + "\n\n")
        start = chunk.metadata["start_index"]
        assert text[start:].startswith(own_text(chunk))


def test_a_chunk_ends_at_the_end_of_a_sentence() -> None:
    """Long paragraphs are cut between sentences, and neighbours share whole ones."""
    text = " ".join(f"This is the sentence with the number {n}." for n in range(60))
    chunks = split_documents([Document(text)], chunk_size=300, chunk_overlap=50)
    assert len(chunks) > 5
    assert all(is_statement(chunk.page_content) and chunk.page_content[:4] == "This" for chunk in chunks)
    ends = [chunk.metadata["start_index"] + len(chunk.page_content) for chunk in chunks]
    assert all(chunk.metadata["start_index"] < end for chunk, end in zip(chunks[1:], ends, strict=False))


def test_a_chunk_says_that_it_ends_inside_a_sentence() -> None:
    """What is longer than a chunk is cut by force; the chunk with its end is like any other."""
    chunks = split_documents([Document("word " * 30 + "end. It rains.")], chunk_size=60, chunk_overlap=0)
    assert [chunk.metadata.get("cut_off") for chunk in chunks] == [True, True, None, None]


def test_a_paragraph_that_fits_is_not_divided() -> None:
    """A paragraph goes to the next chunk whole if it does not fit into this one."""
    paragraphs = [f"Paragraph {n}. " + SENTENCE * 6 for n in range(4)]
    chunks = split_documents([Document("\n\n".join(paragraphs))], chunk_size=400)
    assert [chunk.page_content for chunk in chunks] == [paragraph.strip() for paragraph in paragraphs]


def test_rows_of_a_long_table_carry_their_header() -> None:
    """Every chunk of a table begins with the header row."""
    rows = "".join(f"| part {n} | {n * 3} | {n * 5} |\n" for n in range(80))
    text = "# Prices\n\n| Name | Buying price | Selling price |\n|---|---|---|\n" + rows
    chunks = split_documents([Document(text, metadata={"source": "a.md"})])
    assert len(chunks) > 3
    assert all("| Name | Buying price | Selling price |" in chunk.page_content for chunk in chunks)
    assert sum(own_text(chunk).count("| part") for chunk in chunks) == 80


@pytest.mark.parametrize(
    ("head", "row", "tail"),
    [
        ("====  =====\nName  Price\n====  =====\n", "p{n:03}  {n}\n", "====  =====\n"),
        ("+------+-------+\n| Name | Price |\n+======+=======+\n", "| p{n:03} | {n:<5} |\n+------+-------+\n", ""),
    ],
    ids=["simple", "grid"],
)
def test_chunks_of_a_restructuredtext_table_are_tables(head: str, row: str, tail: str) -> None:
    """Each begins with the rules and the header, so that every row can be quoted with the names of its columns."""
    text = head + "".join(row.format(n=n) for n in range(80)) + tail
    chunks = split_documents([Document(text, metadata={"source": "a.rst"})])
    assert len(chunks) > 1
    assert [quote.text for quote in find_quotes(chunks)] == [f"Name: p{n:03}; Price: {n}" for n in range(80)]


def test_a_table_without_a_header_is_quoted_by_cells() -> None:
    """Also in the chunks after the first one."""
    text = "=====  =====\n" + "".join(f"p{n:04}  {n}\n" for n in range(80)) + "=====  =====\n"
    chunks = split_documents([Document(text, metadata={"source": "a.rst"})])
    assert len(chunks) > 1
    assert [quote.text for quote in find_quotes(chunks)] == [f"p{n:04} | {n}" for n in range(80)]


def test_items_of_a_long_list_carry_the_line_above_it() -> None:
    """A chunk that begins inside a list begins with what introduces the list."""
    text = "These keys move the cursor:\n\n" + "".join(f"- C-{n} moves it by {n} characters\n" for n in range(40))
    chunks = split_documents([Document(text)], chunk_size=300)
    assert all(chunk.page_content.startswith("These keys move the cursor:") for chunk in chunks)


def test_headings_of_a_pdf_hold_over_the_ends_of_pages() -> None:
    """A page without a heading belongs to the last one before it; another file begins anew."""
    pages = [
        Document("Fares\n" + SENTENCE, metadata={"source": "a.pdf", "page": 0, HEADINGS: [(0, 1, "Fares")]}),
        Document(SENTENCE, metadata={"source": "a.pdf", "page": 1, HEADINGS: []}),
        Document(SENTENCE, metadata={"source": "b.pdf", "page": 0, HEADINGS: []}),
    ]
    chunks = split_documents(pages)
    assert [chunk.metadata.get("section") for chunk in chunks] == ["Fares", "Fares", None]
    assert not any(HEADINGS in chunk.metadata for chunk in chunks)


def test_a_sentence_over_the_end_of_a_page_is_whole() -> None:
    """It is completed on the page that it begins on, and the next page begins after it."""
    pages = [
        Document("It is late. The ferry to the island that leaves", metadata={"source": "a.pdf", "page": 0}),
        Document("at nine is full. It rains.", metadata={"source": "a.pdf", "page": 1}),
    ]
    first, second = split_documents(pages)
    assert first.page_content == "It is late. The ferry to the island that leaves at nine is full."
    assert second.page_content == "It rains."
    assert second.metadata["start_index"] == 17


@pytest.mark.parametrize(
    ("ending", "beginning", "joined"),
    [
        (
            "It is late. The ferry to the is-",
            "land leaves at nine. It rains.",
            "The ferry to the island leaves at nine.",
        ),
        (
            "The fares of the year are listed below, and\nall of the dogs that travel with the ferry named",
            "Heron are free from the first day of summer on. It\nrains.",
            "all of the dogs that travel with the ferry named Heron are free from the first day of summer on.",
        ),
    ],
    ids=["broken word", "name"],
)
def test_a_page_may_end_inside_a_word_or_before_a_name(ending: str, beginning: str, joined: str) -> None:
    """The halves of a word are put together; a full line below a full line goes on, whatever it begins with."""
    pages = [
        Document(text, metadata={"source": "a.pdf", "page": page}) for page, text in enumerate((ending, beginning))
    ]
    first, second = split_documents(pages)
    assert first.page_content.endswith(joined)
    assert second.page_content.split() == ["It", "rains."]


def test_a_list_may_begin_on_the_page_after_its_introduction() -> None:
    """Its items are led by the last line of that page, and what is below the list is not."""
    texts = ("It is late.\nTo board the ferry, do this:", "• Buy a ticket\n• Walk on\n\nIt rains.\n\n• Sit down")
    pages = [Document(text, metadata={"source": "a.pdf", "page": page}) for page, text in enumerate(texts)]
    shown = [quote.shown for quote in find_quotes(split_documents(pages))]
    assert shown[1:3] == ["To board the ferry, do this: Buy a ticket", "To board the ferry, do this: Walk on"]
    assert shown[-1] == "It rains. Sit down"


def test_a_short_line_at_the_top_of_a_page_may_be_a_title() -> None:
    """It is not taken for the rest of the last page's sentence."""
    pages = [
        Document("It rains and is late, and the ferry to the island leaves", metadata={"source": "a.pdf", "page": 0}),
        Document("Fares\nDogs travel for free on all days of the year.", metadata={"source": "a.pdf", "page": 1}),
    ]
    assert [chunk.page_content for chunk in split_documents(pages)] == [page.page_content for page in pages]


def test_contents_lines_are_left_out() -> None:
    """Lines with dot leaders are in no chunk."""
    (chunk,) = split_documents([Document("1 Fares . . . . . . . . 3\n2 Dogs . . . . . . . . 4\n\nIt is late.")])
    assert chunk.page_content == "It is late."


def test_a_heading_without_text_is_a_chunk() -> None:
    """A file of a heading alone is found by it."""
    assert [chunk.page_content for chunk in split_documents([Document("# Deep", metadata={"source": "a.md"})])] == [
        "# Deep"
    ]


def test_the_callers_own_section_is_kept() -> None:
    """A document that has a section in its metadata keeps it."""
    (chunk,) = split_documents([Document("## A\n\nIt is late.", metadata={"source": "a.md", "section": "mine"})])
    assert chunk.metadata["section"] == "mine"


@pytest.mark.parametrize("marks", ["=", '=-~^"+*'])
def test_a_section_is_short_however_long_its_headings_are(marks: str) -> None:
    """Each chunk has its own; the last heading counts most."""
    headings = "".join(f"{mark}{'x' * 50_000}\n{mark * 50_000}\n\n" for mark in marks)
    chunks = split_documents([Document(headings + SENTENCE * 100, metadata={"source": "a.rst"})])
    assert len(chunks) > 5
    assert all(len(chunk.metadata.get("section", "")) <= 1000 for chunk in chunks)
    assert chunks[-1].metadata["section"].endswith(f"{marks[-1]}{'x' * 299}")


def test_a_block_of_any_length_is_cut_in_one_pass() -> None:
    """Looking for the end of the block at each chunk, or at what introduces it, would take minutes."""
    lead = "x" * 1_000_000
    row = "INSERT INTO ferries VALUES (1);\n"
    for text, source in ((row * 150_000, "a.sql"), (f"| {lead} |\n|---|\n" + "| 1 |\n" * 150_000, "a.md")):
        chunks = split_documents([Document(text, metadata={"source": source})])
        assert max(len(chunk.page_content) for chunk in chunks) <= 500
        assert "".join(chunks[-1].page_content.split()[-1:]) in text


def test_plain_chunks_are_those_of_the_recursive_splitter() -> None:
    """The splitter of the teaching notebook is one argument away."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    document = Document("# A\n\n" + SENTENCE * 40, metadata={"source": "a.md", HEADINGS: []})
    expected = RecursiveCharacterTextSplitter(chunk_size=500, chunk_overlap=50, add_start_index=True)
    chunks = split_documents([document], splitter="plain")
    assert [chunk.page_content for chunk in chunks] == expected.split_text(document.page_content)
    assert set(chunks[0].metadata) == {"source", "start_index"}


@pytest.mark.parametrize("size", [1, 7, 40, 120, 500])
def test_no_chunk_is_longer_than_asked(size: int) -> None:
    """Whatever the structure, a chunk has at most the characters that were asked for, and no word is lost."""
    text = (
        "# A long heading of many words\n\n"
        + SENTENCE * 9
        + "\n\n- an item\n- "
        + "word " * 50
        + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    chunks = split_documents([Document(text, metadata={"source": "a.md"})], chunk_size=size, chunk_overlap=0)
    assert max(len(chunk.page_content) for chunk in chunks) <= size
    written = "".join(own_text(chunk) for chunk in chunks)
    body = text[text.index("\n\n") :]
    assert all("".join(written.split()).count(word) >= body.count(word) for word in ("dry", "first", "word"))


def test_an_unknown_splitter_is_refused() -> None:
    """Only the two that exist are taken."""
    with pytest.raises(InvalidInputError, match="splitter is 'semantic'"):
        split_documents([Document("a")], splitter="semantic")  # type: ignore[arg-type]
