"""Passages as text for a language model: numbered, with source and score, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.documents import Document

from langchain_crossrerank.metadata import RELEVANCE_SCORE
from langchain_crossrerank.sources import number_passage

CountTokens = Callable[[str], int]
"""Counts the tokens of a text; for example, a chat model's `get_num_tokens`."""

_CHARACTERS_PER_TOKEN = 4
_SEPARATOR = "\n\n"
_CUT = " [...]"


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for every four ASCII characters, and one for each other character."""
    ascii_characters = len(text.encode("ascii", errors="ignore"))
    return -(-ascii_characters // _CHARACTERS_PER_TOKEN) + len(text) - ascii_characters


def format_passages(
    documents: Sequence[Document], *, max_tokens: int, count_tokens: CountTokens = estimate_tokens
) -> tuple[str, list[Document]]:
    """Number documents for a language model, each with its source and score.

    Args:
        documents: Documents, best first.
        max_tokens: Maximum tokens of the text. Documents that do not fit are left out; if even the first is too long,
            its end is cut.
        count_tokens: Counts the tokens of a text.

    Returns:
        The text, and the documents that it contains.
    """
    passages: list[str] = []
    used = 0
    for number, document in enumerate(documents, start=1):
        passage = number_passage(number, document, note=_score_note(document))
        tokens = count_tokens(passage if number == 1 else _SEPARATOR + passage)
        if used + tokens > max_tokens:
            if number == 1:
                passages.append(cut_to_tokens(passage, max_tokens, count_tokens))
            break
        passages.append(passage)
        used += tokens
    return _SEPARATOR.join(passages), list(documents[: len(passages)])


def cut_to_tokens(text: str, max_tokens: int, count_tokens: CountTokens = estimate_tokens) -> str:
    """Cut a text at a space so that it has at most `max_tokens`, including the dots at its end."""
    if count_tokens(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle] + _CUT) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    kept = text[:low]
    # A text without spaces, as in Chinese, is cut between two characters.
    head, space, _ = kept.rpartition(" ")
    return (head if space else kept).rstrip() + _CUT


def _score_note(document: Document) -> str:
    score = document.metadata.get(RELEVANCE_SCORE)
    return f"; score {score:.2f}" if isinstance(score, float) else ""
