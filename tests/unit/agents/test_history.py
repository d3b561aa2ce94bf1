"""Follow-up questions."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage

from langchain_crossrerank import create_history_query
from langchain_crossrerank.agents.history import refers_back, with_history
from langchain_crossrerank.errors import InvalidInputError

HISTORY = [HumanMessage("What is a bi-encoder?"), AIMessage("Two."), HumanMessage("What is LoRA?"), AIMessage("One.")]
FOLLOW_UP = "And how much memory does it save?"


def words(text: str) -> int:
    """Count words as tokens."""
    return len(text.split())


async def invoke(runnable: Any, value: Any, *, is_async: bool) -> str:
    """Invoke in one of the two ways."""
    result: str = await runnable.ainvoke(value) if is_async else runnable.invoke(value)
    return result


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_last_question_is_put_in_front(*, is_async: bool) -> None:
    """Without a chat model, what the question refers to comes from the last question that names it."""
    query = await invoke(create_history_query(), {"question": FOLLOW_UP, "history": HISTORY}, is_async=is_async)
    assert query == f"What is LoRA? {FOLLOW_UP}"


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_chat_model_rewrites_the_question(*, is_async: bool) -> None:
    """With a chat model, its answer is the query."""
    rewritten = "How much memory does LoRA save?"
    runnable = create_history_query(FakeListChatModel(responses=[f" {rewritten}\n"]))
    assert await invoke(runnable, {"question": FOLLOW_UP, "history": HISTORY}, is_async=is_async) == rewritten


@pytest.mark.parametrize("history", [[], None])
@pytest.mark.parametrize("llm", [None, FakeListChatModel(responses=["not to be asked"])])
def test_a_first_question_is_unchanged(llm: Any, history: Any) -> None:
    """Without a conversation no model is asked."""
    assert create_history_query(llm).invoke({"question": FOLLOW_UP, "history": history}) == FOLLOW_UP


def test_a_question_that_stands_alone_is_unchanged() -> None:
    """A change of subject is not mixed with the last one."""
    question = "How do BM25 and dense retrieval differ?"
    assert with_history(question, HISTORY, max_tokens=100) == question


def test_a_chain_of_follow_ups_goes_back_to_the_subject() -> None:
    """Questions are added until one names what they are about."""
    history = [*HISTORY, HumanMessage("And what does it cost?"), AIMessage("Little.")]
    query = with_history("Why is that?", history, max_tokens=100)
    assert query == "What is LoRA? And what does it cost? Why is that?"


@pytest.mark.parametrize(("max_tokens", "query"), [(9, FOLLOW_UP), (3, FOLLOW_UP), (10, f"What is LoRA? {FOLLOW_UP}")])
def test_the_budget_keeps_the_question_whole(max_tokens: int, query: str) -> None:
    """What does not fit is left out of the conversation, never of the question."""
    result = with_history(FOLLOW_UP, HISTORY, max_tokens=max_tokens, count_tokens=words)
    assert result.endswith(FOLLOW_UP)
    assert words(result) <= max(max_tokens, words(FOLLOW_UP))
    assert query in (result, FOLLOW_UP)


@pytest.mark.parametrize(
    ("question", "is_follow_up"),
    [
        ("And how much memory does it save?", True),
        ("What about QLoRA in practice, then?", True),
        ("Why?", True),
        ("Which of them is the better one?", True),
        ("How much memory?", True),
        ("What is BM25?", False),
        ("How much memory does LoRA save?", False),
        ("What is the difference between precision and recall?", False),
        ("Wie viel Speicher wird dadurch gespart?", True),
        ("它节省多少内存？", True),
    ],
)
def test_words_that_refer_back_are_found(question: str, *, is_follow_up: bool) -> None:
    """English questions are judged by their words; in other languages the conversation is always used."""
    assert refers_back(question) is is_follow_up


def test_messages_may_be_tuples() -> None:
    """Every form of message that LangChain takes is taken."""
    follow_up = {"question": FOLLOW_UP, "history": [("human", "What is LoRA?"), {"role": "ai", "content": "One."}]}
    assert create_history_query().invoke(follow_up) == f"What is LoRA? {FOLLOW_UP}"


@pytest.mark.parametrize(
    ("value", "message"),
    [("text", "pass {"), ({"history": []}, "pass {"), ({"question": " "}, "question is ' '")],
)
def test_other_inputs_are_errors(value: Any, message: str) -> None:
    """The message says what to pass."""
    with pytest.raises(InvalidInputError, match=message):
        create_history_query().invoke(value)
    with pytest.raises(InvalidInputError, match="max_tokens is 0"):
        create_history_query(max_tokens=0)
