"""Which arguments are taken, and which a `**kwargs` only swallows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_crossrerank.retrievers.signatures import search_arguments, takes_argument


def by_name(query: str, tenant: str = "") -> None:
    """Take an argument by name."""


def by_keyword(query: str, *, tenant: str = "") -> None:
    """Take an argument by keyword only."""


def by_position(query: str, tenant: str = "", /) -> None:
    """Take an argument that cannot be named."""


def swallowing(query: str, **kwargs: Any) -> None:
    """Take any argument and ignore it."""


def passing(query: str, **kwargs: Any) -> None:
    """Take any argument and pass it on."""
    by_name(query, **kwargs)


def inner(query: str, **kwargs: Any) -> Callable[[], None]:
    """Take any argument and use it in a function inside."""
    return lambda: by_name(query, **kwargs)


class Caller:
    """An object that can be called."""

    def __call__(self, query: str, **kwargs: Any) -> None:
        """Pass everything on."""
        by_name(query, **kwargs)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (by_name, True),
        (by_keyword, True),
        (by_position, False),
        (swallowing, False),
        (passing, True),
        (inner, True),
        (Caller(), True),
        (lambda tenant: None, False),
        (lambda query: None, False),
        (print, False),
    ],
)
def test_an_argument_is_taken_if_something_is_done_with_it(function: Callable[..., Any], takes: bool) -> None:
    """A parameter of the name counts, and a `**kwargs` that the code reads; the query's own parameter does not."""
    assert takes_argument(function, "tenant") is takes


class Store(VectorStore):
    """A store whose searches know arguments in several ways."""

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search."""
        return self._search(query, k, where=kwargs.get("filter"))

    def _search(self, query: str, k: int, where: Any = None, **rest: Any) -> list[Document]:
        return [Document(str(rest[name])) for name in ("offset", "shard")]

    def max_marginal_relevance_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Search for diverse passages."""
        return self._search(query, k, kwargs["spread"])

    def add_things(self, texts: list[str], batch_size: int = 1) -> None:
        """Add texts; nothing of this is an argument of a search."""

    @classmethod
    def from_texts(cls, *args: Any, **kwargs: Any) -> Store:
        """Make an empty store."""
        return cls()


def test_a_stores_arguments_are_what_its_searches_mention() -> None:
    """Parameters and texts in the code of searching methods count, other methods' and documentation do not."""
    known = search_arguments(Store)
    assert {"k", "filter", "where", "offset", "shard"} <= known
    assert not {"batch_size", "texts", "spread", "fetch_k", "query", "Search."} & known
    assert {"spread", "fetch_k", "lambda_mult"} <= search_arguments(Store, "mmr")


def test_langchains_own_store_has_a_filter() -> None:
    """The in-memory store passes its filter through several methods, and knows no namespace."""
    known = search_arguments(InMemoryVectorStore)
    assert "filter" in known
    assert "namespace" not in known
