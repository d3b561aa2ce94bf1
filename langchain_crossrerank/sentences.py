"""Divides running text into sentences, by `sentencex`."""

from __future__ import annotations

import re
from collections import Counter

_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
)
"""Scripts by which a language is guessed, the more particular one first."""

_COMMON_WORDS = {
    "de": "der die das und ist nicht ein eine für mit von zu den dem auf sich werden wird auch",
    "fr": "le la les et est une des pour dans que qui sur pas avec sont du au",
    "es": "el la los las y es una para en que por con del se no son al",
    "it": "il lo la gli e è una per di che non con sono del della si",
    "pt": "o a os as e é uma para em que não com são do da se",
    "nl": "de het een en is niet van voor met zijn op dat te worden",
    "en": "the a an and is are not of to in for with that this it on be",
}
_LANGUAGES_OF_WORD: dict[str, list[str]] = {}
for _language, _words in _COMMON_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF_WORD.setdefault(_word, []).append(_language)

_SAMPLE = 2000
_LONGEST = 20_000
_CONTINUES = re.compile(r"[\d(\[]|[^\W\d_]")
_GLUED = re.compile(r"[(\[\"'“]?([^\W\d_]+)\.([^\W\d_]+)[,;:]?")
_REFERENCE = re.compile(r"\b(?:eqs?|refs?|vols?|figs?|sect?|ch|max|min|approx)\.$", re.IGNORECASE)
_REFERRED = re.compile(r"[(\[\d]|[IVXLC]{1,6}\b")
"""What an abbreviation such as `Eq.` or `Vol.` refers to."""
_ORDINAL = re.compile(r"\b(?:im|am|der|die|das|dem|den|des|zum|zur|vom|beim|ab|bis|seit) \d{1,2}\.$", re.IGNORECASE)
"""A German number that counts what follows: `Im 19. Jahrhundert`."""
_BEGINS_GERMAN = frozenset((*_COMMON_WORDS["de"].split(), "er", "es", "wir", "ich", "man", "dann", "danach", "hier"))
_NUMBERED = re.compile(r"\d{1,3}[.)]\s")
_TERMINAL = re.compile(r"[.!?。！？।॥…؟։።][\"'”’»)\]）」』*_`]*$")
_LEADERS = re.compile(r"(?:\.\s?){4,}")

QUESTION_MARKS = ("?", "？", "؟")
"""What a question ends with."""
COLONS = (":", "：")
"""What ends a line that introduces the following ones."""


def guess_language(text: str) -> str:
    """Return a two-letter language code for a text: by its script, or by its most common words; `"en"` if unsure."""
    sample = text[:_SAMPLE]
    letters = sum(map(str.isalpha, sample))
    for language, letter in _SCRIPTS:
        if (found := len(letter.findall(sample))) and found * 10 >= letters:
            return language
    counts: Counter[str] = Counter()
    for word in sample.lower().split():
        counts.update(_LANGUAGES_OF_WORD.get(word, ()))
    # English wins a tie, so that a few words do not decide.
    return max(counts, key=lambda language: (counts[language], language == "en"), default="en")


def sentence_spans(text: str, language: str | None = None) -> list[tuple[int, int]]:
    """Find the sentences of running text.

    Args:
        text: A paragraph; line breaks inside it count as spaces.
        language: A language code as in `sentencex`; `None` guesses it.

    Returns:
        `[start, end)` of each sentence, without the spaces around it. A text without a sentence end for 20,000
        characters is cut there.
    """
    from sentencex import get_sentence_boundaries

    flat = text.replace("\n", " ").replace("\r", " ").replace("\t", " ")
    language = language or guess_language(flat)
    ends: list[int] = []
    for offset in range(0, len(flat), _LONGEST):
        ends += [
            offset + int(boundary["end_index"])
            for boundary in get_sentence_boundaries(language, flat[offset : offset + _LONGEST])
        ]
    spans: list[tuple[int, int]] = []
    start = 0
    for end in ends:
        if end < len(flat) and end % _LONGEST and not _ends_here(flat, start, end, language):
            continue
        body = flat[start:end]
        first = start + len(body) - len(body.lstrip())
        last = first + len(body.strip())
        if last > first:
            spans.append((first, last))
        start = end
    return spans


def is_statement(sentence: str) -> bool:
    """Return whether a sentence ends like a whole one that states something: not a question, a heading or a piece."""
    sentence = sentence.rstrip()
    end = _TERMINAL.search(sentence)
    return (
        end is not None and not any(mark in end[0] for mark in QUESTION_MARKS) and not (_LEADERS.search(sentence[-40:]))
    )


def begins_small(text: str) -> bool:
    """Return whether a text begins with a small letter, in a script whose sentences begin with a capital."""
    # Georgian letters count as small ones, but no sentence begins with their capitals.
    return text[:1].islower() and text[:1].title() != text[:1]


def _ends_here(text: str, start: int, end: int, language: str) -> bool:
    """Whether a boundary that sentencex found is one.

    An abbreviation is followed by a small letter or a figure. A full stop inside a word is part of it, as in
    `CRAN.R-project.org`, `smtplib.SMTP("localhost")` and `./configure`, unless a space was lost: `the end.Then`.
    """
    if text[end - 1] == "." and not text[end].isspace():
        return _has_lost_space(text, end)
    following = text[end : end + 8].lstrip()
    said = text[max(start, end - 30) : end].rstrip()
    if said[-1:] != "." or not _CONTINUES.match(following):
        return said[-1:] not in (")", "]") or not begins_small(following)
    is_monsieur = language == "fr" and f" {said}".endswith((" M.", " MM."))
    if is_monsieur or (_REFERENCE.search(said) and _REFERRED.match(following)):
        return False
    if language == "de" and _ORDINAL.search(said) and following[0].isupper():
        return text[end : end + 20].split(maxsplit=1)[0].lower() in _BEGINS_GERMAN
    if following[0].isdigit():
        # "approx. 20" goes on; "... was built. 2. Then" does not.
        return _NUMBERED.match(following) is not None
    return not begins_small(following)


def _has_lost_space(text: str, place: int) -> bool:
    """Whether a full stop is between a word in small letters and one with a capital."""
    word = text[max(0, place - 100) : place].rsplit(maxsplit=1)[-1] + text[place : place + 100].split(maxsplit=1)[0]
    words = _GLUED.fullmatch(word)
    return words is not None and words[1].islower() and words[2].istitle()
