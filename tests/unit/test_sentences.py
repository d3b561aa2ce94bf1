"""Sentences of many languages, and of texts made to break the division."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("sentencex", reason="needs the rag extra")

from langchain_crossrerank.sentences import guess_language, is_statement, sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "whole",
    [
        "You will want the server (e.g. Uvicorn) to start by itself.",
        "The patient was seen by Dr. Meyer on the second floor.",
        "The flow is shown in Fig. 3 of the manual.",
        "The tank of the smaller boat holds approx. 20 litres of fuel.",
        "The report was written by Dr. J. Smith of the U.S. Coast Guard in 2019.",
        "Das gilt z. B. für die Schiffe, die nicht fahren.",
        "Am 3. Mai wird das Schiff nicht fahren.",
        "The flow is given by Eq. (4) of the manual.",
        "See Ref. [12] and Vol. II of it.",
        "The pressure is max. 30.",
        "Im 19. Jahrhundert war es so, und die Stadt ist alt.",
        "M. Dupont est le chef de la ville et il est là.",
    ],
)
def test_an_abbreviation_does_not_end_a_sentence(whole: str) -> None:
    """A sentence with abbreviations and figures stays whole, and the one after it is a sentence of its own."""
    assert sentences(f"{whole} Here is more.") == [whole, "Here is more."]


@pytest.mark.parametrize("first", ["Der Preis ist 20.", "Das Schiff kommt am 19.", "Das ist nicht die 2."])
def test_a_german_number_may_end_a_sentence(first: str) -> None:
    """The number in front of a noun counts it; one in front of another word does not."""
    assert sentences(f"{first} Er gilt und ist da.") == [first, "Er gilt und ist da."]


@pytest.mark.parametrize(
    "whole",
    [
        "See https://CRAN.R-project.org for the sources.",
        "Write server = smtplib.SMTP('localhost') before the rest.",
        "Type $ ./configure and then $ make in the folder.",
        "Import System.Linq and nothing else.",
        "The option is attrs.converters.C in that file.",
    ],
)
def test_a_full_stop_inside_a_word_ends_no_sentence(whole: str) -> None:
    """Addresses, names of programs and calls are quoted whole."""
    assert sentences(f"{whole} Here is more.") == [whole, "Here is more."]


@pytest.mark.parametrize(
    "text", ["This is the end.Then it begins.", "Das ist gut.Ja, das auch.", "Это конец.Потом начало."]
)
def test_a_lost_space_does_not_join_two_sentences(text: str) -> None:
    """As in the text of many PDFs."""
    first, rest = text.split(".", 1)
    assert sentences(text) == [f"{first}.", rest]


@pytest.mark.parametrize(
    ("text", "count", "language"),
    [
        ("去岛上的渡轮早上九点出发。博物馆星期一闭馆。", 2, "zh"),
        ("島へのフェリーは朝九時に出ます。博物館は月曜日に閉まります。", 2, "ja"),
        ("द्वीप के लिए नौका सुबह नौ बजे चलती है। संग्रहालय सोमवार को बंद रहता है।", 2, "hi"),
        ("Паром уходит в девять. Музей закрыт.", 2, "ru"),
        ("ბორანი ცხრაზე გადის. მუზეუმი დაკეტილია.", 2, "en"),
        ("Der Hafen ist am Montag nicht geöffnet. Die Fähre und das Boot sind da.", 2, "de"),
    ],
)
def test_each_language_is_divided_by_its_own_rules(text: str, count: int, language: str) -> None:
    """The language is guessed from the text, and its sentences are found."""
    assert guess_language(text) == language
    assert len(sentences(text)) == count


def test_line_breaks_inside_a_sentence_are_spaces() -> None:
    """A wrapped paragraph is divided at its sentences, not at its lines."""
    assert sentences("The ferry\nleaves at nine. It\nis late.") == ["The ferry\nleaves at nine.", "It\nis late."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is late.", True),
        ('He said "It is late."', True),
        ("出発します。", True),
        ("Is it late?", False),
        ("本当ですか？", False),
        ("Warranty of the pump", False),
        ("2.2 Fixed-width files . . . . . . .", False),
    ],
)
def test_a_statement_ends_like_one(text: str, expected: bool) -> None:
    """Questions, headings and contents lines are not statements."""
    assert is_statement(text) is expected


@pytest.mark.parametrize("text", ["." * 30_000, "a" * 45_000, "x. " * 9000, ')."' * 5000], ids=len)
def test_a_text_without_sense_is_divided_all_the_same(text: str) -> None:
    """Sentences lie inside the text, in order, without overlap."""
    spans = sentence_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
