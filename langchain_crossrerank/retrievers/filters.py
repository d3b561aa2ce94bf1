"""Adds a filter to a first stage's own one, so that it can only narrow the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError


def add_filter(own: Any, added: Any, *, takes_and: bool = False) -> Any:
    """Return a filter that a document passes only if it passes both.

    Two functions become a function. Dicts are joined by `$and` if the store takes it; otherwise dicts of different
    fields become one dict, which stores either read as "all of these" or refuse.

    Args:
        own: The first stage's own filter; `None` or an empty dict if it has none.
        added: The filter to add to it.
        takes_and: Whether the store takes `{"$and": [...]}`.

    Raises:
        InvalidInputError: If the two cannot be joined.
    """
    if _is_empty(own):
        return added
    if isinstance(own, Mapping | Callable) and _is_empty(added):
        return own
    if callable(own) and callable(added):
        return lambda document: own(document) and added(document)
    if isinstance(own, Mapping) and isinstance(added, Mapping):
        conditions = [*_conditions(own), *_conditions(added)]
        if takes_and or "$and" in own:
            return {"$and": conditions}
        fields = [str(field) for condition in conditions for field in condition]
        # A store may read an operator next to fields as the operator alone.
        if len(set(fields)) == len(fields) and not any(field.startswith("$") for field in fields):
            return {field: value for condition in conditions for field, value in condition.items()}
    raise InvalidInputError(
        f"the filter {shorten(added)} cannot be added to the first stage's own filter {shorten(own)}: only functions, "
        "dicts of different fields, and dicts for a store that is known to take $and can be joined; filter by other "
        "fields, or pass a function of query and filter, which applies both, as the first stage."
    )


def _is_empty(filter: Any) -> bool:
    return filter is None or (isinstance(filter, Mapping) and not filter)


def _conditions(filter: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of an `$and`, or the filter itself."""
    return list(filter["$and"]) if set(filter) == {"$and"} else [filter]
