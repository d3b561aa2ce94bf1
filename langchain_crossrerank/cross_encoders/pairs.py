"""Pairs of a query and a passage: their checks, their scores, and how they are grouped into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.errors import InvalidInputError

TextPair = tuple[str, str]
"""A query and a passage, in this order."""


class HasTokens(Protocol):
    """Anything whose tokens are counted."""

    @property
    def tokens(self) -> int:
        """Number of tokens, special tokens included."""


Counted = TypeVar("Counted", bound=HasTokens)

_ENCODE_PAIRS = 64
_ENCODE_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class PairScore:
    """The result of scoring one pair.

    Attributes:
        score: The model's score; a logit or a probability, as the model's `activation` says.
        truncated: Whether the passage is longer than the model reads, so that its end was not seen.
        window: First and last-plus-one character of the passage's best window, if it was scored in windows.
        pruned: Whether a cheaper model ruled the passage out, so that the score only says "below the others".
        query_truncated: Whether the query is longer than it may be, so that its middle was not seen.
        tokens: Tokens that were read for this score; `None` if unknown, and for a score from a cache.
    """

    score: float
    truncated: bool = False
    window: tuple[int, int] | None = None
    pruned: bool = False
    query_truncated: bool = False
    tokens: int | None = field(default=None, compare=False)


@dataclass(slots=True)
class EncodedPair:
    """One pair prepared for a backend.

    Attributes:
        text_pair: The query and the passage.
        tokens: Number of tokens of the pair, special tokens included; batches are planned with it.
        truncated: Whether the passage was cut to fit.
        window: First and last-plus-one character of this part of the passage, if it is only a part.
        features: The backend's own form of the pair, for example token ids; the base class does not use it.
    """

    text_pair: TextPair
    tokens: int
    truncated: bool = False
    window: tuple[int, int] | None = None
    features: Any = None


def check_text_pairs(text_pairs: Iterable[TextPair]) -> list[TextPair]:
    """Check that every element is a pair of strings, and bring them into a form that every tokenizer accepts.

    Lone surrogates become the replacement character, and a passage of white space only becomes `""`.

    Args:
        text_pairs: `(query, passage)` tuples or lists.

    Returns:
        The pairs, in order.

    Raises:
        InvalidInputError: If an element is not a pair of strings; the message names the first one.
    """
    if not isinstance(text_pairs, Iterable):
        raise InvalidInputError(f"text_pairs is {shorten(text_pairs)}; pass a list of (query, passage) tuples.")
    checked: list[TextPair] = []
    # Most pairs of a call have the same query, which may be long.
    queries: dict[str, str] = {}
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
        if not isinstance(query, str) or query not in queries:
            check_query(query, what=f"the query of text_pairs[{position}]")
            queries[query] = encodable(query)
        checked.append((queries[query], encodable(passage) if not passage.isspace() else ""))
    return checked


def plan_batches(
    encoded: Sequence[Counted], max_batch_tokens: int, max_batch_pairs: int | None = None
) -> list[list[Counted]]:
    """Group pairs, or texts, of similar length so that no batch has more than `max_batch_tokens` tokens with padding.

    Args:
        encoded: Pairs with their token counts.
        max_batch_tokens: The limit; a longer pair gets a batch of its own.
        max_batch_pairs: Maximum pairs in a batch; `None` for no such limit.

    Returns:
        Batches, those of the longest pairs first, so that memory peaks at the start and not late in the work.
    """
    batches: list[list[Counted]] = []
    for item in sorted(encoded, key=lambda pair: -pair.tokens):
        current = batches[-1] if batches else []
        fits = bool(current) and (len(current) + 1) * current[0].tokens <= max_batch_tokens
        if fits and (max_batch_pairs is None or len(current) < max_batch_pairs):
            current.append(item)
        else:
            batches.append([item])
    return batches


def chunks_to_encode(pairs: Iterable[TextPair]) -> Iterator[list[TextPair]]:
    """Divide pairs into chunks that are quick to encode and whose encodings take little memory."""
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
    """Replace lone surrogates, which no tokenizer accepts; surrogate pairs become the character they encode."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
