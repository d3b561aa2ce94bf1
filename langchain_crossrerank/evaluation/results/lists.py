"""Both lists of a query, by document ids, and what a chart shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langchain_crossrerank.evaluation.display.reports import Listed, QueryDifference

LISTED = 10
"""Documents of each list that a page shows, and whose texts a result keeps."""


@dataclass(frozen=True)
class QueryLists:
    """Both lists of a query.

    Attributes:
        before: Document ids in the first list's order.
        after: Document ids in the second list's order.
        relevant: Document ids that are judged relevant.
    """

    before: list[str]
    after: list[str]
    relevant: list[str]


def difference_of(
    query: str, difference: float, lists: QueryLists | None, passages: Mapping[str, str]
) -> QueryDifference:
    """Describe how much a query gained, with the start of both lists if they are known.

    Args:
        query: Its text.
        difference: After minus before.
        lists: Its lists.
        passages: Texts by document id; the id stands for a document whose text is not known.
    """
    if lists is None:
        return QueryDifference(query, difference)
    before, after = (
        [Listed(passages.get(name, name), name in lists.relevant) for name in names[:LISTED]]
        for names in (lists.before, lists.after)
    )
    return QueryDifference(query, difference, before, after)


def degraded_note(count: int) -> list[str]:
    """Return the note that some queries were not reranked; none if all were."""
    return [f"{count} queries kept the first stage's order because the model failed"] if count else []
