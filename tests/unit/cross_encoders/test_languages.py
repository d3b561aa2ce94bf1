"""Whether a model can read a text: scripts, cards and tokens."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.languages import (
    LanguageCheck,
    TokenSpan,
    card_languages,
    script_of,
    scripts_of,
)
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED, BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder

QUESTIONS = {
    "en": "When does the ferry leave in the morning?",
    "de": "Wann fährt die Fähre zur größten Insel ab?",
    "fr": "À quelle heure l'île est-elle desservie l'été ?",
    "es": "¿Cuándo sale el transbordador por la mañana?",
    "pl": "O której godzinie odpływa prom na wyspę?",
    "tr": "Feribot sabah saat kaçta kalkıyor?",
    "vi": "Phà rời bến lúc mấy giờ sáng?",
    "ru": "Когда отходит паром на остров?",
    "el": "Πότε φεύγει το πλοίο για το νησί;",
    "he": "מתי יוצאת המעבורת לאי?",
    "ar": "متى تغادر العبارة إلى الجزيرة؟",
    "hi": "द्वीप के लिए नौका कब चलती है?",
    "th": "เรือข้ามฟากออกเมื่อไหร่",
    "zh": "去岛上的渡轮什么时候出发？",
    "ja": "島へのフェリーはいつ出発しますか？",
    "ko": "섬으로 가는 배는 언제 출발합니까?",
}
READABLE = {"en", "de", "fr", "es", "pl", "tr", "vi"}


@pytest.mark.parametrize("language", QUESTIONS)
def test_the_bundled_model_reads_latin_script(language: str) -> None:
    """The bundled model can read questions in Latin letters, and none of those in other scripts."""
    assert load_cross_encoder("bundled").can_read(QUESTIONS[language]) is (language in READABLE)


@pytest.mark.parametrize("language", QUESTIONS)
def test_tokens_alone_tell_what_is_read(language: str) -> None:
    """Without a card, unknown and broken words of an English tokenizer give away most scripts that it cannot read."""
    model = load_cross_encoder("bundled")
    check = LanguageCheck((), model._language_check._tokens_of)  # type: ignore[union-attr]
    # Kana and Hangul are broken down to letters of the vocabulary, and single characters of them prove nothing.
    expected = language in READABLE or language in ("ja", "ko")
    assert (check.problem(QUESTIONS[language]) is None) is expected


@pytest.mark.parametrize("text", ["", "42", "🙂 !?", "東", "GPU", "C++ 17", "naïve café 東京", "word " * 1000])
def test_short_and_odd_texts_are_readable(text: str) -> None:
    """Numbers, signs and single words in the alphabet are no sign of a language that the model does not know."""
    assert load_cross_encoder("bundled").can_read(text) is (text != "東")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", ""),
        ("12:30 🙂", ""),
        ("naïve café 東京", "Latin"),
        ("東京タワーはどこですか", "Kana"),
        ("东京在哪里", "Han"),
        ("Привет, world", "Cyrillic"),
        ("नमस्ते", "Devanagari"),
        ("한국어", "Hangul"),
    ],
)
def test_the_script_of_most_letters_counts(text: str, script: str) -> None:
    """Digits, signs and a few foreign words do not change the script of a text."""
    assert script_of(text) == script


def test_languages_become_scripts() -> None:
    """A language has its scripts, an unknown one Latin, and a multilingual card any."""
    assert scripts_of(["en", "ru"]) == {"Latin", "Cyrillic"}
    assert scripts_of(["ja"]) == {"Han", "Kana"}
    assert scripts_of(["zh-cn", "xx"]) == {"Han", "Latin"}
    assert scripts_of(["en", "multilingual"]) == frozenset()
    assert scripts_of([]) == frozenset()


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\n---\n# Model", ("en",)),
        ("---\nlanguage:\n- ja\n- EN\n---\n", ("ja", "en")),
        ("---\nlicense: mit\n---\n", ()),
        ("# No front matter\nlanguage: en", ()),
        ("---\nlanguage: [\n---\n", ()),
        ("---\nlanguage: {en: 1}\n---\n", ()),
        ("---\n- a\n---\n", ()),
        ("---\nlanguage: en", ()),
        ("---\nlanguage: !!python/object/apply:os.system [ls]\n---\n", ()),
    ],
)
def test_cards_are_read_with_care(tmp_path: Path, card: str, languages: tuple[str, ...]) -> None:
    """The languages of a card's front matter are read; anything else in its place means that nothing is known."""
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert card_languages(tmp_path) == languages


def test_a_missing_card_says_nothing(tmp_path: Path) -> None:
    """A folder without a card, or with one that is not text, has no languages."""
    assert card_languages(tmp_path) == ()
    (tmp_path / "README.md").write_bytes(b"---\xff\n---\n")
    assert card_languages(tmp_path) == ()
    assert card_languages(BUNDLED_FOLDER) == ("en",)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_card_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe in its place says nothing; a link to a card is that card."""
    os.mkfifo(tmp_path / "README.md")
    assert card_languages(tmp_path) == ()
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").symlink_to(BUNDLED_FOLDER / "README.md")
    assert card_languages(tmp_path) == ("en",)


def test_the_languages_of_the_bundled_model_are_its_cards() -> None:
    """What is known of the bundled model without reading its card is what the card says."""
    assert ModelSource(BUNDLED, BUNDLED_FOLDER).languages == card_languages(BUNDLED_FOLDER)


def characters(text: str) -> Sequence[TokenSpan]:
    """Tokenise into single characters."""
    return [TokenSpan(place, place + 1) for place in range(len(text))]


def unknown(text: str) -> Sequence[TokenSpan]:
    """Tokenise into one unknown token."""
    return [TokenSpan(0, len(text), is_unknown=True)]


@pytest.mark.parametrize(
    ("languages", "tokens_of", "reads_bytes", "readable"),
    [
        ((), characters, False, False),
        ((), characters, True, True),
        (("ru",), characters, False, True),
        (("multilingual",), characters, False, False),
        (("ru",), unknown, False, False),
        (("en",), unknown, True, False),
    ],
)
def test_what_the_card_lists_may_be_read_in_characters(
    languages: tuple[str, ...],
    tokens_of: Callable[[str], Sequence[TokenSpan]],
    reads_bytes: bool,
    readable: bool,
) -> None:
    """Single characters are only a bad sign in scripts that the card does not list; unknown words always are."""
    check = LanguageCheck(languages, tokens_of, reads_bytes=reads_bytes)
    assert (check.problem("Когда отходит паром?") is None) is readable


def test_one_warning_is_logged_for_each_script(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the model, the script and a model that helps; each script has one, and Latin has none."""
    model = load_cross_encoder("bundled", max_length=77)
    with caplog.at_level(logging.WARNING, logger="langchain_crossrerank"):
        for _ in range(2):
            drain(model.score_steps([(QUESTIONS["en"], "The ferry leaves at nine."), (QUESTIONS["de"], "Um neun.")]))
            drain(model.score_steps([(QUESTIONS["zh"], "早上九点。")]))
            drain(model.score_steps([(QUESTIONS["en"], QUESTIONS["ru"])]))
    assert len(caplog.messages) == 2
    assert "'bundled' cannot read a text in Han script: the model's card lists only en" in caplog.messages[0]
    assert "BAAI/bge-reranker-v2-m3" in caplog.messages[0]
    assert "Cyrillic" in caplog.messages[1]


def test_wrappers_ask_the_wrapped_model() -> None:
    """A wrapper cannot read what its model cannot read."""
    model = WindowedCrossEncoder(load_cross_encoder("bundled"))
    assert model.can_read(QUESTIONS["en"])
    assert not model.can_read(QUESTIONS["hi"])
