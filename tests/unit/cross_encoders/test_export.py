"""Exporting to a folder that needs no torch: what it holds, how close it is, and what a failure leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError, ModelError, UnsupportedModelError

export = pytest.importorskip("langchain_crossrerank.cross_encoders.export", reason="needs the export extra")

from tests.conftest import make_tiny_model  # noqa: E402 - it needs what the line above asks for

PAIRS: list[TextPair] = [
    ("What is LoRA?", "LoRA trains two small matrices beside each frozen weight matrix."),
    ("What is LoRA?", "The ferry to the island leaves at nine."),
    ("a", "b"),
]


@pytest.fixture(scope="module")
def nli_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes, which no reranker is."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "three-labels", num_labels=3)


def test_an_export_reports_how_far_it_is_from_torch(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A new or empty folder gets graph, config and tokenizer, and the difference in logits is within the promise."""
    target = tmp_path / "exported"
    target.mkdir()
    rows = export.export_onnx(str(tiny_model_folder), target)
    assert [row.text_pair for row in rows] == list(export.PARITY_PAIRS)
    assert all(0 <= row.difference <= export.PARITY_TOLERANCE for row in rows)
    assert {"config.json", "model.onnx", "tokenizer.json"} <= {file.name for file in target.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_an_exported_folder_needs_no_torch(tiny_onnx_folder: Path) -> None:
    """Where torch cannot be imported, an exported folder loads and scores."""
    script = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers", "onnx"):
    sys.modules[name] = None
from langchain_crossrerank import load_cross_encoder
print(load_cross_encoder({str(tiny_onnx_folder)!r}, backend="onnx").score({PAIRS!r}))
"""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in done.stdout.strip("[] \n").split(",")]
    assert scores == pytest.approx(load_cross_encoder(tiny_onnx_folder).score(PAIRS), abs=1e-4)


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_an_export_never_overwrites(tiny_model_folder: Path, tmp_path: Path, taken: str) -> None:
    """A file, or a folder with anything in it, is refused before the model is loaded, and stays as it was."""
    target = tmp_path / "exported"
    kept = target if taken == "file" else target / "notes.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not an empty folder"):
        export.export_onnx(str(tiny_model_folder), target)
    assert kept.read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted({target.name, kept.name})


@pytest.fixture(params=["no model", "three labels", "no parity"])
def failing_export(
    request: pytest.FixtureRequest, tiny_model_folder: Path, nli_model: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A model whose export fails: before loading, after loading, or after the graph was written."""
    if request.param == "no parity":
        monkeypatch.setattr(export, "PARITY_TOLERANCE", -1.0)
    models = {"no model": tiny_model_folder / "nope", "three labels": nli_model, "no parity": tiny_model_folder}
    return str(models[request.param])


def test_a_failed_export_leaves_nothing_behind(failing_export: str, tmp_path: Path) -> None:
    """Whenever it fails, an export into a new folder leaves neither that folder nor its own workings."""
    with pytest.raises(ModelError):
        export.export_onnx(failing_export, tmp_path / "exported")
    assert list(tmp_path.rglob("*")) == []


def test_a_failed_export_leaves_an_empty_folder_empty(nli_model: Path, tmp_path: Path) -> None:
    """A folder that was there stays, with nothing in it."""
    (tmp_path / "exported").mkdir()
    with pytest.raises(UnsupportedModelError):
        export.export_onnx(str(nli_model), tmp_path / "exported")
    assert list(tmp_path.rglob("*")) == [tmp_path / "exported"]


def test_a_failed_export_leaves_no_parents_behind(nli_model: Path, tmp_path: Path) -> None:
    """Parents that the export would have made are not made, or taken away again."""
    with pytest.raises(UnsupportedModelError):
        export.export_onnx(str(nli_model), tmp_path / "new" / "parents" / "exported")
    assert list(tmp_path.iterdir()) == []
