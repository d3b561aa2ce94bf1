"""What a dialect is: how it reads a request, writes the result, and words an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_crossrerank.checks import check_query, cut, shorten
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.server.problems import STATUS, Kind, Problem

_WRONG_VALUE = (
    "extra_forbidden",
    "greater_than",
    "greater_than_equal",
    "less_than_equal",
    "literal_error",
    "value_error",
    "too_long",
    "too_short",
)

Item = TypeVar("Item")

ListOf = Annotated[list[Item], Field(fail_fast=True)]
"""A list in the body of a request. Only its first wrong item is reported, so that a million of them cost nothing."""


class RequestBody(BaseModel):
    """The base of request bodies: a field that is not listed is refused by name, so that nothing is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), hide_input_in_errors=True)


@dataclass(frozen=True)
class Scored:
    """The result of a call, for a dialect to write.

    Attributes:
        id: An id of the request.
        model: The name of the model.
        scores: One for each pair, in order.
        tokens: Tokens that were read; `None` if the backend does not say.
    """

    id: str
    model: str
    scores: list[float]
    tokens: int | None

    @property
    def order(self) -> list[int]:
        """Positions of the pairs, best first; equal scores keep their order."""
        return sorted(range(len(self.scores)), key=lambda place: -self.scores[place])


@dataclass(frozen=True)
class Call:
    """A request in the terms of this package.

    Attributes:
        model: The name of a model, or `None` for the default.
        pairs: What to score.
        render: Writes the result.
        logits: Whether to return logits instead of probabilities.
        max_passage_tokens: Tokens to which each passage is cut; `None` for all that the model reads.
        max_pair_tokens: Tokens to which each pair is cut, by its passage; `None` for all that the model reads.
        may_truncate: Whether a passage may be longer than the model reads.
    """

    model: str | None
    pairs: list[TextPair]
    render: Callable[[Scored], Any]
    logits: bool = False
    max_passage_tokens: int | None = None
    max_pair_tokens: int | None = None
    may_truncate: bool = True


Content = TypeVar("Content", covariant=True)  # noqa: PLC0105 - the name that a reader expects


@dataclass(frozen=True)
class Dialect(Generic[Content]):
    """How a family of clients speaks.

    Attributes:
        name: The dialect in metrics.
        read: Turns a decoded body into what is to be answered, usually a `Call`.
        error_body: Writes a problem, with its status.
        statuses: Statuses that differ from `STATUS`.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Content]
    error_body: Callable[[Problem, int], Any]
    statuses: Mapping[Kind, int] = field(default_factory=dict)

    def status(self, problem: Problem) -> int:
        """The HTTP status of a problem."""
        return self.statuses.get(problem.kind, STATUS[problem.kind])


Body = TypeVar("Body", bound=RequestBody)


def validate(model: type[Body], payload: Mapping[str, Any]) -> Body:
    """Read a decoded body as a request.

    Raises:
        Problem: Naming the field that is wrong and its value.
    """
    try:
        return model.model_validate(payload)
    except ValidationError as err:
        errors = err.errors(include_url=False, include_input=True, include_context=False)
        first = errors[0]
        where = ".".join(str(part) for part in first["loc"])
        missing = [repr(str(error["loc"][0])) for error in errors if error["type"] == "missing"]
        if missing:
            named = "field is" if len(missing) == 1 else "fields are"
            message = f"a required {named} missing: {', '.join(missing)}."
        elif first["type"] == "extra_forbidden":
            message = f"{cut(where, 80)!r} is not a field of this request; leave it out."
        else:
            message = f"{where} is {shorten(first['input'])}; {first['msg'][:1].lower()}{first['msg'][1:]}."
        is_value = not missing and first["type"] in _WRONG_VALUE
        raise Problem("invalid" if is_value else "mistyped", message) from None


def read_query(query: str, *, what: str = "query") -> str:
    """Return a query that is not blank.

    Raises:
        Problem: If it is.
    """
    try:
        return check_query(query, what=what)
    except InvalidInputError as err:
        raise Problem("invalid", str(err)) from None


def read_token_limit(tokens: int | None) -> int | None:
    """Return `truncate_prompt_tokens` as a number of tokens; `None` for all that the model reads, which vLLM calls -1.

    Raises:
        Problem: If it is 0.
    """
    if tokens == 0:
        raise Problem("invalid", "truncate_prompt_tokens is 0; pass 1 or more, or -1 for all that the model reads.")
    return None if tokens == -1 else tokens
