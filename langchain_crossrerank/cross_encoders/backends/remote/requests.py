"""What a rerank server is sent: the shapes of a request, and what is learned from its refusals."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from langchain_crossrerank.cross_encoders.backends.remote.lengths import SEARCHED_CHARACTERS, may_be_too_long

RequestShape = Literal["documents", "texts", "text_2"]
"""Named after the field that contains the passages: `"documents"` is the request of Cohere, which most servers accept;
`"texts"` that of Text Embeddings Inference; `"text_2"` that of vLLM's `/score`."""

MakeRequest = Callable[[str, list[str]], Any]
"""Makes the body of a request from a query and passages."""

PLACEHOLDER_MODEL = "default"
"""The model that is named to a server which wants a name, was given none, and does not list its models."""

OPTIONAL_FIELDS = ("return_documents", "truncate_prompt_tokens", "max_tokens_per_doc", "top_n")
"""Fields that are sent for convenience, and left out where a server refuses them by name."""

_logger = logging.getLogger(__name__)


@dataclass
class Requests:
    """What a server is sent, as far as it is the same for all requests, with what was learned from its refusals.

    Attributes:
        shape: The shape of the request.
        model: The name of the server's model.
        raw_scores: Whether logits are wanted.
        max_length: Tokens that the server's model reads; `None` if the caller did not say.
        extra_body: Further fields of the body.
        make_request: Makes the body instead.
        refused: Fields that the server does not want.
        shape_changed: Whether the server asked for another shape than the first one.
    """

    shape: RequestShape
    model: str | None
    raw_scores: bool
    max_length: int | None
    extra_body: Mapping[str, Any]
    make_request: MakeRequest | None
    refused: set[str] = field(default_factory=set)
    shape_changed: bool = False

    def body(self, query: str, passages: Sequence[str], length: int) -> Any:
        """Return the body of a request; `length` is the number of tokens that passages are planned with."""
        if self.make_request is not None:
            own = self.make_request(query, list(passages))
            return {**own, **self.extra_body} if isinstance(own, Mapping) else own
        truncate_to = (self.max_length or -1) if may_be_too_long(query, passages, length) else None
        made = make_body(
            self.shape, query, passages, model=self.model, raw_scores=self.raw_scores, truncate_to=truncate_to
        )
        return {**{name: value for name, value in made.items() if name not in self.refused}, **self.extra_body}

    @property
    def learned(self) -> tuple[object, ...]:
        """What was learned so far: while it is the same, the same request is made."""
        return self.shape, self.model, frozenset(self.refused)

    def learn(self, text: str, body: Any) -> bool:
        """Take in a refusal, and return whether the request should be made again in another way."""
        if self.make_request is not None:
            return False
        name = refused_field(text, body)
        if name is not None and name not in self.refused and name not in self.extra_body:
            self.refused.add(name)
            return True
        # Only once, so that two servers that contradict each other do not keep it busy.
        other = None if self.shape_changed else expected_shape(text, self.shape)
        if other is not None:
            _logger.warning(
                "A rerank server refused the %r shape and asked for %r, which is used from now on. To avoid the first "
                "request, pass request_shape=%r.",
                self.shape,
                other,
                other,
            )
            self.shape, self.shape_changed = other, True
        return other is not None


def make_body(
    shape: RequestShape,
    query: str,
    passages: Sequence[str],
    *,
    model: str | None,
    raw_scores: bool,
    truncate_to: int | None,
) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        shape: The shape of the request.
        query: The query.
        passages: The passages.
        model: The name of the server's model; `None` to leave it out.
        raw_scores: Whether to ask for logits, where the shape has a field for it.
        truncate_to: Tokens to which the server should cut a pair, -1 for all that its model reads; `None` if no pair
            is that long, so that servers that know no such field are not bothered with it.
    """
    if shape == "texts":
        return {"query": query, "texts": list(passages), "raw_scores": raw_scores, "truncate": True}
    body: dict[str, Any] = {} if model is None else {"model": model}
    if shape == "text_2":
        body |= {"text_1": query, "text_2": list(passages)}
    else:
        body |= {"query": query, "documents": list(passages), "top_n": len(passages), "return_documents": False}
    if truncate_to is not None:
        # The first is vLLM's, the second Cohere's, which has no word for "all".
        body["truncate_prompt_tokens"] = truncate_to
        if shape == "documents" and truncate_to > 0:
            body["max_tokens_per_doc"] = truncate_to
    return body


def refused_field(text: str, body: Mapping[str, Any]) -> str | None:
    """Return the optional field of `body` that a server's error complains about, `None` if it names none."""
    text = text[:SEARCHED_CHARACTERS]
    return next((field for field in OPTIONAL_FIELDS if field in body and field in text), None)


def expected_shape(text: str, shape: RequestShape) -> RequestShape | None:
    """Return the shape that a server's error asks for, if it is another one."""
    text = text[:SEARCHED_CHARACTERS]
    if not re.search("missing|required", text, re.IGNORECASE):
        return None
    named = {"texts": r"\btexts\b", "text_2": r"\btext_1\b", "documents": r"\bdocuments\b"}
    if shape == "texts":
        # Text Embeddings Inference has one model and asks for no name.
        named["documents"] = r"\b(documents|model)\b"
    shapes: tuple[RequestShape, ...] = get_args(RequestShape)
    return next((other for other in shapes if other != shape and re.search(named[other], text)), None)


def wants_model(text: str, body: Any) -> bool:
    """Whether a server's error says that a request must name a model, and `body` names none."""
    if not isinstance(body, Mapping) or "model" in body:
        return False
    text = text[:SEARCHED_CHARACTERS]
    return (
        re.search(r"\bmodel\b", text) is not None
        and re.search("missing|required|must", text, re.IGNORECASE) is not None
    )


def speaks_of_a_model(text: str) -> bool:
    """Whether an error is about a model, so that a 404 does not mean the address."""
    return re.search(r"\bmodel\b", text[:SEARCHED_CHARACTERS], re.IGNORECASE) is not None
