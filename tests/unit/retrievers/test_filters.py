"""Filters that are added to the one that a first stage has."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.retrievers.filters import add_filter

TENANT, YEAR, SOURCE = {"tenant": "a"}, {"year": 2021}, {"source": "a.pdf"}


@pytest.mark.parametrize("none", [None, {}])
def test_a_first_stage_without_a_filter_gets_the_added_one(none: Any) -> None:
    """There is nothing to keep, and an empty filter adds nothing."""
    assert add_filter(none, YEAR) == YEAR
    assert add_filter(TENANT, none) == TENANT


@pytest.mark.parametrize(
    ("own", "added", "both"),
    [
        (TENANT, YEAR, {"tenant": "a", "year": 2021}),
        (TENANT, {"year": {"$gte": 2021}}, {"tenant": "a", "year": {"$gte": 2021}}),
        (TENANT, {"$and": [YEAR, SOURCE]}, {"tenant": "a", "year": 2021, "source": "a.pdf"}),
        ({"$and": [TENANT, SOURCE]}, YEAR, {"$and": [TENANT, SOURCE, YEAR]}),
    ],
)
def test_dicts_are_joined_as_the_first_stages_own_is_written(own: Any, added: Any, both: Any) -> None:
    """For a store that is not known, the result has no operator that the application's filter did not have."""
    assert add_filter(own, added) == both


@pytest.mark.parametrize(
    ("own", "added", "conditions"),
    [
        (TENANT, YEAR, [TENANT, YEAR]),
        (TENANT, {"$and": [YEAR, SOURCE]}, [TENANT, YEAR, SOURCE]),
        (TENANT, {"tenant": "b"}, [TENANT, {"tenant": "b"}]),
        ({"$or": [TENANT, SOURCE]}, YEAR, [{"$or": [TENANT, SOURCE]}, YEAR]),
    ],
)
def test_a_store_that_takes_and_gets_every_condition(own: Any, added: Any, conditions: Any) -> None:
    """Also conditions on the same field, and alternatives, hold next to the others."""
    assert add_filter(own, added, takes_and=True) == {"$and": conditions}


def test_a_document_passes_both_functions() -> None:
    """Neither function alone lets a document through."""
    both = add_filter(lambda d: d.metadata["tenant"] == "a", lambda d: d.metadata["year"] == 2021)
    passed = [
        (tenant, year)
        for tenant in "ab"
        for year in (2020, 2021)
        if both(Document("", metadata={"tenant": tenant, "year": year}))
    ]
    assert passed == [("a", 2021)]


@pytest.mark.parametrize(
    ("own", "added"),
    [
        (TENANT, {"tenant": "b"}),
        (TENANT, {"$or": [TENANT, {"tenant": "b"}]}),
        ({"$or": [TENANT, SOURCE]}, YEAR),
        (TENANT, lambda document: True),
        (lambda document: False, YEAR),
        ("tenant = 'a'", "year = 2021"),
        ("tenant = 'a'", {}),
        ([TENANT], YEAR),
    ],
)
def test_what_cannot_be_joined_is_refused(own: Any, added: Any) -> None:
    """A first stage's own filter is never left out; the message shows both and says what to do."""
    with pytest.raises(InvalidInputError, match=r"cannot be added to the first stage's own filter.*pass a function"):
        add_filter(own, added)
