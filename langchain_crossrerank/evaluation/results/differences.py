"""On which queries one list of results is better than another, and by how much."""

from __future__ import annotations

from collections.abc import Mapping

TIE = 1e-9
"""Differences up to this are rounding, not a difference."""


def extremes(differences: Mapping[str, float], most: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the largest differences above zero and those below it, the largest first.

    Args:
        differences: Differences by query id.
        most: The largest number of queries in each list.
    """
    ascending = sorted(differences.items(), key=lambda entry: entry[1])
    above = [entry for entry in reversed(ascending) if entry[1] > TIE]
    below = [entry for entry in ascending if entry[1] < -TIE]
    return above[:most], below[:most]
