"""Comparing a model's scores with expected ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError
from langchain_crossrerank.testing import ScriptedCrossEncoder
from langchain_crossrerank.verification import GoldenScore, read_goldens, verify, verify_all

PUBLISHED = {
    "model": "maker/model",
    "query": "q",
    "passages": ["a", "b"],
    "scores": [1.5, -2.0],
    "unit": "logit",
    "dtype": "fp32",
    "atol": 0.01,
    "source": "its card",
}


def write(file: Path, *rows: Any) -> Path:
    """Write a JSON array."""
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def test_the_bundled_model_is_what_was_published() -> None:
    """Every golden pair of the bundled model has its published score here, within the stated tolerance."""
    result = verify("bundled")
    assert len(result.scores) == 63
    assert result.passed
    assert 0 < result.largest_difference <= 0.02
    assert "63 scores, all within their tolerance" in result.to_text()
    assert json.loads(json.dumps(result.to_dict()))["passed"] is True


def test_a_score_above_its_tolerance_fails(tmp_path: Path) -> None:
    """A pair whose score is too far away is marked, and the verification has not passed."""
    file = write(tmp_path / "golden.json", PUBLISHED)
    model = ScriptedCrossEncoder({"a": 1.505, "b": -2.5})
    result = verify(model, file, golden_model="maker/model")
    assert [score.passed for score in result.scores] == [True, False]
    assert result.largest_difference == pytest.approx(0.5)
    assert not result.passed
    assert "1 above their tolerance" in result.to_text()
    assert verify(model, file, golden_model="maker/model", tolerance=1.0).passed


@pytest.mark.parametrize(
    ("unit", "activation", "given"),
    [
        ("logit", "identity", 1.5),
        ("log-odds yes-no", "identity", 1.5),
        ("logit", "sigmoid", sigmoid(1.5)),
        ("model default", "sigmoid", 1.5),
        ("model default", "identity", 1.5),
    ],
)
def test_scores_are_compared_in_the_golden_unit(unit: str, activation: Any, given: float) -> None:
    """Probabilities are turned into logits and back where the units differ; the model's own unit is left alone."""
    model = ScriptedCrossEncoder({"a": given})
    model.activation = activation
    golden = GoldenScore("q", "a", 1.5, "model default" if unit == "model default" else "logit")
    assert verify(model, [golden]).scores[0].score == pytest.approx(1.5)


def test_probabilities_are_compared_as_such() -> None:
    """A golden probability is compared with the sigmoid of a logit."""
    golden = GoldenScore("q", "a", sigmoid(0.7), "probability", 1e-6)
    assert verify(ScriptedCrossEncoder({"a": 0.7}), [golden]).passed


def test_files_of_both_shapes_are_read(tmp_path: Path) -> None:
    """Lists of passages, single passages, and JSON lines with a byte order mark are all read."""
    single = {"query": "q", "passage": "a", "logit": 1}
    lines = tmp_path / "golden.jsonl"
    lines.write_text("\ufeff" + json.dumps(single) + "\n" + json.dumps({**single, "unit": "sigmoid"}), encoding="utf-8")
    assert read_goldens(write(tmp_path / "golden.json", PUBLISHED, single)) == [
        GoldenScore("q", "a", 1.5, "logit", 0.01, "maker/model", "its card"),
        GoldenScore("q", "b", -2.0, "logit", 0.01, "maker/model", "its card"),
        GoldenScore("q", "a", 1.0),
    ]
    assert [golden.unit for golden in read_goldens(lines)] == ["logit", "probability"]


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q"},
        {"query": "q", "passage": "a"},
        {"query": "q", "passages": ["a"], "scores": [1, 2]},
        {"query": "q", "passage": "a", "score": "high"},
        {"query": "q", "passage": "a", "score": float("nan")},
        {"query": "q", "passage": "a", "score": 1, "unit": "cosine"},
        {"query": "q", "passage": "a", "score": 1, "atol": -1},
        [1],
    ],
)
def test_malformed_entries_are_named(tmp_path: Path, row: Any) -> None:
    """An entry that is not a golden score is an error with its number."""
    with pytest.raises(InvalidInputError, match="entry 2"):
        read_goldens(write(tmp_path / "golden.json", PUBLISHED, row))


@pytest.mark.parametrize("content", [b"no JSON", b"\xff", b"[" * 100_000])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    """A file that is not JSON, or is missing, is an error with its name."""
    (tmp_path / "golden.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"golden\.json"):
        read_goldens(tmp_path / "golden.json")
    with pytest.raises(InvalidInputError, match=r"missing\.json"):
        read_goldens(tmp_path / "missing.json")


def test_a_file_of_other_models_is_refused(tmp_path: Path) -> None:
    """Golden scores of other models are not used by mistake; the error names those in the file."""
    file = write(tmp_path / "golden.json", PUBLISHED)
    with pytest.raises(InvalidInputError, match=r"no golden scores for 'bundled'.*maker/model.*golden_model"):
        verify("bundled", file)
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidInputError, match=r"no golden scores for .*has no golden.json"):
        verify(tmp_path / "model")
    with pytest.raises(InvalidInputError, match=r"no golden scores for .*nothing': it is not a folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="pass at least one"):
        verify("bundled", [])


def test_every_model_of_a_file_is_verified(tmp_path: Path) -> None:
    """A model that cannot be loaded fails with its error and does not stop the others."""
    bundled = {**PUBLISHED, "model": "bundled", "unit": "model default", "scores": [0.5, 0.5], "atol": 0.5}
    missing = {**PUBLISHED, "model": str(tmp_path / "missing")}
    first, second = verify_all(write(tmp_path / "golden.json", missing, bundled))
    assert "there is no model folder" in first.error
    assert not first.passed
    assert first.to_text().startswith(str(tmp_path / "missing"))
    assert second.passed
    with pytest.raises(ModelNotFoundError):
        verify(tmp_path / "missing", tmp_path / "golden.json")


def test_hostile_texts_do_not_act_on_the_terminal(tmp_path: Path) -> None:
    """Control characters of a golden file are shown as escapes."""
    file = write(tmp_path / "golden.json", {"query": "q\x1b[31m\nq", "passage": "a\u202eb", "score": 1})
    text = verify(ScriptedCrossEncoder({}), file).to_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 3
