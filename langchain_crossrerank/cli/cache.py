"""The commands that look after a score cache: cache info and cache clear."""

from __future__ import annotations

from typing import Annotated

import typer

from langchain_crossrerank.cli.output import say

CacheFile = Annotated[
    str, typer.Argument(metavar="FILE", help='The SQLite file of CachedCrossEncoder(model, "scores.sqlite").')
]


def info_command(file: CacheFile) -> None:
    """Show how many scores a cache has and how large it is."""
    from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache

    info = SQLiteScoreCache(file).info()
    say(f"{info.path}: {info.entries} scores, {_megabytes(info.size_bytes)} of {_megabytes(info.max_bytes)}")


def clear_command(file: CacheFile) -> None:
    """Delete all scores of a cache; the file stays and can be in use."""
    from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache

    say(f"Deleted {SQLiteScoreCache(file).clear()} scores from {file}.")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
