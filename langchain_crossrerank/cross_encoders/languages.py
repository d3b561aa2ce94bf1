"""Which language is a text in, and can a model read it? By the text's script, the model's card, and its tokens."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path

from langchain_crossrerank.files import open_regular

MULTILINGUAL_MODEL = "BAAI/bge-reranker-v2-m3"
"""A cross-encoder for many languages, to name in a warning."""

_SAMPLE = 300
_CARD_CHARACTERS = 64 * 1024
_MOSTLY = 0.5
_BROKEN_CHARACTERS_PER_TOKEN = 1.4
_LEAST_LETTERS = 4

# A character of these scripts is a morpheme or a syllable, so single ones are no sign of an unknown language.
_DENSE_SCRIPTS = frozenset({"Han", "Kana", "Hangul"})

_SCRIPT_OF_NAME = {
    "CJK": "Han",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana",
    "FULLWIDTH": "Latin",
}

_LANGUAGES_OF_SCRIPT = {
    "Arabic": "ar fa ur ps ug sd ckb",
    "Armenian": "hy",
    "Bengali": "bn as",
    "Cyrillic": "ru uk be bg mk sr kk ky mn tg",
    "Devanagari": "hi mr ne sa",
    "Ethiopic": "am ti",
    "Georgian": "ka",
    "Greek": "el",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Han": "zh yue ja ko",
    "Hangul": "ko",
    "Hebrew": "he yi",
    "Kana": "ja",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    "Malayalam": "ml",
    "Myanmar": "my",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thai": "th",
    "Tibetan": "bo",
}
"""Languages by their ISO 639 codes, by script; all others are written in Latin letters."""

_ANY_LANGUAGE = frozenset({"multilingual", "mul"})


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token's place in a text.

    Attributes:
        start: First character.
        end: Last-plus-one character.
        is_unknown: Whether the token is the one for unknown words.
    """

    start: int
    end: int
    is_unknown: bool = False


@lru_cache(maxsize=4096)
def _script_of_letter(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0]
    return _SCRIPT_OF_NAME.get(name, name.capitalize())


def script_of(text: str) -> str:
    """Return the script of most letters of a text, for example `"Latin"`; empty if there are no letters."""
    scripts = Counter(_script_of_letter(letter) for letter in text[:_SAMPLE] if letter.isalpha())
    return max(scripts, key=scripts.__getitem__) if scripts else ""


def card_languages(folder: Path) -> tuple[str, ...]:
    """Return the languages that a model's card lists, as ISO 639 codes; empty if it lists none or cannot be read."""
    import yaml

    try:
        with TextIOWrapper(open_regular(folder / "README.md"), encoding="utf-8") as file:
            text = file.read(_CARD_CHARACTERS)
        _, front, _ = text.split("---", 2) if text.startswith("---") else ("", "", "")
        card = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return ()
    listed = card.get("language") if isinstance(card, dict) else None
    languages = listed if isinstance(listed, list) else [listed]
    return tuple(language.lower() for language in languages if isinstance(language, str))


def scripts_of(languages: Iterable[str]) -> frozenset[str]:
    """Return the scripts in which languages are written; empty for any script."""
    codes = [language.partition("-")[0] for language in languages]
    if _ANY_LANGUAGE.intersection(codes):
        return frozenset()
    return frozenset(script for code in codes for script in _scripts_of_language(code))


def _scripts_of_language(code: str) -> list[str]:
    return [script for script, codes in _LANGUAGES_OF_SCRIPT.items() if code in codes.split()] or ["Latin"]


class LanguageCheck:
    """Says why a model cannot read a text.

    A text is unreadable if its script is that of no language on the model's card; or if half of its letters are in
    unknown tokens; or if its words are mostly broken into single characters. That last sign is not used for Chinese,
    Japanese and Korean, nor for scripts that the card lists, nor for models that are known to read single bytes.

    Args:
        languages: Languages on the model's card; empty if unknown.
        tokens_of: Tokenises a text, without special tokens.
        reads_bytes: Whether the model is a language model trained on many languages, whatever pieces it reads.
    """

    def __init__(
        self,
        languages: Sequence[str],
        tokens_of: Callable[[str], Sequence[TokenSpan]],
        *,
        reads_bytes: bool = False,
    ) -> None:
        self.languages = tuple(languages)
        self._scripts = scripts_of(languages)
        self._tokens_of = tokens_of
        self._reads_bytes = reads_bytes

    def problem(self, text: str) -> str | None:
        """Return why a text cannot be read, or `None` if it can.

        Only the beginning of a long text is looked at.
        """
        sample = text[:_SAMPLE]
        script = script_of(sample)
        if not script:
            return None
        if self._scripts and script not in self._scripts:
            return f"the model's card lists only {', '.join(self.languages)}"
        letters = sum(letter.isalnum() for letter in sample)
        spans = [
            (sum(letter.isalnum() for letter in sample[token.start : token.end]), token.is_unknown)
            for token in self._tokens_of(sample)
        ]
        if sum(count for count, is_unknown in spans if is_unknown) >= _MOSTLY * letters:
            return "most of its words are unknown to the model"
        pieces = sum(count > 0 for count, _ in spans)
        is_exempt = self._reads_bytes or script in _DENSE_SCRIPTS or script in self._scripts
        if is_exempt or letters < _LEAST_LETTERS:
            return None
        if letters <= _BROKEN_CHARACTERS_PER_TOKEN * pieces:
            return "the model sees little more than single characters of it"
        return None
