"""Makes reranking retrievers of stores, retrievers and Runnables, and runs one for a query."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, Any, Unpack, cast

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import RetrieverLike
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.vectorstores import VectorStore

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.cross_encoders.settings import DEFAULT_MODEL
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.metadata import RELEVANCE_SCORE
from langchain_crossrerank.reranker import CrossEncoderReranker, RerankerOptions
from langchain_crossrerank.retrievers.first_stages import DEFAULT_K
from langchain_crossrerank.retrievers.inspection import find_reranker

if TYPE_CHECKING:
    from langchain_crossrerank.retrievers.retriever import RerankRetriever

DEFAULT_TOP_N = 5
"""Number of documents that a retriever keeps by default."""

RetrieverBase = VectorStore | RetrieverLike | Callable[..., list[Document]]
"""What a first stage can be."""


class RetrieverOptions(RerankerOptions, total=False):
    """Keyword arguments of `create_rerank_retriever`; they are explained there."""

    model: BaseCrossEncoder | str | os.PathLike[str]
    k: int | None
    top_n: int | None
    reranker: BaseDocumentCompressor | Runnable[Any, Any] | None
    search_type: str | None
    search_kwargs: dict[str, Any] | None
    filter: Any
    tags: list[str] | None


class Unset(Enum):
    """The default of an argument, unlike anything that a caller passes."""

    UNSET = "unset"


def create_rerank_retriever(
    base: RetrieverBase,
    *,
    model: BaseCrossEncoder | str | os.PathLike[str] | Unset = Unset.UNSET,
    k: int | None = None,
    top_n: int | Unset | None = Unset.UNSET,
    reranker: BaseDocumentCompressor | Runnable[Any, Any] | None = None,
    search_type: str | None = None,
    search_kwargs: dict[str, Any] | None = None,
    filter: Any = None,
    tags: list[str] | None = None,
    **options: Unpack[RerankerOptions],
) -> RerankRetriever:
    """Make a retriever that fetches `k` candidates from `base` and keeps the `top_n` best by a cross-encoder.

    The result is a LangChain `ContextualCompressionRetriever`. It takes arguments when it is invoked, too:
    `retriever.invoke(query, k=50, top_n=3, filter={"tenant": "a"})`. An argument that neither the reranker nor the
    first stage takes raises an error that names it.

    Args:
        base: A vector store, a retriever, or a Runnable or function from a query to documents. A Runnable may take a
            dict, as history-aware retrievers do; the query is then its `"query"`, `"question"` or `"input"`.
        model: A LangChain cross-encoder, `"bundled"`, a folder, a name on the hub or a URL; loaded at the first query.
            By default `"cross-encoder/ms-marco-MiniLM-L6-v2"`.
        k: Number of candidates to fetch. `None` keeps the number that `base` has, or 20 if it has none. A `base` made
            of other retrievers, such as an ensemble, fetches `k` from each.
        top_n: Number of documents to keep, by default 5; `None` keeps all.
        reranker: A reranker to use instead of `model`, `top_n` and the other options, also one that LangChain's
            `with_config`, `with_retry`, `with_fallbacks` or `configurable_fields` returned, or a
            `DocumentCompressorPipeline` with one inside.
        search_type: A vector store's search type: `"similarity"`, `"mmr"` or `"similarity_score_threshold"`.
        search_kwargs: Other arguments of the first stage, as in `VectorStore.as_retriever`.
        filter: The store's filter; short for `search_kwargs={"filter": ...}`.
        tags: Tags of the retriever's runs.
        **options: Other fields of `CrossEncoderReranker`, for example `score_threshold`.

    Returns:
        A retriever whose documents have `relevance_score` and `initial_rank` in their metadata.

    Raises:
        InvalidInputError: If `base` is none of these, there is no such option, an argument is not taken by `base`, or
            two arguments set the same thing.
    """
    from langchain_crossrerank.retrievers.retriever import RerankRetriever

    _check_options(options)
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise InvalidInputError(f"k is {shorten(k)}; pass the number of candidates to fetch, at least 1.")
    if reranker is None:
        compressor: BaseDocumentCompressor | Runnable[Any, Any] = CrossEncoderReranker(
            model=DEFAULT_MODEL if isinstance(model, Unset) else model,
            top_n=DEFAULT_TOP_N if isinstance(top_n, Unset) else top_n,
            **options,
        )
    else:
        others = [name for name, value in (("model", model), ("top_n", top_n)) if not isinstance(value, Unset)]
        if others or options:
            raise InvalidInputError(
                f"both reranker= and {', '.join([*others, *sorted(options)])} were given; "
                "set them on the reranker itself."
            )
        compressor = reranker
    named = {"k": k, "search_type": search_type, "filter": filter}
    twice = [name for name, value in named.items() if value is not None and name in (search_kwargs or {})]
    if twice:
        raise InvalidInputError(f"{', '.join(twice)} was given by name and in search_kwargs; give it once.")
    if isinstance(base, VectorStore) and k is None and "k" not in (search_kwargs or {}):
        # A store's own retriever may have a smaller number that nobody chose.
        k = DEFAULT_K
    retriever = RerankRetriever(
        base_compressor=cast("BaseDocumentCompressor", compressor),
        base_retriever=_as_runnable(base),
        k=k,
        search_type=search_type,
        search_kwargs={**(search_kwargs or {}), **({} if filter is None else {"filter": filter})},
        tags=tags,
    )
    fetched = retriever.check_arguments().k
    inner = find_reranker(retriever)
    if fetched is not None and inner is not None and inner.top_n is not None and fetched <= inner.top_n:
        warnings.warn(
            f"k={fetched} candidates for top_n={inner.top_n}: reranking can change their order but not which "
            "documents are returned; fetch more candidates (k of 20 to 50 is usual).",
            UserWarning,
            stacklevel=2,
        )
    return retriever


def retrieve_and_rerank(
    retriever: RetrieverBase,
    query: str,
    *,
    config: RunnableConfig | None = None,
    **options: Unpack[RetrieverOptions],
) -> list[tuple[Document, float]]:
    """Fetch candidates and rerank them in one call.

    Args:
        retriever: A reranking retriever, also one wrapped by LangChain's Runnable methods; or anything that
            `create_rerank_retriever` takes.
        query: The search text.
        config: LangChain run configuration.
        **options: Arguments for the call if `retriever` reranks already, and otherwise those of
            `create_rerank_retriever`.

    Returns:
        Documents with their scores, best first; NaN if the model failed and `on_error` is `"keep_order"`.

    Raises:
        InvalidInputError: If the query is blank, an argument is not taken, or the retriever's compressor returns
            no scores.
    """
    check_query(query)
    arguments = cast("dict[str, Any]", options)
    if find_reranker(retriever) is not None:
        reranking = cast("Runnable[Any, list[Document]]", retriever)
        documents = (taking_arguments(reranking) if arguments else reranking).invoke(query, config, **arguments)
    elif hasattr(retriever, "base_compressor"):
        raise InvalidInputError(
            f"this retriever's compressor is {type(retriever.base_compressor).__name__}, which returns no scores; "
            "use that of langchain_crossrerank."
        )
    else:
        documents = create_rerank_retriever(retriever, **options).invoke(query, config)
    return [(document, _score_of(document)) for document in documents]


def taking_arguments(retriever: Runnable[Any, list[Document]]) -> Runnable[Any, list[Document]]:
    """Return a retriever that does not ignore arguments: LangChain's own is replaced by ours around its parts."""
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from langchain_crossrerank.retrievers.retriever import RerankRetriever

    if isinstance(retriever, ContextualCompressionRetriever) and not isinstance(retriever, RerankRetriever):
        return RerankRetriever(**dict(retriever))
    return retriever


def _score_of(document: Document) -> float:
    score = document.metadata.get(RELEVANCE_SCORE)
    return math.nan if score is None else score


def _as_runnable(base: object) -> RetrieverLike:
    if isinstance(base, VectorStore):
        return base.as_retriever()
    if isinstance(base, Runnable):
        return cast("RetrieverLike", base)
    if callable(base):
        return RunnableLambda(base)
    raise InvalidInputError(
        f"base is {shorten(base)} of type {type(base).__name__}; pass a vector store, a retriever, or a Runnable "
        "from a query to documents."
    )


def _check_options(options: Iterable[str]) -> None:
    known = [*RetrieverOptions.__optional_keys__]
    for name in options:
        if name not in RerankerOptions.__optional_keys__:
            close = get_close_matches(name, known, n=1)
            hint = f"pass {close[0]} instead" if close else f"pass some of {', '.join(sorted(known))}"
            raise InvalidInputError(f"create_rerank_retriever has no argument {name!r}; {hint}.")
