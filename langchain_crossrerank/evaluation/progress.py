"""A progress bar on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def progress_bar(total: int, show: bool, title: str, *, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error while something runs.

    Args:
        total: How much there is to do.
        show: Whether to show it.
        title: What is done.
        unit: What one of `total` is.

    Yields:
        A function that takes how much more was done.
    """
    if not show:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=title, unit=unit, leave=False) as bar:
        yield bar.update
