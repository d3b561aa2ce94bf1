"""The progress bar of indexing: in bytes of files, so that it can say how much time is left."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from langchain_crossrerank._terminal import one_line

_READING = 0.1
"""Share of a file's time that reading takes; the rest is embedding and storing."""


class Progress:
    """Shows on standard error which file and page is read, and how much is done.

    Args:
        show: Whether to show anything.
    """

    def __init__(self, show: bool) -> None:
        self._show = show
        self._bar: Any = None
        self._size = 0.0
        self._done = 0.0

    def __enter__(self) -> Progress:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(desc="Indexing", unit="B", unit_scale=True, total=0, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def expect(self, size: int) -> None:
        """Set how many bytes of files there are."""
        if self._bar is not None:
            self._bar.total = size
            self._bar.refresh()

    def start(self, path: Path, size: int) -> None:
        """Begin with a file."""
        self._size, self._done = float(size), 0.0
        self._describe(path.name)

    def page(self, path: Path, page: int, pages: int) -> None:
        """Say that a page has been read."""
        self._advance(self._size * _READING * page / pages)
        self._describe(f"{path.name}, page {page} of {pages}")

    def stored(self, chunks: int, total: int) -> None:
        """Show how many of a file's chunks are stored."""
        self._advance(self._size * (_READING + (1 - _READING) * chunks / max(total, 1)))

    def finish(self) -> None:
        """End the file."""
        self._advance(self._size)

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            text = one_line(text)
            self._bar.set_postfix_str(text if len(text) <= 40 else f"...{text[-37:]}", refresh=False)

    def _advance(self, done: float) -> None:
        if self._bar is not None and done > self._done:
            self._bar.update(done - self._done)
            self._done = done
