"""On which queries one list of results is better than another, and by how much."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_crossrerank.evaluation.display.reports import kind_of


def extremes(differences: Mapping[str, float], most: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the largest differences above zero and those below it, the largest first.

    Args:
        differences: Differences by query id.
        most: The largest number of queries in each list.
    """
    ascending = sorted(differences.items(), key=lambda entry: entry[1])
    above = [entry for entry in reversed(ascending) if kind_of(entry[1]) == "up"]
    below = [entry for entry in ascending if kind_of(entry[1]) == "down"]
    return above[:most], below[:most]
