"""Collections on disk and in memory, and retrievers whose candidates are letters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_crossrerank.evaluation import Collection

CORPUS = [
    {"_id": "d1", "title": "LoRA", "text": "Low-rank adaptation.", "metadata": {"page": 3}},
    {"_id": "d2", "title": "", "text": "A ferry leaves at nine."},
    {"_id": "d3", "text": "Straße, 東京, 🙂"},
    {"_id": "d4", "title": "Only a title"},
]
QUERIES = [
    {"_id": "q1", "text": "What is LoRA?", "metadata": {"origin": "drafted"}},
    {"_id": "q2", "text": "When does the ferry leave?"},
    {"_id": "q3", "text": "nobody judged this"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\n"

WriteBeir = Callable[..., Path]
Write = Callable[..., Path]


@pytest.fixture
def write_beir(tmp_path: Path) -> WriteBeir:
    """Write a good BEIR folder, with some files replaced, or left out where they are `None`."""

    def write(**files: str | bytes | None) -> Path:
        contents: dict[str, str | bytes | None] = {
            "corpus": json_lines(CORPUS),
            "queries": json_lines(QUERIES),
            "qrels": QRELS,
            **files,
        }
        for name, content in contents.items():
            file = tmp_path / ("qrels.tsv" if name == "qrels" else f"{name}.jsonl")
            if content is not None:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one file: text unchanged, anything else as JSON."""

    def write_file(content: Any, name: str = "lines.tsv", encoding: str = "utf-8") -> Path:
        file = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_text(text, encoding=encoding, newline="")
        return file

    return write_file


@pytest.fixture
def collection() -> Collection:
    """Three documents, one query with a run and one without."""
    documents = [Document(f"text {key}", id=key, metadata={"source": f"{key}.txt"}) for key in ("d1", "d2", "d3")]
    return Collection(documents, {"q1": "first", "q2": "second"}, {"q1": {"d1": 1}, "q2": {"d2": 1}})


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
