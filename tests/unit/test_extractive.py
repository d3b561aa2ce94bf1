"""Quotes: what can be quoted, where it is, and when there is no answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

pytest.importorskip("sentencex", reason="needs the rag extra")

from sentencex import get_sentence_boundaries

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.cross_encoders import loading
from langchain_crossrerank.errors import MissingExtraError
from langchain_crossrerank.extractive import (
    NOT_ENOUGH_INFORMATION,
    ExtractiveAnswerer,
    best_statements,
    find_quotes,
    split_sentences,
)
from langchain_crossrerank.indexing import split_documents
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.unit.held import Held


def texts(*documents: str, **metadata: Any) -> list[str]:
    return [quote.text for quote in find_quotes([Document(text, metadata=metadata) for text in documents])]


@pytest.mark.parametrize(
    "text",
    [
        "## Warranty of the pump\n\nThe guarantee lasts two years.",
        "Warranty of the pump\n--------------------\n\nThe guarantee lasts two years.",
        "Warranty of the pump\n\nThe **guarantee** lasts [two years](#years).",
        "1.2 Warranty . . . . . . . . . 12\n\nThe guarantee lasts two years.",
        "Who pays? The guarantee lasts two years.",
        "is paid by the shop. The guarantee lasts two years. It is paid for by the",
    ],
    ids=["markdown", "rst", "markup", "contents", "question", "fragments"],
)
def test_only_the_statement_is_quoted(text: str) -> None:
    """Headings, markup, contents lines, questions and pieces of sentences are left out."""
    assert texts(text) == ["The guarantee lasts two years."]


def test_lines_of_lists_and_cards_are_quoted_with_their_lead() -> None:
    """An item is a statement without a full stop, and the line above the list belongs to it."""
    card = (
        "Keys of the editor\n\nC-k kill to the end of the line\nC-y yank the most recently killed text\nC-t swap two\n"
    )
    quotes = find_quotes([Document(card), Document("The editor keeps a history.")])
    assert [quote.shown for quote in quotes] == [
        "Keys of the editor: C-k kill to the end of the line",
        "Keys of the editor: C-y yank the most recently killed text",
        "Keys of the editor: C-t swap two",
        "The editor keeps a history.",
    ]


def test_a_row_names_its_columns() -> None:
    """A table's row is quoted with the header of each cell."""
    assert texts("| Service | Price |\n|---|---|\n| Parking | 2 euros an hour |\n") == [
        "Service: Parking; Price: 2 euros an hour"
    ]


def test_short_statements_are_quoted() -> None:
    """Two words are enough."""
    assert texts("Closed on Mondays. Cash only.") == ["Closed on Mondays.", "Cash only."]


def test_a_statement_comes_once() -> None:
    """The same sentence of two documents is quoted from the first."""
    first, second = Document("It is late.", metadata={"source": "a"}), Document("It is late.", metadata={"source": "b"})
    (quote,) = find_quotes([first, second])
    assert (quote.text, quote.document.metadata["source"]) == ("It is late.", "a")


def test_without_a_whole_statement_pieces_are_returned() -> None:
    """Where no document has a statement, an incomplete one is better than nothing."""
    assert texts("The ferry to the island leaves at nine") == ["The ferry to the island leaves at nine"]


def test_a_quote_can_be_highlighted() -> None:
    """Offsets point at the statement in the chunk and in the text that it was cut from."""
    page = "Fares\nIt is late. The ferry leaves\nat nine."
    chunk = Document(
        "Fares\n\n" + page[6:],
        metadata={"source": "a.pdf", "page": 0, "section": "Fares", "carried": 7, "start_index": 6},
    )
    _, quote = find_quotes([chunk])
    assert quote.text == "The ferry leaves at nine."
    assert chunk.page_content[quote.start : quote.end] == "The ferry leaves\nat nine."
    assert quote.source_span is not None
    assert page[slice(*quote.source_span)] == "The ferry leaves\nat nine."


def test_a_sentence_over_a_chunks_end_is_completed() -> None:
    """What a chunk's end cuts off is completed from the following chunk without markup, if that is here."""
    first = Document("The ferry to the island is", metadata={"source": "a.md", "start_index": 0})
    second = Document("**late** today. It rains.", metadata={"source": "a.md", "start_index": 27})
    quotes = find_quotes([first, second])
    assert quotes[0].text == "The ferry to the island is late today."
    assert [quote.text for quote in find_quotes([first, Document("It rains.")])] == ["It rains."]


def test_an_item_over_a_chunks_end_is_completed_or_left_out() -> None:
    """A part of an item is no quote; the rest comes from the following chunk, and nothing of the next item with it."""
    item = f"{'word ' * 40}and the pump"
    text = f"Rules:\n\n- {item}\n- Open the valve\n"
    chunks = split_documents([Document(text, metadata={"source": "a.md"})], chunk_size=150, chunk_overlap=20)
    assert [quote.text for quote in find_quotes(chunks)] == [item, "Open the valve"]
    for place, chunk in enumerate(chunks):
        if "word" in chunk.page_content:
            left = [*chunks[:place], *chunks[place + 1 :]]
            assert [quote.text for quote in find_quotes(left)] == ["Open the valve"]


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("late today.", {"page": 1, "start_index": 0}),
        ("The library opens at nine.", {"page": 1, "start_index": 0}),
        ("The library opens at nine.", {"page": 0, "start_index": 28}),
        ("is\n\nThe library opens at nine.", {"page": 0, "start_index": 24}),
        ("- The library opens at nine.", {"page": 0, "start_index": 27}),
    ],
    ids=["next page", "sentence of the next page", "next paragraph", "next paragraph, overlapping", "item"],
)
def test_what_may_be_another_text_completes_no_sentence(text: str, following: dict[str, int]) -> None:
    """A chunk is not joined with a page that more chunks may precede, nor with a paragraph of its own."""
    first = Document("The ferry to the island is", metadata={"source": "a.pdf", "page": 0, "start_index": 0})
    second = Document(text, metadata={"source": "a.pdf", **following})
    assert not any("island" in quote.text for quote in find_quotes([first, second, Document("It rains.")]))


@pytest.mark.parametrize(
    "question", ["返品はできますか？", "返品の方法：", "هل يمكن الإرجاع؟", "May I return it?", "How to return it:"]
)
def test_a_question_in_a_list_is_not_quoted(question: str) -> None:
    """An item that asks, or that only introduces what follows, answers nothing, in any script."""
    assert texts(f"- {question}\n- It is late.") == ["It is late."]


def test_a_sentence_of_a_script_without_capitals_is_whole() -> None:
    """Georgian sentences begin with letters that are small everywhere else."""
    assert texts("ბორანი გვიან არის. წვიმს გარეთ.") == ["ბორანი გვიან არის.", "წვიმს გარეთ."]


def test_the_heading_is_read_with_the_statement() -> None:
    """The cross-encoder reads the last heading, and the quote does not show it."""
    document = Document("Heron pump\n\nIt lasts.", metadata={"section": "Guide > Heron pump", "carried": 12})
    (quote,) = find_quotes([document])
    assert (quote.text, quote.passage) == ("It lasts.", "Heron pump\nIt lasts.")


def test_what_is_not_answered_says_so() -> None:
    """If nothing scores high enough there is no quote."""
    answerer = ExtractiveAnswerer(FakeCrossEncoder(), min_probability=1.1)
    assert answerer.quote("What is late?", [Document("It is late.")]) == []
    answer = answerer.as_runnable().invoke({"question": "What is late?", "context": [Document("It is late.")]})
    assert answer.startswith(NOT_ENOUGH_INFORMATION)


def test_nothing_to_quote_says_so() -> None:
    """Documents without any text give no quote and no error."""
    answer = (
        ExtractiveAnswerer(FakeCrossEncoder()).as_runnable().invoke({"question": "What?", "context": [Document("")]})
    )
    assert answer.startswith(NOT_ENOUGH_INFORMATION)


async def test_quoting_does_not_block_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While sentences are divided and the model loads, the loop goes on; here it is the loop that lets them finish."""
    divide = Held(get_sentence_boundaries)
    load = Held(lambda settings: FakeCrossEncoder())
    monkeypatch.setattr("sentencex.get_sentence_boundaries", divide)
    monkeypatch.setattr(loading, "_load", load)
    answerer = ExtractiveAnswerer(lambda: CrossEncoderReranker(model=tmp_path))
    state = {"question": "What is late?", "context": [Document("The ferry is late.")]}
    task = asyncio.create_task(answerer.as_runnable().ainvoke(state))
    await divide.let_go()
    await load.let_go()
    assert "The ferry is late." in await task


def test_source_text_is_quoted_by_pieces() -> None:
    """A short piece of code is one quote."""
    assert texts("def f():\n    return 1\n\ny = 2 + 3\n", source="a.py") == ["def f(): return 1", "y = 2 + 3"]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answering without a language model says at once which extra it needs, and not at the first question."""
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"answering without a language model.*\[rag\]"):
        ExtractiveAnswerer(FakeCrossEncoder())


def test_each_document_has_its_own_best_statement() -> None:
    """The likeliest statement of each document is found in one call, and none where all are unlikely or missing."""
    model = ScriptedCrossEncoder({"It is late.": 2.0, "It is early.": 1.0}, default=-5.0)
    documents = [Document("It is early. It is late."), Document("Nobody knows."), Document(""), Document("It is late.")]
    found = best_statements(model, "What is late?", documents)
    assert [None if quote is None else quote.text for quote in found] == ["It is late.", None, None, "It is late."]
    assert found[0] is not None
    assert documents[0].page_content[found[0].start : found[0].end] == "It is late."


def test_half_a_row_is_no_whole_statement() -> None:
    """A row that is longer than a chunk is cut, and its halves are quoted only if there is nothing else."""
    head = "| Who | Price |\n|---|---|\n"
    halves = [Document(f"{head}| Dogs | free if they"), Document(f"{head}sit on the floor |")]
    assert [quote.is_whole for quote in find_quotes(halves)] == [False, False]
    assert [quote.text for quote in find_quotes([*halves, Document(f"{head}| Cats | free |")])] == [
        "Who: Cats; Price: free"
    ]


def test_statements_come_with_their_documents() -> None:
    """`split_sentences` names the document of each statement that can be quoted."""
    ferry, lamp = Document("# Ferry\n\nIt leaves at nine. It comes back at six."), Document("The lamp is green.")
    assert split_sentences([ferry, lamp]) == [
        ("It leaves at nine.", ferry),
        ("It comes back at six.", ferry),
        ("The lamp is green.", lamp),
    ]
