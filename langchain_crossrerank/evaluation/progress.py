"""A progress bar on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def with_progress(items: Sequence[Item], show: bool, title: str, *, unit: str = "query") -> Iterable[Item]:
    """Show a progress bar on standard error while items are taken.

    Args:
        items: What is worked on, one after the other.
        show: Whether to show it.
        title: What is done with them.
        unit: What one of them is.
    """
    if not show:
        return items
    from tqdm.auto import tqdm

    bar: Iterable[Item] = tqdm(items, desc=title, unit=unit, leave=False)
    return bar
