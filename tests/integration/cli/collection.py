"""A small BEIR collection, a first stage that puts every answer last, and the words of commands that use them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXTS = {
    "ferry": "The ferry to the island leaves at nine in the morning.",
    "bread": "Bread is made of flour, water, salt and time.",
    "tower": "The tower was closed to visitors for ten years.",
    "lora": "LoRA freezes a model's weights and trains two small matrices beside each of them.",
    "bees": "Bees dance to tell each other where the flowers are.",
}
ASKED = {
    "q1": "When does the ferry leave?",
    "q2": "What is bread made of?",
    "q3": "How long was the tower closed?",
}
ANSWERS = {"q1": "ferry", "q2": "bread", "q3": "tower"}


def run_rows() -> list[tuple[str, str, float]]:
    """A first stage that ranks each query's answer last."""
    rows = []
    for query_id, answer in ANSWERS.items():
        names = [*(name for name in TEXTS if name != answer), answer]
        rows += [(query_id, name, 9.0 - place) for place, name in enumerate(names)]
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))


def evaluate_run(*more: str) -> list[str]:
    """The words of an evaluation of the fixed run."""
    return ["evaluate", "beir", "--offline", "--run", "run.tsv", *more]


def sweep_run(*more: str) -> list[str]:
    """The words of a sweep of the fixed run."""
    return ["sweep", "beir", "--offline", "--run", "run.tsv", "--ks", "1,2,5", *more]


def check_page(text: str, rows: Sequence[str]) -> None:
    """Check what every page promises, and that it has these table rows."""
    assert text.startswith("<!doctype html>")
    assert text.endswith("</body></html>\n")
    assert "color-scheme: light dark" in text
    assert '<meta charset="utf-8">' in text
    assert "default-src 'none'" in text
    for row in rows:
        assert row in text
    assert not re.search(r"https?:|src=|href=(?!\"#)|@import|url\(", text)


def rows_of(fragment: str | None) -> list[str]:
    """The rows of a result's table in its notebook form."""
    found = re.findall("<tr>.*?</tr>", str(fragment))
    assert found
    return found
