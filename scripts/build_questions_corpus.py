"""Builds the corpus of `notebooks/data/llm_fundamentals_questions` from `notebooks/data/llm_fundamentals.pdf`.

python scripts/build_questions_corpus.py

The chunks are those that the package makes by default. `qrels.tsv` names them by their position in the text, so the
judgements must be made again if the PDF or the splitting changes.
"""

from __future__ import annotations

import json
from pathlib import Path

from langchain_crossrerank.indexing import load_documents, split_documents

DATA = Path(__file__).parent.parent / "notebooks" / "data"
TARGET = DATA / "llm_fundamentals_questions" / "corpus.jsonl"


def corpus_rows(pdf: Path) -> list[dict[str, object]]:
    """Split the PDF into chunks with the ids `c001`, `c002`, ...; `page` starts at 1, as printed."""
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
