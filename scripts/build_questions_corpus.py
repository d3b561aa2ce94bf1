"""Builds the corpus of `notebooks/data/llm_fundamentals_questions` from the PDF beside that folder.

    python scripts/build_questions_corpus.py

The chunks are those the package makes with its defaults. The same PDF gives the same bytes; `qrels.tsv` names the
chunks by their place in the text, so judge again when the PDF or the way of splitting changes.
"""

from __future__ import annotations

import json
from pathlib import Path

from langchain_crossrerank.indexing import load_documents, split_documents

DATA = Path(__file__).parent.parent / "notebooks" / "data"
TARGET = DATA / "llm_fundamentals_questions" / "corpus.jsonl"


def corpus_rows(pdf: Path) -> list[dict[str, object]]:
    """Split the PDF and number the chunks from `c001`; `page` starts at 1, as it is printed."""
    return [
        {
            "_id": f"c{number:03d}",
            "title": "",
            "text": document.page_content,
            "metadata": {"page": document.metadata["page"] + 1},
        }
        for number, document in enumerate(split_documents(load_documents(pdf)), start=1)
    ]


def main() -> None:
    """Write one JSON object per line."""
    rows = corpus_rows(DATA / "llm_fundamentals.pdf")
    TARGET.parent.mkdir(exist_ok=True)
    with TARGET.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{TARGET}: {len(rows)} chunks")


if __name__ == "__main__":
    main()
