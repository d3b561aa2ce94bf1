"""Distillation: a model in training follows a bi-encoder, another cross-encoder, or itself at the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_core.cross_encoders import BaseCrossEncoder  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402

from langchain_crossrerank import load_cross_encoder  # noqa: E402
from langchain_crossrerank.cli import main  # noqa: E402
from langchain_crossrerank.embeddings import load_embeddings  # noqa: E402
from langchain_crossrerank.embeddings.onnx import OnnxEmbeddings  # noqa: E402
from langchain_crossrerank.errors import InvalidInputError, ScoringError, TrainingError  # noqa: E402
from langchain_crossrerank.testing import ScriptedCrossEncoder  # noqa: E402
from langchain_crossrerank.training.embeddings import model_key  # noqa: E402
from langchain_crossrerank.training.loading import load_trainable  # noqa: E402
from langchain_crossrerank.training.teachers import (  # noqa: E402
    COSINE_SCALE,
    BiEncoderTeacher,
    CrossEncoderTeacher,
    StartingModel,
    as_teacher,
)
from tests.unit.training.tiny_runs import ANIMALS, run  # noqa: E402


class FakeNestEmbeddings(Embeddings):
    """Places nests close to every query, and everything else further away."""

    def __init__(self, close: float = 0.5) -> None:
        self.close = close

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] if "nests" in text else [1 - self.close, 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [3.0, 0.0]


class FakeOtherCrossEncoder(BaseCrossEncoder):
    """A cross-encoder of another package."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def score(self, text_pairs: Any) -> list[float]:
        return [float(len(passage)) for _, passage in text_pairs]


def lead_of_nests(base: Path, run_folder: Path) -> float:
    """Return by how much the last step's weights score another animal's nest above the answer, in mean logits."""
    model = load_trainable(base, max_length=48)
    saved = torch.load(run_folder / "checkpoint.pt", weights_only=True)["trained"]
    model.network.load_state_dict(saved, strict=False)
    model.network.eval()
    queries = [f"when the {animal} eats" for animal in ANIMALS]
    answers = [f"The {animal} eats in the morning." for animal in ANIMALS]
    nests = [f"The {animal} nests in the morning." for animal in ANIMALS[1:] + ANIMALS[:1]]
    with torch.inference_mode():
        preferred, right = (
            model.all_logits(list(zip(queries, passages, strict=True))) for passages in (nests, answers)
        )
    return float((preferred - right).mean())


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_teacher_is_followed(kind: str, data_file: Path, base: Path, tmp_path: Path) -> None:
    """A model of either kind learns what its teacher prefers, although nothing in the data says so."""
    teacher: Any = FakeNestEmbeddings()
    if kind == "cross-encoder":
        nests = {f"The {animal} nests in the morning.": 20.0 for animal in ANIMALS}
        teacher = ScriptedCrossEncoder(nests)
    options: dict[str, Any] = {"steps": 120, "negatives": 7, "calibration": 0.0, "window_sizes": (0,)}
    run(data_file, tmp_path / "alone", base, **options)
    run(data_file, tmp_path / "taught", base, teacher=teacher, distillation=10.0, **options)
    alone, taught = (lead_of_nests(base, tmp_path / f"{name}.run") for name in ("alone", "taught"))
    assert taught > max(alone, 0.0) + 1.0


def test_logits_of_a_bi_encoder_are_scaled_cosines() -> None:
    """Scores are in the order of the pairs, and vectors need not have length one."""
    pairs = [("a", "nests"), ("b", "swims"), ("a", "nests")]
    assert as_teacher(FakeNestEmbeddings()).logits(pairs).tolist() == pytest.approx(
        [COSINE_SCALE, COSINE_SCALE * 0.5 / 1.25**0.5, COSINE_SCALE]
    )


def test_logits_of_a_cross_encoder_are_log_odds() -> None:
    """Probabilities are turned back into log-odds; logits stay."""
    model = ScriptedCrossEncoder({"nests": 0.75, "swims": 0.5})
    pairs = [("a", "nests"), ("a", "swims")]
    assert as_teacher(model).logits(pairs).tolist() == pytest.approx([0.75, 0.5])
    model.activation = "sigmoid"
    assert as_teacher(model).logits(pairs).tolist() == pytest.approx([1.0986, 0.0], abs=1e-4)


def test_training_does_not_change_the_starting_model(base: Path) -> None:
    """Later training does not change the teacher's copy."""
    model = load_trainable(base, max_length=48)
    model.network.eval()
    pairs = [("when the heron eats", "The heron eats in the morning."), ("stork", "A ferry.")]
    teacher = StartingModel(model, 64)
    before = teacher.logits(pairs)
    with torch.no_grad():
        assert torch.allclose(before, model.all_logits(pairs), atol=1e-5)
        for value in model.network.parameters():
            value.add_(0.1)
    assert torch.equal(teacher.logits(pairs), before)


def test_a_run_is_only_resumed_with_its_teacher(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """With the same teacher a run continues exactly; another teacher, or none, is an error that names it."""
    options: dict[str, Any] = {"distillation": 1.0, "validate_every": 2, "cooldown": 0.0}
    where = {"run_folder": tmp_path / "run"}
    run(data_file, tmp_path / "one", tiny_model_folder, steps=4, teacher=FakeNestEmbeddings(), **options, **where)
    for other in (FakeNestEmbeddings(0.4), None, ScriptedCrossEncoder({})):
        with pytest.raises(InvalidInputError, match=r"was started with teacher=.FakeNestEmbeddings.*0.5"):
            run(data_file, tmp_path / "two", tiny_model_folder, steps=6, teacher=other, **options, **where)
    resumed, whole = (
        run(data_file, tmp_path / name, tiny_model_folder, steps=6, teacher=FakeNestEmbeddings(), **options, **more)
        for name, more in (("two", where), ("three", {}))
    )
    assert [row.get("loss") for row in resumed.log] == pytest.approx([row.get("loss") for row in whole.log], abs=1e-5)


def test_a_teacher_of_another_package_is_known_again(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """A run is resumed with a new object of the same model, as in a new process; another model is refused."""
    options: dict[str, Any] = {"distillation": 1.0, "run_folder": tmp_path / "run"}
    for name, steps in (("one", 2), ("two", 4)):
        teacher = FakeOtherCrossEncoder("large")
        done = run(data_file, tmp_path / name, tiny_model_folder, steps=steps, teacher=teacher, **options)
        assert max(row["step"] for row in done.log) == steps
    with pytest.raises(InvalidInputError, match=r"was started with teacher=.FakeOtherCrossEncoder.*large"):
        run(data_file, tmp_path / "three", tiny_model_folder, teacher=FakeOtherCrossEncoder("small"), **options)


def test_the_key_of_a_model_is_what_decides_its_scores() -> None:
    """Our own models have fingerprints; of others, private attributes and those of batches and devices are left out."""
    embeddings = load_embeddings("bundled")
    assert isinstance(embeddings, OnnxEmbeddings)
    assert model_key(embeddings) == embeddings.fingerprint
    keys = set()
    for changed in ({}, {"_client": "b"}, {"batch_size": 2}, {"device": "cuda"}, {"show_progress": True}):
        other = FakeNestEmbeddings()
        vars(other).update({"batch_size": 1, "device": "cpu", "show_progress": False, **changed})
        keys.add(model_key(other))
    assert keys == {"FakeNestEmbeddings[('close', 0.5)]"}


def test_a_teacher_without_weight_is_refused(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """A teacher that would have no effect is an error, before anything is written."""
    with pytest.raises(InvalidInputError, match=r"there is a teacher, but distillation is 0"):
        run(data_file, tmp_path / "out", tiny_model_folder, teacher=FakeNestEmbeddings())
    assert list(tmp_path.iterdir()) == []


def test_other_teachers_are_refused(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """A teacher of another kind is an error that says what to pass."""
    with pytest.raises(InvalidInputError, match=r"teacher is a str; pass LangChain Embeddings"):
        run(data_file, tmp_path / "out", tiny_model_folder, teacher="bundled", distillation=1.0)


def test_a_failing_teacher_stops_training(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Scores that are not finite never reach the weights."""
    with pytest.raises(TrainingError, match="FakeNestEmbeddings returned a vector with values that are not finite"):
        BiEncoderTeacher(FakeNestEmbeddings(float("nan"))).logits([("a", "swims")])
    with pytest.raises(ScoringError):
        CrossEncoderTeacher(ScriptedCrossEncoder({}, default=float("nan"))).logits([("a", "swims")])
    teacher = ScriptedCrossEncoder({}, default=float("nan"))
    with pytest.raises(ScoringError):
        run(data_file, tmp_path / "out", tiny_model_folder, teacher=teacher, distillation=1.0)
    assert not (tmp_path / "out").exists()


def test_the_command_line_names_a_teacher(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--teacher` takes a cross-encoder, or `bi-encoder` for the model of `--embeddings`, which it then needs."""
    command = ["train", str(data_file), "--base", str(tiny_model_folder), "--held-out", "0.3", "--max-length", "48"]
    command += ["--steps", "2", "--groups-per-step", "2", "--negatives", "2", "--distillation", "0.5"]
    assert main([*command, "--output", str(tmp_path / "out"), "--teacher", "bundled"]) == 0
    assert "Load it with load_cross_encoder" in capsys.readouterr().out
    saved = torch.load(tmp_path / "out.run" / "checkpoint.pt", weights_only=True)
    assert json.loads(saved["settings"])["teacher"] == load_cross_encoder("bundled").fingerprint
    assert main([*command, "--output", str(tmp_path / "other"), "--teacher", "bi-encoder"]) != 0
    assert "--teacher bi-encoder needs --embeddings MODEL" in capsys.readouterr().err
