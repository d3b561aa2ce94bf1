"""Training that is killed, meets a full disk or damaged files, or runs out of memory loses nothing."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.errors import InvalidInputError, TrainingError  # noqa: E402
from langchain_crossrerank.training import run_folder  # noqa: E402
from langchain_crossrerank.training.models import Trainable  # noqa: E402
from tests.unit.training.tiny_runs import run, save_bi_encoder, write_animals  # noqa: E402

CHILD = Path(__file__).with_name("train_in_child.py")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: tiny models are faster without a second one to wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty queries on animals."""
    return write_animals(tmp_path_factory.mktemp("data") / "animals.jsonl")


@pytest.fixture(scope="session")
def bi_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT bi-encoder."""
    return save_bi_encoder(tmp_path_factory.mktemp("models") / "bi-encoder")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["sequence classifier", "warm start"])
def test_kills_at_random_moments_change_nothing(
    shape: str,
    data_file: Path,
    tiny_model_folder: Path,
    bi_encoder_folder: Path,
    tmp_path: Path,
) -> None:
    """A run that was killed ten times at random moments has the same validation curve as an undisturbed one."""
    base = tiny_model_folder if shape == "sequence classifier" else bi_encoder_folder
    results = []
    for kills in (0, 10):
        words = [data_file, base, tmp_path / f"killed-{kills}", kills, 7]
        done = subprocess.run(
            [sys.executable, str(CHILD), *map(str, words)], capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    steady, disturbed = results
    assert len([step for step in disturbed["killed"] if step is not None]) >= 5
    assert [row["step"] for row in disturbed["rows"]] == [row["step"] for row in steady["rows"]]
    for name in ("nDCG@10", "loss"):
        before, after = ([row[name] for row in result["rows"] if name in row] for result in results)
        assert len(before) >= 9
        assert after == pytest.approx(before, abs=1e-5)


def test_a_full_disk_keeps_the_last_checkpoint(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint that cannot be written is an error that says so, and the run resumes from the previous one."""
    save, calls = torch.save, []

    def full(state: Any, file: Any) -> None:
        calls.append(state["step"])
        if len(calls) == 3:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(run_folder.torch, "save", full)
    options: dict[str, Any] = {"steps": 6, "validate_every": 2}
    with pytest.raises(
        TrainingError, match=r"cannot write the checkpoint of step 4 .*No space left.*the previous one is kept"
    ):
        run(data_file, tmp_path / "out", tiny_model_folder, **options)
    kept = [path.name for path in sorted((tmp_path / "out.run").iterdir())]
    assert kept == ["checkpoint.pt", "log.jsonl", "mined.json"]
    assert torch.load(tmp_path / "out.run" / "checkpoint.pt", weights_only=True)["step"] == 2
    assert not (tmp_path / "out").exists()
    resumed = run(data_file, tmp_path / "out", tiny_model_folder, **options)
    undisturbed = run(data_file, tmp_path / "other", tiny_model_folder, **options)
    assert [{**row, "seconds": 0} for row in resumed.log] == [{**row, "seconds": 0} for row in undisturbed.log]


def test_a_log_on_a_full_disk_is_named(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run log that cannot be written stops training with the reason."""
    opened = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if self.name == "log.jsonl" and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(TrainingError, match=r"cannot write the run log in .*No space left"):
        run(data_file, tmp_path / "out", tiny_model_folder)


@pytest.mark.parametrize("error", [MemoryError("no more"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_short_memory_suggests_a_smaller_step(
    error: Exception,
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If memory runs out, the error names the size of a step and a smaller one."""
    logits = Trainable.logits

    def greedy(self: Trainable, pairs: Any) -> Any:
        if self.network.training:
            raise error
        return logits(self, pairs)

    monkeypatch.setattr(Trainable, "logits", greedy)
    with pytest.raises(TrainingError, match=r"memory ran out at step 0 with 4 groups of 4 .*groups_per_step=2"):
        run(data_file, tmp_path / "out", tiny_model_folder)


def test_a_loss_that_is_not_a_number_stops_training(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that diverges stops before the weights are changed, and the error suggests a lower learning rate."""
    logits = Trainable.logits
    monkeypatch.setattr(
        Trainable, "logits", lambda self, pairs: logits(self, pairs) * (float("nan") if self.network.training else 1)
    )
    with pytest.raises(TrainingError, match=r"not a number at step 0; .*learning rate below 0.005"):
        run(data_file, tmp_path / "out", tiny_model_folder)


def test_a_damaged_checkpoint_is_named(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    """A damaged checkpoint is an error with its path, not a new start over the old run."""
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"checkpoint.pt is not a checkpoint .*delete it"):
        run(data_file, tmp_path / "out", tiny_model_folder)


def test_a_run_folder_that_cannot_be_created_is_named(
    data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
) -> None:
    """A file in the place of the run folder is an error before anything is trained."""
    (tmp_path / "out.run").write_text("a file")
    with pytest.raises(InvalidInputError, match="cannot create the run folder"):
        run(data_file, tmp_path / "out", tiny_model_folder)


def test_a_checkpoint_of_another_model_is_named(data_file: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """A checkpoint whose weights do not fit the model is an error with its path, before any weight is changed."""
    run(data_file, tmp_path / "one", tiny_model_folder, steps=2, run_folder=tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "average": {"other": torch.zeros(2)}}, file)
    with pytest.raises(TrainingError, match=r"checkpoint.pt does not fit this model .*delete it"):
        run(data_file, tmp_path / "two", tiny_model_folder, steps=4, run_folder=tmp_path / "run")
