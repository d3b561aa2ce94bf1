"""What to do about texts that a rerank server finds too long or too many: they are cut, or sent a few at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from langchain_crossrerank.cross_encoders.pairs import PairScore

CHARACTERS_PER_TOKEN = 3
"""ASCII characters that are counted as one token when texts are cut here. Every other character counts as a token,
which is enough for all languages."""

SEARCHED_CHARACTERS = 2000
"""Characters of an error that are searched: it says what is wrong at its beginning, and a server may send megabytes,
whose search would hold up all threads."""

_RESERVED_TOKENS = 8
_MIN_PASSAGE_TOKENS = 8

_SHORTEST = 16
"""Tokens of a pair below which nothing is cut any more: the server means something else."""

_REFUSALS = (400, 413, 422)

_TOO_LONG = re.compile(
    r"context length|(too|is) (long|large)|longer than|exceed|batch size|too many tokens|token limit"
    r"|(less|fewer|more) than \d+ tokens|at most \d+ tokens|(reduce|shorten) the (length|input)"
    r"|max\w{0,40}[ _](allowed tokens|number of tokens|model|context|input|sequence|token)|size of tensor a",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"batch size \d+ >|maximum allowed batch size|at most \d+ (items|documents|texts|passages|inputs)"
    r"|too many (items|documents|texts|passages|inputs)",
    re.IGNORECASE,
)


class SentTexts:
    """The texts of a request, which become shorter or fewer while a server refuses them for that.

    Attributes:
        query: The query to send.
        passages: The passages to send, the first ones of those given.
    """

    def __init__(self, query: str, passages: Sequence[str], max_length: int) -> None:
        self._given = query, list(passages)
        self.query, self.passages = query, list(passages)
        self._length = max_length

    def fit(self, status: int, text: str) -> bool:
        """Take in an error, and return whether there are now other texts to send.

        Too many passages are halved. Of pairs that are too long, the query is cut to half of what the model is taken
        to read, and the passages to the rest; where that is still too long, to half of it, and so on.
        """
        if len(self.passages) > 1 and complains_of_number(status, text):
            del self.passages[len(self.passages) // 2 :]
            return True
        if not complains_of_length(status, text):
            return False
        while self._length >= _SHORTEST:
            query = cut_middle(self.query, self._length // 2)
            passages = cut_passages(query, self.passages, self._length)
            if (query, passages) != (self.query, self.passages):
                self.query, self.passages = query, passages
                return True
            self._length //= 2
        return False

    def scored(self, scores: Mapping[int, float]) -> dict[int, PairScore]:
        """Return scores of what was sent by the places of the passages, with what was cut marked."""
        query, passages = self._given
        return {
            place: PairScore(
                score, truncated=self.passages[place] != passages[place], query_truncated=self.query != query
            )
            for place, score in scores.items()
        }


def complains_of_length(status: int, text: str) -> bool:
    """Whether an error says that a pair is longer than the server's model reads."""
    return status in (*_REFUSALS, 500) and _TOO_LONG.search(text[:SEARCHED_CHARACTERS]) is not None


def complains_of_number(status: int, text: str) -> bool:
    """Whether an error says that a request has more passages than the server takes."""
    return status in _REFUSALS and _TOO_MANY.search(text[:SEARCHED_CHARACTERS]) is not None


def may_be_too_long(query: str, passages: Sequence[str], max_length: int) -> bool:
    """Whether a pair could have more than `max_length` tokens, by a count that rather overestimates."""
    budget = max_length - _RESERVED_TOKENS - _count(query)
    return any(len(passage) > CHARACTERS_PER_TOKEN * budget or _count(passage) > budget for passage in passages)


def cut_passages(query: str, passages: Sequence[str], max_length: int) -> list[str]:
    """Cut passages at their end so that each pair has at most `max_length` tokens; see `CHARACTERS_PER_TOKEN`."""
    budget = max(_MIN_PASSAGE_TOKENS, max_length - _RESERVED_TOKENS - _count(query))
    return [_beginning(passage, budget) for passage in passages]


def cut_middle(text: str, budget: int) -> str:
    """Cut out a text's middle so that at most `budget` tokens are left, half of them on each side."""
    if _count(text) <= budget:
        return text
    return _beginning(text, budget // 2) + _beginning(text[::-1], budget // 2)[::-1]


def _count(text: str) -> int:
    if text.isascii():
        return -(-len(text) // CHARACTERS_PER_TOKEN)
    wide = sum(not character.isascii() for character in text)
    return wide - (-(len(text) - wide) // CHARACTERS_PER_TOKEN)


def _beginning(text: str, budget: int) -> str:
    text = text[: CHARACTERS_PER_TOKEN * budget]
    left = CHARACTERS_PER_TOKEN * budget
    for place, character in enumerate(text):
        left -= 1 if character.isascii() else CHARACTERS_PER_TOKEN
        if left < 0:
            return text[:place]
    return text
