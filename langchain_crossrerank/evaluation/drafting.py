"""Drafts queries from a user's own chunks with a language model, for a person to correct and judge."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_crossrerank.errors import AnswerError, InvalidInputError
from langchain_crossrerank.evaluation.collection import DRAFTED
from langchain_crossrerank.files import write_whole

DRAFT_PROMPT = ChatPromptTemplate.from_template(
    "Write one question that a reader would type into a search box and that this passage answers by itself. Use words "
    "of your own where you can, and do not mention the passage. Give the question alone, on one line.\n\n"
    "Passage:\n{passage}"
)

DRAFTED_QRELS = "qrels.drafted.tsv"
"""File of drafted judgements; `load_beir` does not read this name, so that they are not mistaken for a person's."""


def draft_queries(
    chunks: Sequence[Document], llm: BaseLanguageModel[Any], count: int, folder: str | os.PathLike[str]
) -> int:
    """Write a BEIR folder with queries that a language model drafts, one from each of `count` chunks.

    The queries have `"origin": "drafted"` in their metadata, and each is judged to be answered by its chunk, in
    `qrels.drafted.tsv`. Read the drafts, correct them, judge what else answers, and save the result as `qrels.tsv`.

    Blank drafts are left out. If several chunks lead to the same question, ignoring case, it is one query that all of
    them answer. Nothing is written until all drafts are finished.

    Args:
        chunks: The user's documents, as they are indexed.
        llm: Model that drafts the queries; the chosen chunks are sent to it.
        count: Largest number of queries; chunks with text are chosen evenly from all of them.
        folder: Where to write; it must not contain a corpus, queries or judgements.

    Returns:
        How many queries were drafted.

    Raises:
        InvalidInputError: If no chunk has text, `count` is not positive, or the folder is a file or contains a corpus,
            queries or judgements.
        AnswerError: If every draft is blank.
    """
    root = Path(folder)
    usable = [number for number, chunk in enumerate(chunks) if chunk.page_content.strip()]
    if count < 1 or not usable:
        raise InvalidInputError(
            f"{count} queries from {len(usable)} chunks with text cannot be drafted; pass at least one of each."
        )
    _check_folder(root)
    chosen = [usable[place * len(usable) // count] for place in range(count)] if count < len(usable) else usable
    chain = DRAFT_PROMPT | llm | StrOutputParser()
    drafts = chain.batch([{"passage": chunks[number].page_content} for number in chosen])
    ids = [f"c{number:05d}" for number in range(len(chunks))]
    texts: dict[str, str] = {}
    answers: dict[str, list[str]] = {}
    for number, draft in zip(chosen, drafts, strict=True):
        text = " ".join(draft.split())
        if text:
            texts.setdefault(text.casefold(), text)
            answers.setdefault(text.casefold(), []).append(ids[number])
    if not texts:
        raise AnswerError(f"the language model drafted nothing from {len(chosen)} chunks; try another one.")
    corpus = [
        {"_id": key, "title": "", "text": chunk.page_content, "metadata": _plain(chunk.metadata)}
        for key, chunk in zip(ids, chunks, strict=True)
    ]
    queries = [
        {"_id": f"q{answers[same][0]}", "text": text, "metadata": {"origin": DRAFTED}} for same, text in texts.items()
    ]
    judgements = "".join(f"q{keys[0]}\t{key}\t1\n" for keys in answers.values() for key in keys)
    # Drafting takes a while; the folder may have changed since.
    _check_folder(root)
    _write_all(
        root,
        {
            "corpus.jsonl": _json_lines(corpus),
            DRAFTED_QRELS: f"query-id\tcorpus-id\tscore\n{judgements}",
            "queries.jsonl": _json_lines(queries),
        },
    )
    return len(queries)


def _check_folder(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise InvalidInputError(f"{str(root)!r} is a file; name a folder to write the drafts to.")
    names = ("corpus.jsonl", "queries.jsonl", "qrels.tsv", "qrels", DRAFTED_QRELS)
    there = [name for name in names if (root / name).exists()]
    if there:
        raise InvalidInputError(
            f"{str(root)!r} holds {', '.join(there)} already; drafts are never mixed with what is there: "
            "name another folder."
        )


def _write_all(root: Path, contents: dict[str, str]) -> None:
    """Write several files, or none if one cannot be written."""
    try:
        for name, text in contents.items():
            write_whole(root / name, text)
    except BaseException:
        for name in contents:
            (root / name).unlink(missing_ok=True)
        raise


def _json_lines(rows: Sequence[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # A lone surrogate, which UTF-8 cannot hold, becomes its escape, which is JSON.
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if isinstance(value, str | int | float | bool)}
