"""How LangChain's retrievers, and Runnables made of them, are given arguments for one call.

A first stage is never changed: for a call with arguments of its own it is copied, as shallowly as possible. An argument
that a first stage, or a part of it, does not take is refused by name: a filter that is dropped in silence would return
another tenant's documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import CONFIG_KEYS, merge_configs
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.retrievers.filters import add_filter
from langchain_crossrerank.retrievers.signatures import default_of, search_arguments, takes_argument

DEFAULT_K = 20
"""Number of candidates that a first stage fetches if neither it nor the call says how many."""

_PARTS = {
    "EnsembleRetriever": "retrievers",
    "MergerRetriever": "retrievers",
    "MultiQueryRetriever": "retriever",
    "RePhraseQueryRetriever": "retriever",
    "ContextualCompressionRetriever": "base_retriever",
}
"""Field with the retriever or retrievers inside, for each of LangChain's retrievers that are made of others."""

_NUMBER_FIELDS = ("k", "top_k", "top_k_results")
"""What retrievers call the field with their number of documents."""

_MMR_CANDIDATES = 5
"""Candidates for each document that maximal marginal relevance keeps, as in LangChain's defaults (20 for 4)."""

_TAKES_AND = ("Chroma", "PGVector", "PineconeVectorStore")
"""Stores that take a filter `{"$and": [...]}`."""

AnyStage = Runnable[Any, Any]


@dataclass(frozen=True)
class CallArguments:
    """What a first stage is asked for.

    Attributes:
        k: Number of candidates; `None` if nobody asked for a number.
        default_k: Number of candidates if the first stage has none of its own either; `None` leaves it to it.
        search_type: A vector store's search type, such as `"mmr"`.
        others: Any other arguments, for example `filter`.
        added_filter: A filter to add to the first stage's own one, whoever set it; `filter` would replace it.
    """

    k: int | None = None
    default_k: int | None = DEFAULT_K
    search_type: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    added_filter: Any = None

    @property
    def named(self) -> dict[str, Any]:
        """All arguments that somebody asked for."""
        asked = {"k": self.k, "search_type": self.search_type}
        return {**{name: value for name, value in asked.items() if value is not None}, **self.others}

    def over(self, bound: Mapping[str, Any]) -> CallArguments:
        """Return these arguments together with those that were bound to the first stage earlier."""
        bound = dict(bound)
        k, search_type = bound.pop("k", None), bound.pop("search_type", None)
        return replace(
            self,
            k=k if self.k is None else self.k,
            search_type=search_type if self.search_type is None else self.search_type,
            others={**bound, **self.others},
        )

    def with_own_filter(self, own: Any, *, takes_and: bool = False) -> CallArguments:
        """Return these arguments with a `filter` that is the added one together with that of the first stage."""
        if self.added_filter is None:
            return self
        both = add_filter(self.others.get("filter", own), self.added_filter, takes_and=takes_and)
        return replace(self, others={**self.others, "filter": both}, added_filter=None)


@dataclass(frozen=True)
class FirstStage:
    """A first stage, ready for one call.

    Attributes:
        runnable: What to invoke.
        k: The most candidates that it returns, if that is known.
    """

    runnable: AnyStage
    k: int | None = None


def prepare(
    stage: AnyStage,
    arguments: CallArguments,
    config: RunnableConfig | None = None,
    *,
    inside: tuple[AnyStage, ...] = (),
) -> FirstStage:
    """Return a first stage with arguments set for one call.

    Args:
        stage: A retriever or a Runnable; not changed.
        arguments: What to set.
        config: LangChain run configuration of the call, for configurable fields.
        inside: What the stage is a part of, for error messages.

    Raises:
        InvalidInputError: If it, or a part of it, does not take one of the arguments.
    """
    if isinstance(stage, DynamicRunnable):
        prepared, merged = stage.prepare(config)
        first = prepare(prepared, arguments, merged, inside=inside)
        return first if not stage.config else FirstStage(first.runnable.with_config(stage.config), first.k)
    if isinstance(stage, RunnableBindingBase):
        first = prepare(stage.bound, arguments.over(stage.kwargs), merge_configs(stage.config, config), inside=inside)
        return FirstStage(_changed(stage, bound=first.runnable, kwargs={}), first.k)
    inside = (*inside, stage)
    if isinstance(stage, RunnableWithFallbacks):
        stages = [prepare(part, arguments, config, inside=inside) for part in (stage.runnable, *stage.fallbacks)]
        others = [first.runnable for first in stages[1:]]
        return FirstStage(_changed(stage, runnable=stages[0].runnable, fallbacks=others), stages[0].k)
    if isinstance(stage, RunnableSequence | RunnableBranch):
        return _prepare_steps(stage, arguments, config, inside)
    if isinstance(stage, BaseRetriever):
        return _prepare_retriever(stage, arguments, config, inside)
    return _prepare_function(stage, arguments, inside)


def parts_of(stage: object) -> list[AnyStage]:
    """Return the Runnables that a first stage hands its query to, as far as they are known; empty for a leaf."""
    parts: list[AnyStage] = []
    if isinstance(stage, DynamicRunnable):
        parts = [stage.default]
    elif isinstance(stage, RunnableBindingBase):
        parts = [stage.bound]
    elif isinstance(stage, RunnableWithFallbacks):
        parts = [stage.runnable, *stage.fallbacks]
    elif isinstance(stage, RunnableSequence):
        parts = list(stage.steps)
    elif isinstance(stage, RunnableBranch):
        parts = [*(part for _, part in stage.branches), stage.default]
    elif (name := _parts_field(stage)) is not None:
        value = getattr(stage, name)
        parts = list(value) if isinstance(value, list) else [value]
    return parts


def takes_dict(stage: AnyStage) -> bool | None:
    """Whether a first stage takes a dict, as a history-aware retriever does, and not a query; `None` if unknown."""
    if isinstance(stage, RunnableBindingBase) and stage.custom_input_type is None:
        return takes_dict(stage.bound)
    if isinstance(stage, BaseRetriever):
        return takes_dict(vars(stage)["base_retriever"]) if _is_a(stage, "RerankRetriever") else False
    try:
        kind = stage.get_input_jsonschema().get("type")
    except Exception:  # noqa: BLE001 - a schema is a courtesy: pydantic cannot make one of every type
        return None
    return None if kind is None else kind == "object"


def _retrieves(stage: object) -> bool:
    return isinstance(stage, BaseRetriever) or any(map(_retrieves, parts_of(stage)))


def _prepare_steps(
    stage: RunnableSequence[Any, Any] | RunnableBranch[Any, Any],
    arguments: CallArguments,
    config: RunnableConfig | None,
    inside: tuple[AnyStage, ...],
) -> FirstStage:
    """Give the arguments to every retriever among the steps of a sequence or a branch."""
    if not _retrieves(stage):
        _refuse_all(arguments, inside)
        return FirstStage(stage)

    def ready(part: AnyStage) -> AnyStage:
        return prepare(part, arguments, config, inside=inside).runnable if _retrieves(part) else part

    if isinstance(stage, RunnableBranch):
        branches = [(condition, ready(part)) for condition, part in stage.branches]
        return FirstStage(_changed(stage, branches=branches, default=ready(stage.default)))
    first, *middle, last = [ready(step) for step in stage.steps]
    return FirstStage(_changed(stage, first=first, middle=middle, last=last))


def _prepare_retriever(
    stage: BaseRetriever, arguments: CallArguments, config: RunnableConfig | None, inside: tuple[AnyStage, ...]
) -> FirstStage:
    if _is_a(stage, "RerankRetriever"):
        return _prepare_reranking(stage, arguments)
    name = _parts_field(stage)
    if name is None:
        return _Leaf(stage, arguments, inside).prepare()
    parts = [prepare(part, arguments, config, inside=inside).runnable for part in parts_of(stage)]
    return FirstStage(_changed(stage, **{name: parts if isinstance(getattr(stage, name), list) else parts[0]}))


def _prepare_reranking(stage: BaseRetriever, arguments: CallArguments) -> FirstStage:
    """Give a reranking retriever of this package, which takes arguments itself, those for its own first stage."""
    bound = arguments.named
    if arguments.k is not None:
        # Its results are the candidates: it must keep k, and fetch at least as many.
        bound |= {"k": max(arguments.k, getattr(stage, "k", None) or 0), "top_n": arguments.k}
    if arguments.added_filter is not None:
        bound["added_filter"] = arguments.added_filter
    return FirstStage(stage.bind(**bound) if bound else stage, arguments.k)


def _prepare_function(stage: AnyStage, arguments: CallArguments, inside: tuple[AnyStage, ...]) -> FirstStage:
    """Give the arguments to a function, or a Runnable of a class of the caller's own, that takes them by name."""
    if isinstance(stage, RunnableLambda):
        function: Callable[..., Any] = stage.func if hasattr(stage, "func") else stage.afunc
    else:
        function = stage.invoke
    named = arguments.with_own_filter(default_of(function, "filter")).named
    is_langchains = not isinstance(stage, RunnableLambda) and type(stage).__module__.startswith("langchain_core.")
    for name, value in named.items():
        if is_langchains or not takes_argument(function, name):
            _refuse(name, value, inside)
    return FirstStage(stage.bind(**named) if named else stage)


class _Leaf:
    """A retriever that is not made of others, while the arguments of a call are being set on a copy of it."""

    def __init__(self, stage: BaseRetriever, arguments: CallArguments, inside: tuple[AnyStage, ...]) -> None:
        self.stage = stage
        self.inside = inside
        self.fields = type(stage).model_fields
        self.changes: dict[str, Any] = {}
        self.bound: dict[str, Any] = {}
        self.search = dict(vars(stage)["search_kwargs"]) if "search_kwargs" in self.fields else None
        self.is_time_weighted = _is_a(stage, "TimeWeightedVectorStoreRetriever")
        self.is_self_query = _is_a(stage, "SelfQueryRetriever")
        store = getattr(stage, "vectorstore", None)
        takes_and = any(_is_a(store, kind) for kind in _TAKES_AND)
        self.arguments = arguments.with_own_filter(self._own_filter(), takes_and=takes_and)

    def prepare(self) -> FirstStage:
        """Set all arguments and return the copy."""
        search_type = self._set_search_type()
        for name, value in self.arguments.others.items():
            self._set(name, value, search_type)
        k = self._set_number()
        if self.arguments.search_type == "similarity_score_threshold" and "score_threshold" not in (self.search or {}):
            raise InvalidInputError(
                "search_type='similarity_score_threshold' needs the store's threshold; pass "
                'search_kwargs={"score_threshold": ...}, or the reranker\'s score_threshold without a search_type.'
            )
        if search_type == "mmr" and self.search is not None and k is not None:
            fetch_k = self.search.get("fetch_k")
            if fetch_k is None or (self.arguments.k is not None and fetch_k <= k):
                self.search["fetch_k"] = max(DEFAULT_K, _MMR_CANDIDATES * k)
        if self.search is not None:
            self.changes["search_kwargs"] = self.search
        runnable = _changed(self.stage, **self.changes)
        # Several chunks may belong to one parent document, and a language model may set a limit of its own.
        is_exact = not _is_a(self.stage, "MultiVectorRetriever") and not self.is_self_query
        return FirstStage(runnable.bind(**self.bound) if self.bound else runnable, k if is_exact else None)

    def _own_filter(self) -> Any:
        if self.search is not None:
            return self.search.get("filter")
        if "filter" in self.fields:
            return vars(self.stage)["filter"]
        return default_of(self.stage._get_relevant_documents, "filter")

    def _set_search_type(self) -> Any:
        wanted, current = self.arguments.search_type, getattr(self.stage, "search_type", None)
        if wanted is None:
            return current
        if current is None:
            _refuse("search_type", wanted, self.inside)
        known = getattr(self.stage, "allowed_search_types", ("similarity", "similarity_score_threshold", "mmr"))
        if wanted not in known:
            raise InvalidInputError(f"search_type is {shorten(wanted)}; pass one of {', '.join(map(repr, known))}.")
        self.changes["search_type"] = wanted if type(current) is str else type(current)(wanted)
        return wanted

    def _set(self, name: str, value: Any, search_type: Any) -> None:
        """Put an argument where the retriever looks for it: search arguments, a field, or its signature."""
        if self.search is not None and self._is_honoured(name, search_type):
            self.search[name] = value
        elif self.search is None and name == "filter" and name in self.fields:
            self.changes[name] = value
        elif self.search is None and takes_argument(self.stage._get_relevant_documents, name):
            self.bound[name] = value
        else:
            _refuse(name, value, self.inside)

    def _is_honoured(self, name: str, search_type: Any) -> bool:
        """Whether a retriever over a vector store does what a search argument asks for."""
        if self.is_time_weighted:
            return False  # it adds its latest documents, whatever the store is asked for
        if self.is_self_query and name not in ("fetch_k", "lambda_mult"):
            return False  # the language model's own filter replaces the caller's
        store = getattr(self.stage, "vectorstore", None)
        kind = getattr(search_type, "value", search_type)
        return store is None or name in search_arguments(type(store), kind)  # type: ignore[arg-type]  # is hashable

    def _set_number(self) -> int | None:
        """Set the number of documents, and return it if it is known."""
        number = next((name for name in _NUMBER_FIELDS if name in self.fields), None)
        if number is None and self.search is None:
            if self.arguments.k is not None:
                if not takes_argument(self.stage._get_relevant_documents, "k"):
                    _refuse("k", self.arguments.k, self.inside)
                self.bound["k"] = self.arguments.k
            return None
        own = getattr(self.stage, number) if number is not None and number in self.stage.model_fields_set else None
        if self.search is not None and not self.is_time_weighted:
            # A field is passed next to the search arguments, so there must not be another k among them.
            in_search = self.search.pop("k", None)
            own = in_search if own is None else own
        k = next((value for value in (self.arguments.k, own, self.arguments.default_k) if value is not None), None)
        if k is None:
            return None
        if number is not None:
            self.changes[number] = k
        elif self.search is not None:
            self.search["k"] = k
        if self.is_time_weighted and self.search is not None:
            self.search["k"] = max(self.search.get("k", k), k)
        return k


def _parts_field(stage: object) -> str | None:
    return next((name for kind, name in _PARTS.items() if _is_a(stage, kind)), None)


def _is_a(stage: object, kind: str) -> bool:
    """Whether a retriever or a store is of a class of LangChain, or of this package, without importing that class."""
    return any(base.__name__ == kind and base.__module__.startswith("langchain") for base in type(stage).__mro__)


def _changed(stage: Any, **changes: Any) -> Any:
    """Return a shallow copy with other fields, or the stage itself if nothing is different."""
    different = {name: value for name, value in changes.items() if not _same(getattr(stage, name), value)}
    return stage.model_copy(update=different) if different else stage


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(new, Runnable):
        return old is new
    return bool(old == new)


def _refuse_all(arguments: CallArguments, inside: tuple[AnyStage, ...]) -> None:
    for name, value in arguments.with_own_filter(None).named.items():
        _refuse(name, value, inside)


def _refuse(name: str, value: Any, inside: Sequence[AnyStage]) -> NoReturn:
    *outer, stage = [type(part).__name__ for part in inside]
    within = f" (inside {', '.join(reversed(outer))})" if outer else ""
    if name in CONFIG_KEYS:
        hint = f'pass config={{"{name}": ...}}.'
    else:
        hint = "leave it out, or set it on the retriever itself if it has such a setting."
    raise InvalidInputError(
        f"{name}={shorten(value)} cannot be set on {stage}{within}, so it would have no effect; {hint}"
    )
