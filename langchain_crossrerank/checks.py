"""Checks of what callers pass, and how a value is shown in a message."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches

from langchain_crossrerank.errors import InvalidInputError


def check_query(query: object, *, what: str = "query") -> str:
    """Return the query if it is a string that is not blank.

    Args:
        query: The query.
        what: What to call it in an error.

    Raises:
        InvalidInputError: If it is not a string, or blank.
    """
    if not isinstance(query, str):
        raise InvalidInputError(f"{what} is {shorten(query)} of type {type(query).__name__}; pass a string.")
    if not query or query.isspace():
        raise InvalidInputError(f"{what} is {query!r}, which is blank; pass the text to search for.")
    return query


def shorten(value: object, limit: int = 80) -> str:
    """Return a value for an error message: its `repr`, cut to `limit` characters."""
    return cut(repr(value), limit)


def check_choices(**settings: tuple[object, tuple[str, ...]]) -> None:
    """Raise `InvalidInputError` unless each setting is one of its choices."""
    for what, (value, choices) in settings.items():
        if value not in choices:
            raise InvalidInputError(f"{what} is {shorten(value)}; pass {' or '.join(map(repr, choices))}.")


def check_whole_numbers(**settings: tuple[object, int]) -> None:
    """Raise `InvalidInputError` unless each setting is a whole number of at least its minimum."""
    for what, (value, least) in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidInputError(f"{what} is {shorten(value)}; pass a whole number of at least {least}.")


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise unless every name is known.

    Args:
        what: The start of the message, such as `"load_cross_encoder has no argument"`.
        names: The names.
        known: Those that there are.

    Raises:
        InvalidInputError: Naming the first one that is not known, and the one that was probably meant.
    """
    known = list(known)
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"pass one of {', '.join(known)}."
            raise InvalidInputError(f"{what} {shorten(name)}; {hint}")


def check_seconds(*, may_be_zero: bool = False, **settings: object) -> None:
    """Raise `InvalidInputError` unless each setting is a finite number of seconds, above 0 or, if it may be, 0."""
    least = "of 0 or more" if may_be_zero else "above 0"
    for what, value in settings.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
        if not is_number or (value == 0 and not may_be_zero):
            raise InvalidInputError(f"{what} is {shorten(value)}; pass a number of seconds {least}.")


def cut(text: str, limit: int) -> str:
    """Cut a text to `limit` characters, ending in dots if something is left out."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
