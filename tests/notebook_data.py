"""The data that the notebooks, the README and the documentation use, in less time."""

from __future__ import annotations

import json
from pathlib import Path

DATA = Path(__file__).parent.parent / "notebooks" / "data"
QUESTIONS = "llm_fundamentals_questions"

EVERY = 5
"""One of so many questions is kept: enough for a verdict, in a fifth of the time."""


def link_notebooks(folder: Path) -> None:
    """Make `notebooks` in a folder, with links to the data and a copy of some of the judged questions."""
    data = folder / "notebooks" / "data"
    (data / QUESTIONS).mkdir(parents=True)
    for file in DATA.iterdir():
        if file.name != QUESTIONS:
            (data / file.name).symlink_to(file)
    for file in (DATA / QUESTIONS).iterdir():
        if file.name not in ("queries.jsonl", "qrels.tsv"):
            (data / QUESTIONS / file.name).symlink_to(file)
    lines = (DATA / QUESTIONS / "queries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[::EVERY]
    (data / QUESTIONS / "queries.jsonl").write_text("".join(lines), encoding="utf-8")
    kept = {json.loads(line)["_id"] for line in lines}
    head, *judged = (DATA / QUESTIONS / "qrels.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [row for row in judged if row.split("\t", 1)[0] in kept]
    (data / QUESTIONS / "qrels.tsv").write_text("".join([head, *rows]), encoding="utf-8")
