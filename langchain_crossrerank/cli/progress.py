"""Says that a download goes on where there is no terminal for the hub's progress bars."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from langchain_crossrerank.cli.output import note

_FIRST, _INTERVAL = 3.0, 15.0
"""Seconds to the first line about a download, and from one line to the next."""


@contextmanager
def announced_downloads() -> Iterator[None]:
    """Show the hub's progress bars on a terminal; elsewhere print a line now and then while something is downloaded."""
    if sys.stderr.isatty():
        yield
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(finished,), name="crossrerank-downloads", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _watch(finished: threading.Event) -> None:
    seen: dict[Path, int] = {}
    wait = _FIRST
    while not finished.wait(wait):
        # Nothing is downloaded before the hub's client is imported, and importing it takes time.
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:
            sizes = partial_files(Path(constants.HF_HUB_CACHE))
            for line in describe_downloads(seen, sizes):
                note(line)
            seen = sizes
        wait = _INTERVAL


def partial_files(cache: Path) -> dict[Path, int]:
    """Find the unfinished downloads in the hub's cache.

    Returns:
        Bytes by file.
    """
    sizes = {}
    for file in cache.glob("models--*/blobs/*.incomplete"):
        try:
            sizes[file] = file.stat().st_size
        except OSError:
            # It has just been completed.
            continue
    return sizes


def describe_downloads(before: Mapping[Path, int], now: Mapping[Path, int]) -> list[str]:
    """Describe the files that have grown since the last look, one line for each repository."""
    growing: dict[str, int] = {}
    for file, size in now.items():
        if size > before.get(file, 0):
            name = file.parent.parent.name.removeprefix("models--").replace("--", "/")
            growing[name] = growing.get(name, 0) + size
    return [f"downloading {name}: {size / 1e6:.0f} MB so far" for name, size in growing.items()]
