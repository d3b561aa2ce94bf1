"""Which arguments a function or a vector store really takes, behind a `**kwargs` that would swallow any."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType
from typing import Any

from langchain_core.vectorstores import VectorStore

_NOT_ARGUMENTS = frozenset({"self", "query", "config", "run_manager", "input"})
_SEARCHING = ("search", "query", "retriev", "relevance")
_MMR = ("marginal", "mmr")
_OF_SEARCH_TYPE = {"mmr": ("fetch_k", "lambda_mult"), "similarity_score_threshold": ("score_threshold",)}
"""Arguments that LangChain's base class handles for every store."""


def takes_argument(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name, or a `**kwargs` that it uses.

    A `**kwargs` that the function's code never reads is there for the signature's sake only, and drops what it gets.
    """
    parameters = _parameters(function)
    found = parameters.get(name)
    if found is not None and found.kind in (found.KEYWORD_ONLY, found.POSITIONAL_OR_KEYWORD):
        is_first = next(iter(parameters)) == name
        return not is_first and name not in _NOT_ARGUMENTS
    rest = next((parameter.name for parameter in parameters.values() if parameter.kind is parameter.VAR_KEYWORD), None)
    return rest is not None and _reads(function, rest)


def default_of(function: Callable[..., Any], name: str) -> Any:
    """Return the default of a function's parameter, as `functools.partial` may have set it; `None` if it has none."""
    found = _parameters(function).get(name)
    return None if found is None or found.default is found.empty else found.default


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _reads(function: Callable[..., Any], variable: str) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None) or getattr(type(function).__call__, "__code__", None)
    if code is None:
        return True
    for instruction in dis.get_instructions(code):
        names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        if instruction.opname.startswith("LOAD_") and variable in names:
            return True
    return False


@cache
def search_arguments(store: type[Any], search_type: str = "similarity") -> frozenset[str]:
    """Return the names of the arguments that a vector store's searches know.

    LangChain's signature ends in `**kwargs` for every store, and some stores ignore what they do not know. An argument
    counts as known if it is a parameter of one of the store's searching methods, or a text in their code, as in
    `kwargs.get("filter")`.

    Args:
        store: The store's class.
        search_type: Search type, such as `"mmr"`; each has arguments of its own.
    """
    known = set(_OF_SEARCH_TYPE.get(search_type, ()))
    is_mmr = search_type == "mmr"
    for kind in store.__mro__:
        if kind in (VectorStore, object):
            continue
        for name, member in vars(kind).items():
            function = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else member
            is_searching = any(word in name for word in _SEARCHING) and (is_mmr or not any(w in name for w in _MMR))
            if is_searching and isinstance(code := getattr(function, "__code__", None), CodeType):
                known.update(_names_in(code))
    return frozenset(name for name in known if name.isidentifier() and name not in _NOT_ARGUMENTS)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
        elif isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from (item for item in constant if isinstance(item, str))
