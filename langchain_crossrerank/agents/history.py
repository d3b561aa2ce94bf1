"""Follow-up questions: turns a question and the conversation before it into one query that makes sense alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda
from typing_extensions import TypedDict

from langchain_crossrerank.agents.context import CountTokens, cut_to_tokens, estimate_tokens
from langchain_crossrerank.checks import check_query, check_whole_numbers, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.sentences import guess_language

CONDENSE_PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Rewrite the last question of the conversation as one question that can be understood without the "
            "conversation. Keep its language. Do not answer it. If it can be understood already, repeat it unchanged. "
            "Reply with the question alone.",
        ),
        ("placeholder", "{history}"),
        ("human", "{question}"),
    ]
)
"""The prompt that condenses a conversation; any prompt with `{question}` and a placeholder `{history}` will do."""

_REFERS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|theirs|this|that|these|those|he|him|his|she|her|hers|one|ones|there|then|same|"
    r"former|latter|above|instead|else|other|another)\b|^(?:and|but|or|so|also|why|how come|what about|how about)\b",
    re.IGNORECASE,
)
_NAMES_ITS_SUBJECT = re.compile(r"(?:what|who)(?:'s| is| are| was| were) ", re.IGNORECASE)
_STANDS_ALONE = 4
"""Words from which an English question without a word that refers back is understood on its own."""


class FollowUp(TypedDict):
    """A question and the conversation before it, oldest message first."""

    question: str
    history: Sequence[AnyMessage | tuple[str, str] | dict[str, Any]]


def create_history_query(
    llm: BaseLanguageModel[Any] | None = None,
    *,
    max_tokens: int = 64,
    count_tokens: CountTokens = estimate_tokens,
) -> Runnable[FollowUp, str]:
    """Make a Runnable that turns a question and the conversation before it into one query.

    Pass it as `history` to `create_rag_chain` or `create_rerank_tool`. Without a conversation the question is returned
    unchanged.

    Args:
        llm: The chat model that rewrites the question. `None` needs no model: the last questions of the conversation
            are put in front of a question that refers back to them.
        max_tokens: Maximum tokens of the query if there is no chat model. The question is kept whole, and older
            questions are left out first. A cross-encoder reads query and passage together, so a long query leaves
            fewer tokens for the passage.
        count_tokens: Counts the tokens of a text.

    Raises:
        InvalidInputError: If `max_tokens` is not a whole number above 0.
    """
    check_whole_numbers(max_tokens=(max_tokens, 1))

    def join(follow_up: dict[str, Any]) -> str:
        return with_history(
            follow_up["question"], follow_up["history"], max_tokens=max_tokens, count_tokens=count_tokens
        )

    rewrite: Runnable[Any, str] = RunnableLambda(join)
    if llm is not None:
        rewrite = CONDENSE_PROMPT | llm | StrOutputParser() | RunnableLambda(str.strip)
    chain = RunnableLambda(_checked) | RunnableBranch(
        (lambda follow_up: not follow_up["history"], RunnableLambda(lambda follow_up: str(follow_up["question"]))),
        rewrite,
    )
    return cast("Runnable[FollowUp, str]", chain.with_config(run_name="history_query"))


def with_history(
    question: str,
    history: Sequence[BaseMessage],
    *,
    max_tokens: int,
    count_tokens: CountTokens = estimate_tokens,
) -> str:
    """Put the last questions of a conversation in front of a question that refers to them.

    Args:
        question: The question; kept whole.
        history: The conversation before it, oldest message first.
        max_tokens: Maximum tokens of the result; older questions are left out first, and the oldest one that is kept
            may be cut.
        count_tokens: Counts the tokens of a text.
    """
    if not refers_back(question):
        return question
    query = question
    asked = [message.text.strip() for message in history if isinstance(message, HumanMessage)]
    for earlier in reversed(asked):
        if not earlier or earlier in query:
            continue
        longer = f"{earlier} {query}"
        if count_tokens(longer) > max_tokens:
            left = max_tokens - count_tokens(query)
            return f"{cut_to_tokens(earlier, left, count_tokens)} {query}" if query == question and left > 0 else query
        query = longer
        if not refers_back(earlier):
            break
    return query


def refers_back(question: str) -> bool:
    """Whether a question may need what was said before it: by its words in English, always in other languages."""
    if guess_language(question) != "en":
        return True
    is_short = len(question.split()) < _STANDS_ALONE and not _NAMES_ITS_SUBJECT.match(question)
    return is_short or _REFERS_BACK.search(question) is not None


def _checked(follow_up: object) -> dict[str, Any]:
    if not isinstance(follow_up, dict) or "question" not in follow_up:
        raise InvalidInputError(
            f'the history query got {shorten(follow_up)}; pass {{"question": ..., "history": [...]}}.'
        )
    messages = convert_to_messages(follow_up.get("history") or [])
    return {"question": check_query(follow_up["question"], what="question"), "history": messages}
