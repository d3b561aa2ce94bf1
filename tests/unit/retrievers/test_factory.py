"""How a first stage and a reranker are combined, and how many candidates are fetched."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as StockReranker
from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackHandler,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_crossrerank import CrossEncoderReranker, create_rerank_retriever, retrieve_and_rerank
from langchain_crossrerank.cross_encoders.settings import DEFAULT_MODEL
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.retrievers import DEFAULT_TOP_N
from langchain_crossrerank.retrievers.first_stages import DEFAULT_K
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder

TEXTS = [f"passage {number} about nothing" for number in range(29)] + ["LoRA adapts a frozen model"]
QUERY = "LoRA frozen"

Candidates = Callable[..., int]


class TopRetriever(BaseRetriever):
    """A retriever with a `k` of its own, as BM25Retriever has."""

    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [Document(text) for text in TEXTS][: self.k if k is None else k]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager.get_sync(), k=k)


class FixedRetriever(BaseRetriever):
    """A retriever whose number of candidates cannot be set."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(text) for text in TEXTS]


def find(query: str) -> list[Document]:
    """Find all passages, as a plain function."""
    return [Document(text) for text in TEXTS]


FIND = RunnableLambda(find)
"""The same as a Runnable."""


@pytest.fixture(scope="session")
def store() -> InMemoryVectorStore:
    """A vector store of thirty passages in no particular order."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_texts(TEXTS)
    return store


@pytest.fixture
def candidates() -> Candidates:
    """Count the candidates that reach the reranker."""

    def count(base: Any, *, invoke: dict[str, Any] | None = None, **kwargs: Any) -> int:
        retriever = create_rerank_retriever(base, model=FakeCrossEncoder(), top_n=None, **kwargs)
        return len(retriever.invoke(QUERY, **(invoke or {})))

    return count


def bases(store: InMemoryVectorStore) -> dict[str, Any]:
    """Return one first stage of each kind; all of them find the passage that answers."""
    return {
        "vector store": store,
        "vector store retriever": store.as_retriever(search_kwargs={"k": 30}),
        "retriever with k": TopRetriever(k=30),
        "retriever without k": FixedRetriever(),
        "runnable": FIND,
        "callable": find,
    }


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", list(bases(InMemoryVectorStore(DeterministicFakeEmbedding(size=2)))))
def test_any_first_stage_is_reranked(store: InMemoryVectorStore, kind: str, asynchronous: bool) -> None:
    """A store, a retriever, a Runnable and a function all make a compression retriever with scored documents."""
    k = 30 if kind == "vector store" else None
    retriever = create_rerank_retriever(bases(store)[kind], model=FakeCrossEncoder(), k=k, top_n=2)
    assert isinstance(retriever, ContextualCompressionRetriever)
    documents = asyncio.run(retriever.ainvoke(QUERY)) if asynchronous else retriever.invoke(QUERY)
    assert len(documents) == 2
    assert documents[0].page_content == TEXTS[-1]
    assert all(type(document.metadata["relevance_score"]) is float for document in documents)
    assert all(1 <= document.metadata["initial_rank"] <= 30 for document in documents)


@pytest.mark.parametrize(
    ("told", "k", "fetched"),
    [(None, None, DEFAULT_K), (None, 7, 7), (None, 1, 1), (25, None, 25), (25, 7, 7), (3, None, 3), (3, 28, 28)],
)
@pytest.mark.parametrize("kind", ["vector store retriever", "retriever with k"])
def test_k_wins_over_the_retrievers_own_number(
    store: InMemoryVectorStore, candidates: Candidates, kind: str, told: int | None, k: int | None, fetched: int
) -> None:
    """`k` decides; without it the retriever's own number; without either, the default."""
    base: BaseRetriever
    if kind == "retriever with k":
        base = TopRetriever() if told is None else TopRetriever(k=told)
    else:
        base = store.as_retriever(search_kwargs={} if told is None else {"k": told})
    before = base.model_copy(deep=False)
    assert candidates(base, k=k) == fetched
    assert base == before


@pytest.mark.parametrize(("k", "fetched"), [(None, DEFAULT_K), (1, 1), (30, 30), (100, 30)])
def test_a_vector_store_gives_k_candidates(
    store: InMemoryVectorStore, candidates: Candidates, k: int | None, fetched: int
) -> None:
    """A vector store is asked for `k`, or for the default where nobody says how many."""
    assert candidates(store, k=k) == fetched


def test_the_first_stage_is_neither_copied_nor_changed(store: InMemoryVectorStore) -> None:
    """The retriever holds the caller's object, so that what is set on it afterwards takes effect."""
    base = store.as_retriever(search_type="mmr", search_kwargs={"lambda_mult": 0.3, "fetch_k": 30}, tags=["mine"])
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=None)
    retriever = create_rerank_retriever(base, reranker=reranker, k=12)
    assert retriever.base_retriever is base
    assert retriever.base_compressor is reranker
    assert len(retriever.invoke(QUERY)) == 12
    assert base.search_kwargs == {"lambda_mult": 0.3, "fetch_k": 30}
    base.search_type = "similarity"
    base.search_kwargs = {"filter": lambda document: document.page_content == TEXTS[3]}
    assert [document.page_content for document in retriever.invoke(QUERY)] == [TEXTS[3]]


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "20"])
def test_k_must_be_a_positive_whole_number(store: InMemoryVectorStore, k: Any) -> None:
    """Anything else is refused with its value."""
    with pytest.raises(InvalidInputError) as caught:
        create_rerank_retriever(store, model=FakeCrossEncoder(), k=k)
    assert f"k is {k!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("base", "named"),
    [(FixedRetriever(), "FixedRetriever"), (FIND, "RunnableLambda"), (find, "RunnableLambda")],
    ids=["retriever", "runnable", "call"],
)
def test_k_is_refused_where_it_cannot_be_set(base: Any, named: str) -> None:
    """A first stage without a number of candidates to set takes only `k=None`; the error names its type."""
    with pytest.raises(InvalidInputError, match=f"k=20 cannot be set on {named}"):
        create_rerank_retriever(base, model=FakeCrossEncoder(), k=20)


@pytest.mark.parametrize("base", ["a query", None, 42, [Document("a")]])
def test_other_bases_are_refused(base: Any) -> None:
    """The error shows the value and its type."""
    with pytest.raises(InvalidInputError) as caught:
        create_rerank_retriever(base, model=FakeCrossEncoder())
    assert repr(base)[:20] in str(caught.value)
    assert type(base).__name__ in str(caught.value)


@pytest.mark.parametrize(("k", "top_n"), [(5, 5), (1, 5), (20, 20), (None, DEFAULT_K)])
def test_no_more_candidates_than_results_warns(store: InMemoryVectorStore, k: int | None, top_n: int) -> None:
    """With `k <= top_n` the warning names both numbers and points at the caller's line."""
    with pytest.warns(UserWarning, match=f"k={k or DEFAULT_K} candidates for top_n={top_n}:") as caught:
        create_rerank_retriever(store, model=FakeCrossEncoder(), k=k, top_n=top_n)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(("k", "top_n"), [(6, 5), (1, None), (5, None)])
def test_enough_candidates_do_not_warn(
    store: InMemoryVectorStore, recwarn: pytest.WarningsRecorder, k: int, top_n: int | None
) -> None:
    """One more candidate than results, or keeping all, does not warn."""
    create_rerank_retriever(store, model=FakeCrossEncoder(), k=k, top_n=top_n)
    create_rerank_retriever(FIND, model=FakeCrossEncoder(), top_n=top_n)
    assert recwarn.list == []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["vector store", "vector store retriever", "retriever with k"])
def test_run_time_k_reaches_the_first_stage(store: InMemoryVectorStore, kind: str, asynchronous: bool) -> None:
    """`retriever.invoke(query, k=3)` fetches three candidates for that call and no other."""
    retriever = create_rerank_retriever(bases(store)[kind], model=FakeCrossEncoder(), top_n=None)
    usual = len(retriever.invoke(QUERY))
    found = asyncio.run(retriever.ainvoke(QUERY, k=3)) if asynchronous else retriever.invoke(QUERY, k=3)
    assert len(found) == 3
    assert len(retriever.invoke(QUERY)) == usual != 3


def test_a_ready_reranker_is_used_unchanged(store: InMemoryVectorStore) -> None:
    """`reranker=` goes into the retriever itself."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=1)
    retriever = create_rerank_retriever(store, reranker=reranker)
    assert retriever.base_compressor is reranker
    assert len(retriever.invoke(QUERY)) == 1


@pytest.mark.parametrize(
    "setting",
    [
        {"score_threshold": 0.5},
        {"passage_template": "{page_content}"},
        {"top_n": 1},
        {"top_n": DEFAULT_TOP_N},
        {"top_n": None},
        {"model": FakeCrossEncoder()},
        {"model": DEFAULT_MODEL},
    ],
    ids=str,
)
def test_a_ready_reranker_excludes_settings_of_another(store: InMemoryVectorStore, setting: dict[str, Any]) -> None:
    """`reranker=` together with a setting that it would ignore is refused by name, also if that is the usual one."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder())
    with pytest.raises(InvalidInputError, match=next(iter(setting))):
        create_rerank_retriever(store, reranker=reranker, **setting)


def test_further_settings_reach_the_reranker(store: InMemoryVectorStore) -> None:
    """Fields of the reranker are given straight to the function; an unknown one is refused."""
    retriever = create_rerank_retriever(
        store, model=FakeCrossEncoder(), score_threshold=0.9, passage_template="LoRA frozen {page_content}"
    )
    assert len(retriever.invoke(QUERY)) == 5


@pytest.mark.parametrize(
    ("option", "meant"), [("topn", "top_n"), ("score_treshold", "score_threshold"), ("search_kwarg", "search_kwargs")]
)
def test_an_unknown_option_names_the_one_that_was_meant(store: InMemoryVectorStore, option: str, meant: str) -> None:
    """A misspelt argument raises with the right name, in both functions that take options."""
    arguments: dict[str, Any] = {"model": FakeCrossEncoder(), option: 1}
    with pytest.raises(InvalidInputError, match=f"no argument '{option}'; pass {meant} instead"):
        create_rerank_retriever(store, **arguments)
    with pytest.raises(InvalidInputError, match=f"no argument '{option}'; pass {meant} instead"):
        retrieve_and_rerank(store, QUERY, **arguments)


@pytest.mark.parametrize("as_retriever", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_search_settings_may_be_given_to_the_function(
    store: InMemoryVectorStore, as_retriever: bool, short: bool
) -> None:
    """`search_kwargs`, `search_type`, `filter` and `tags` do what they do in `as_retriever`."""

    def wanted(document: Document) -> bool:
        return document.page_content in TEXTS[:9]

    base = store.as_retriever() if as_retriever else store
    search: Any = {"filter": wanted} if short else {"search_kwargs": {"filter": wanted, "lambda_mult": 0.5}}
    retriever = create_rerank_retriever(
        base, model=FakeCrossEncoder(), top_n=None, search_type="mmr", tags=["mine"], **search
    )
    assert {document.page_content for document in retriever.invoke(QUERY)} == set(TEXTS[:9])
    assert retriever.tags == ["mine"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("k", 7), ("search_type", "mmr"), ("filter", lambda document: True)],
    ids=["k", "type", "filter"],
)
def test_an_argument_in_two_places_is_refused(store: InMemoryVectorStore, name: str, value: Any) -> None:
    """Neither place wins in silence."""
    twice: Any = {name: value, "search_kwargs": {name: value}}
    with pytest.raises(InvalidInputError, match=f"{name} was given by name and in search_kwargs"):
        create_rerank_retriever(store, model=FakeCrossEncoder(), **twice)


def test_a_search_by_threshold_needs_a_threshold(store: InMemoryVectorStore) -> None:
    """The store's threshold is a search argument; the reranker's is another one."""
    with pytest.raises(InvalidInputError, match="needs the store's threshold"):
        create_rerank_retriever(
            store, model=FakeCrossEncoder(), search_type="similarity_score_threshold", score_threshold=0.5
        )


def test_a_search_type_that_does_not_exist_is_refused(store: InMemoryVectorStore) -> None:
    """The error names the search types that there are."""
    with pytest.raises(InvalidInputError, match=r"search_type is 'mmmr'.*'mmr'"):
        create_rerank_retriever(store, model=FakeCrossEncoder(), search_type="mmmr")


def test_retrieve_and_rerank_gives_pairs_best_first() -> None:
    """Documents come with their scores as plain floats, from a reranking retriever or from its first stage."""
    model = ScriptedCrossEncoder({TEXTS[3]: 2.5, TEXTS[7]: 1.5})
    ready = retrieve_and_rerank(create_rerank_retriever(FIND, model=model, top_n=2), QUERY)
    made = retrieve_and_rerank(FIND, QUERY, model=model, top_n=2)
    for pairs in (ready, made):
        assert [(document.page_content, score) for document, score in pairs] == [(TEXTS[3], 2.5), (TEXTS[7], 1.5)]
        assert all(type(score) is float for _, score in pairs)
        assert all(score == document.metadata["relevance_score"] for document, score in pairs)


def test_retrieve_and_rerank_hands_its_config_on() -> None:
    """The run configuration reaches the retriever, the first stage and the rerank."""
    seen: dict[str, list[str]] = {}

    class Tags(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            seen[kwargs["name"]] = kwargs["tags"]

        on_retriever_start = on_chain_start

    first_stage = RunnableLambda(find, name="first")
    retrieve_and_rerank(first_stage, QUERY, model=FakeCrossEncoder(), config={"tags": ["mine"], "callbacks": [Tags()]})
    assert {name: "mine" in tags for name, tags in seen.items()} == {
        "RerankRetriever": True,
        "first": True,
        "CrossEncoderReranker": True,
        "rerank_scores": True,
    }


@pytest.mark.parametrize("query", ["", "  ", None])
def test_retrieve_and_rerank_refuses_a_blank_query(query: Any) -> None:
    """A blank query raises before anything is retrieved."""
    with pytest.raises(InvalidInputError, match="query is"):
        retrieve_and_rerank(RunnableLambda(lambda _: pytest.fail("retrieved")), query, model=FakeCrossEncoder())


@pytest.mark.parametrize("stock", [False, True])
def test_retrieve_and_rerank_takes_arguments_for_the_call(stock: bool) -> None:
    """A retriever that reranks already takes other settings for the call, LangChain's own class as well."""
    reranker = CrossEncoderReranker(model=FakeCrossEncoder(), top_n=3)
    retriever: Any = (
        ContextualCompressionRetriever(base_compressor=reranker, base_retriever=FixedRetriever())
        if stock
        else create_rerank_retriever(FixedRetriever(), reranker=reranker)
    )
    assert len(retrieve_and_rerank(retriever, QUERY)) == 3
    assert len(retrieve_and_rerank(retriever, QUERY, top_n=1)) == 1
    assert len(retrieve_and_rerank(retriever, QUERY, score_threshold=0.5)) == 1
    with pytest.raises(InvalidInputError, match="k=50 cannot be set on FixedRetriever"):
        retrieve_and_rerank(retriever, QUERY, k=50)


def test_retrieve_and_rerank_refuses_a_compressor_without_scores() -> None:
    """LangChain's stock reranker writes no score, so the error names it and ours."""
    stock = ContextualCompressionRetriever(
        base_compressor=StockReranker(model=FakeCrossEncoder()), base_retriever=FixedRetriever()
    )
    with pytest.raises(InvalidInputError, match="returns no scores; use that of langchain_crossrerank"):
        retrieve_and_rerank(stock, QUERY)


def test_a_degraded_result_has_no_score() -> None:
    """Documents in the first stage's order come with NaN."""
    model = ScriptedCrossEncoder({TEXTS[0]: float("nan")})
    pairs = retrieve_and_rerank(FIND, QUERY, model=model, top_n=2, on_error="keep_order")
    assert [(document.page_content, math.isnan(score)) for document, score in pairs] == [
        (TEXTS[0], True),
        (TEXTS[1], True),
    ]


def test_no_candidates_give_no_documents() -> None:
    """A first stage that finds nothing gives an empty list."""
    nothing: RunnableLambda[str, list[Document]] = RunnableLambda(lambda _: [])
    assert retrieve_and_rerank(nothing, QUERY, model="no-such-model-anywhere/needed") == []
