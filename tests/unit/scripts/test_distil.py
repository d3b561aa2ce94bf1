"""The groups that the bundled model is distilled on."""

from __future__ import annotations

import gzip
import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the training extra")
pytest.importorskip("bm25s", reason="needs the training extra")

SCRIPT = Path(__file__).parents[3] / "scripts" / "bundled_model" / "distil.py"
if not SCRIPT.is_file():
    pytest.skip("needs the source tree", allow_module_level=True)


def test_the_random_passage_is_no_answer_and_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passage drawn from the whole source is neither a positive, nor a copy of one, nor among the negatives."""
    rows = [{"query": f"when does bird {n} eat", "positive": f"Bird {n} eats at dawn."} for n in range(10)]
    rows += [{"query": row["query"], "positive": row["positive"].upper()} for row in rows]
    with gzip.open(tmp_path / "birds.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    monkeypatch.syspath_prepend(SCRIPT.parent)
    runpy.run_path(str(SCRIPT))["write_groups"](tmp_path, tmp_path / "work", [])
    passages = json.loads((tmp_path / "work" / "passages.json").read_text(encoding="utf-8"))
    groups = json.loads((tmp_path / "work" / "groups.json").read_text(encoding="utf-8"))
    assert len(groups) == 10
    for _, _, (positive, *others) in groups:
        assert len(set(others)) == 8
        assert passages[positive].lower() not in [passages[place].lower() for place in others]
