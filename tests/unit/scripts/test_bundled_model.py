"""What the bundled model is trained on."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.training import TrainingData, TrainingExample

TRAIN = Path(__file__).parents[3] / "scripts" / "bundled_model" / "train.py"


def write_collection(folder: Path) -> Path:
    """Write a collection of one judged query, whose passages have titles."""
    folder.mkdir()
    rows = [
        {"_id": "p1", "title": "Trade winds", "text": "The trade winds blow from the east."},
        {"_id": "p2", "title": "Ferries", "text": "The ferry leaves at nine."},
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "where do trade winds come from"}))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tp1\t1\n")
    return folder


def test_a_passage_to_evaluate_on_is_kept_out_with_and_without_its_title(tmp_path: Path) -> None:
    """Training data has the same passages, mostly without the titles that collections put before them."""
    texts = ["The trade winds blow from the east.", "Trade winds\nThe trade winds blow from the east.", "It rains."]
    examples = [TrainingExample(f"query {place}", (text,), source="x") for place, text in enumerate(texts)]
    keep_out = runpy.run_path(str(TRAIN))["keep_out"]
    kept = keep_out(TrainingData(examples, {"x": texts}), [write_collection(tmp_path / "eval")])
    assert [example.query for example in kept.examples] == ["query 2"]
    assert kept.passages == {"x": ["It rains."]}
