"""A reranker stays a document compressor, whatever LangChain's methods make of it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import ConfigurableField, RunnableLambda

from langchain_crossrerank import CrossEncoderReranker
from langchain_crossrerank.compressors import as_runnable_compressor, with_settings
from langchain_crossrerank.errors import InvalidInputError, ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

DOCUMENTS = [Document(text) for text in ("a bee", "a ferry", "a bear", "a bird")]
WRAPS: dict[str, Callable[[Any], Any]] = {
    "bind": lambda reranker: reranker.bind(top_n=2),
    "with_config": lambda reranker: reranker.with_config(tags=["x"]),
    "with_retry": lambda reranker: reranker.with_retry(stop_after_attempt=2),
    "with_listeners": lambda reranker: reranker.with_listeners(),
    "with_types": lambda reranker: reranker.with_types(output_type=list),
    "with_fallbacks": lambda reranker: reranker.with_fallbacks([Truncating()]),
    "configurable_fields": lambda reranker: reranker.configurable_fields(top_n=ConfigurableField(id="top_n")),
    "configurable_alternatives": lambda reranker: reranker.configurable_alternatives(
        ConfigurableField(id="which"), default_key="ours", theirs=Truncating()
    ),
}
"""Each of LangChain's methods that wraps a Runnable."""


class Truncating(BaseDocumentCompressor):
    """A compressor of another package, which is not a Runnable."""

    count: int = 2

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Keep the first documents."""
        return documents[: self.count]


def reranker(**fields: Any) -> CrossEncoderReranker:
    """Make a reranker that keeps two documents."""
    return CrossEncoderReranker(**{"model": FakeCrossEncoder(), "top_n": 2, **fields})


def compress(compressor: Any, asynchronous: bool) -> list[str]:
    """Return the texts that a compressor keeps, called as LangChain's retrievers call it."""
    if asynchronous:
        return [document.page_content for document in asyncio.run(compressor.acompress_documents(DOCUMENTS, "a ferry"))]
    return [document.page_content for document in compressor.compress_documents(DOCUMENTS, "a ferry")]


# Only fields of the Runnable itself can be configured, and a wrapper has no top_n.
@pytest.mark.parametrize("second", [None, *(kind for kind in WRAPS if kind != "configurable_fields")])
@pytest.mark.parametrize("first", WRAPS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_wrapping_keeps_a_document_compressor(first: str, second: str | None, asynchronous: bool) -> None:
    """One method's result, and that of another method on it, compresses like the reranker inside."""
    wrapped = WRAPS[first](reranker())
    if second is not None:
        wrapped = WRAPS[second](wrapped)
    assert isinstance(wrapped, BaseDocumentCompressor)
    assert compress(wrapped, asynchronous) == compress(reranker(), asynchronous)


# LangChain keeps listeners in functions that cannot be pickled.
@pytest.mark.parametrize("kind", [kind for kind in WRAPS if kind != "with_listeners"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_wrapped_reranker_can_be_copied(kind: str, how: Callable[[Any], Any]) -> None:
    """Copies of wrappers are wrappers, also those that another process makes from a pickle."""
    wrapped = WRAPS[kind](reranker(model="bundled"))
    assert compress(how(wrapped), asynchronous=False) == compress(wrapped, asynchronous=False)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_another_packages_compressor_can_be_the_fallback(asynchronous: bool) -> None:
    """When the model fails, a compressor that is not a Runnable takes over; other errors can be left out."""
    failing = CrossEncoderReranker(model=ScriptedCrossEncoder({}, default=float("nan")))
    wrapped = failing.with_fallbacks([Truncating()])
    assert compress(wrapped, asynchronous) == ["a bee", "a ferry"]
    with pytest.raises(ScoringError):
        compress(failing.with_fallbacks([Truncating()], exceptions_to_handle=(KeyError,)), asynchronous)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_runnable_can_be_a_compressor(asynchronous: bool) -> None:
    """Any Runnable from a query and documents to documents is brought into the shape."""
    runnable = RunnableLambda(lambda value: [d for d in value["documents"] if value["query"] in d.page_content])
    assert compress(as_runnable_compressor(runnable), asynchronous) == ["a ferry"]


def test_settings_of_another_compressor_hold_for_one_call() -> None:
    """A field of a compressor is set on a copy; one that it does not have is refused by name."""
    compressor = Truncating()
    assert compress(with_settings(compressor, {"count": 1}), asynchronous=False) == ["a bee"]
    assert compressor.count == 2
    with pytest.raises(InvalidInputError, match="top_n=1 cannot be set on Truncating"):
        with_settings(compressor, {"top_n": 1})
