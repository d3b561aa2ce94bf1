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

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.files import write_whole

DRAFT_PROMPT = ChatPromptTemplate.from_template(
    "Write one question that a reader would type into a search box and that this passage answers by itself. Use words "
    "of your own where you can, and do not mention the passage. Give the question alone, on one line.\n\n"
    "Passage:\n{passage}"
)

DRAFTED_QRELS = "qrels.drafted.tsv"
"""File of drafted judgements; not the name that `load_beir` reads, so that nobody takes them for a person's."""


def draft_queries(
    chunks: Sequence[Document], llm: BaseLanguageModel[Any], count: int, folder: str | os.PathLike[str]
) -> int:
    """Write a BEIR folder whose queries a language model drafted, one from each of `count` chunks.

    The queries carry `"origin": "drafted"`, and the judgements, of which each query has one (its chunk), go to
    `qrels.drafted.tsv`. Read them, correct them, judge what else answers, and save the result as `qrels.tsv`.

    Args:
        chunks: The user's documents, as they are indexed.
        llm: Who drafts; the chosen chunks are sent to it.
        count: Queries to draft at most; chunks are taken evenly over the whole.
        folder: Where to write; must not hold `queries.jsonl` or `qrels.tsv` already.

    Returns:
        How many queries were drafted.

    Raises:
        InvalidInputError: If there are no chunks, `count` is not positive, or the folder holds queries or judgements.
    """
    root = Path(folder)
    if count < 1 or not chunks:
        raise InvalidInputError(
            f"{count} queries from {len(chunks)} chunks cannot be drafted; pass at least one of each."
        )
    there = [name for name in ("queries.jsonl", "qrels.tsv", DRAFTED_QRELS) if (root / name).exists()]
    if there:
        raise InvalidInputError(
            f"{str(root)!r} holds {', '.join(there)} already; drafts are never mixed with what is there: "
            "name another folder."
        )
    ids = [f"c{number:05d}" for number in range(len(chunks))]
    step = max(1, len(chunks) // count)
    chosen = list(range(0, len(chunks), step))[:count]
    chain = DRAFT_PROMPT | llm | StrOutputParser()
    drafts = chain.batch([{"passage": chunks[number].page_content} for number in chosen])
    questions = [" ".join(draft.split()) for draft in drafts]
    kept = [(number, text) for number, text in zip(chosen, questions, strict=True) if text]
    corpus = [
        {"_id": key, "title": "", "text": chunk.page_content, "metadata": _plain(chunk.metadata)}
        for key, chunk in zip(ids, chunks, strict=True)
    ]
    queries = [{"_id": f"q{ids[n]}", "text": text, "metadata": {"origin": "drafted"}} for n, text in kept]
    write_whole(root / "corpus.jsonl", _json_lines(corpus))
    write_whole(
        root / DRAFTED_QRELS, "query-id\tcorpus-id\tscore\n" + "".join(f"q{ids[n]}\t{ids[n]}\t1\n" for n, _ in kept)
    )
    write_whole(root / "queries.jsonl", _json_lines(queries))
    return len(kept)


def _json_lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if isinstance(value, str | int | float | bool)}
