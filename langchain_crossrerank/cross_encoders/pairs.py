"""Pairs of a query and a passage: what they become, the checks on them, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.errors import InvalidInputError

TextPair = tuple[str, str]
"""A query and a passage, in this order."""


_ENCODE_PAIRS = 64
_ENCODE_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class PairScore:
    """What scoring one pair gave.

    Attributes:
        score: The model's score; a logit or a probability, as the model's `activation` says.
        truncated: Whether the passage was longer than the model reads, so that its end was not seen.
        window: First and last-plus-one character of the passage's best window, when it was scored in windows.
        pruned: Whether a cheaper model ruled the passage out, so that the score only says "below the others".
    """

    score: float
    truncated: bool = False
    window: tuple[int, int] | None = None
    pruned: bool = False


@dataclass(slots=True)
class EncodedPair:
    """One pair made ready for a backend.

    Attributes:
        text_pair: The query and the passage.
        tokens: How many tokens the pair takes, special tokens included; batches are planned with it.
        truncated: Whether the passage was cut to fit.
        window: First and last-plus-one character of the part of the passage that this is, where it is a part.
        features: What the backend made of the pair, for example token ids; the base class does not look at it.
    """

    text_pair: TextPair
    tokens: int
    truncated: bool = False
    window: tuple[int, int] | None = None
    features: Any = None


def check_text_pairs(text_pairs: Iterable[TextPair]) -> list[TextPair]:
    """Check that every element is a pair of strings, and give them a form every tokenizer takes.

    Lone surrogates become the replacement character, and a passage of nothing but white space becomes `""`.

    Args:
        text_pairs: `(query, passage)` tuples or lists.

    Returns:
        The pairs, in order.

    Raises:
        InvalidInputError: Naming the first bad element.
    """
    if not isinstance(text_pairs, Iterable):
        raise InvalidInputError(f"text_pairs is {shorten(text_pairs)}; pass a list of (query, passage) tuples.")
    checked: list[TextPair] = []
    for position, pair in enumerate(text_pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInputError(
                f"text_pairs[{position}] is {shorten(pair)}, not a (query, passage) pair; pass tuples of two strings."
            )
        query, passage = pair
        if not isinstance(passage, str):
            raise InvalidInputError(
                f"the passage of text_pairs[{position}] is {shorten(passage)} of type {type(passage).__name__}; "
                "pass a string."
            )
        check_query(query, what=f"the query of text_pairs[{position}]")
        checked.append((encodable(query), encodable(passage) if not passage.isspace() else ""))
    return checked


def plan_batches(
    encoded: Sequence[EncodedPair], max_batch_tokens: int, max_batch_pairs: int | None = None
) -> list[list[EncodedPair]]:
    """Group pairs of like length so that no batch holds more than `max_batch_tokens` tokens, padding included.

    Args:
        encoded: Pairs with their token counts.
        max_batch_tokens: The limit; a pair above it gets a batch of its own.
        max_batch_pairs: The most pairs in a batch; `None` for no such limit.

    Returns:
        Batches, those of the longest pairs first, so that memory peaks at the start and not late in the work.
    """
    batches: list[list[EncodedPair]] = []
    for item in sorted(encoded, key=lambda pair: -pair.tokens):
        current = batches[-1] if batches else []
        fits = bool(current) and (len(current) + 1) * current[0].tokens <= max_batch_tokens
        if fits and (max_batch_pairs is None or len(current) < max_batch_pairs):
            current.append(item)
        else:
            batches.append([item])
    return batches


def chunks_to_encode(pairs: Iterable[TextPair]) -> Iterator[list[TextPair]]:
    """Divide pairs so that one chunk is quick to encode and its encodings take little memory."""
    chunk: list[TextPair] = []
    characters = 0
    for pair in pairs:
        chunk.append(pair)
        characters += len(pair[0]) + len(pair[1])
        if len(chunk) == _ENCODE_PAIRS or characters > _ENCODE_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def encodable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes; surrogate pairs become the character they stand for."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
