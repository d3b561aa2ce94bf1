"""The folder of a training run: what is damaged or edited is named, and nothing outside is touched."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.errors import InvalidInputError, TrainingError  # noqa: E402
from langchain_crossrerank.training.run_folder import CHECKPOINT, LOG, RunFolder  # noqa: E402


def state(**changes: Any) -> dict[str, Any]:
    """The state of a run after three steps."""
    weights = {"weight": torch.zeros(4)}
    whole = {"step": 3, "trained": weights, "average": weights, "best": weights, "best_ndcg": 0.5, "stale": 0}
    whole |= {"seconds": 1.5, "optimiser": {"state": {}, "param_groups": []}, "random": torch.get_rng_state()}
    return {**whole, **changes}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with a setting."""
    run = RunFolder(tmp_path / "run")
    run.hold_to({"seed": 1})
    return run


def test_a_checkpoint_comes_back(run: RunFolder) -> None:
    """What was saved is read again; without a checkpoint there is nothing."""
    assert run.load() is None
    run.save(state())
    saved = run.load()
    assert saved is not None
    assert saved.step == 3
    assert torch.equal(saved.trained["weight"], torch.zeros(4))


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    "content",
    [
        {"settings": 5},
        {"settings": "[1]"},
        {"settings": "null"},
        {"settings": "[" * 200_000},
        {"step": -1},
        {"step": "3"},
        {"trained": [1]},
        {"trained": {"weight": 3}},
        {"best_ndcg": None},
        {"random": None},
        {"unknown": 1},
    ],
)
def test_an_edited_checkpoint_is_an_error(run: RunFolder, content: dict[str, Any]) -> None:
    """A checkpoint with a missing, an unknown or a wrong value is an error with its path."""
    torch.save({"settings": '{"seed": 1}', **state(), **content}, run.path / CHECKPOINT)
    with pytest.raises(TrainingError, match=r"checkpoint.pt is not a checkpoint .*delete it"):
        run.load()


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [1, 2], None, "text", {}], ids=lambda content: type(content).__name__
)
def test_another_torch_file_is_an_error(run: RunFolder, content: Any) -> None:
    """A file that torch reads but that is not a checkpoint is an error."""
    torch.save(content, run.path / CHECKPOINT)
    with pytest.raises(TrainingError, match="not a checkpoint"):
        run.load()


def test_nothing_is_executed(run: RunFolder, tmp_path: Path) -> None:
    """A pickle in place of the checkpoint, packed or not, is refused and not executed."""
    exploit = Exploit(tmp_path / "executed")
    (run.path / CHECKPOINT).write_bytes(pickle.dumps(exploit))
    with pytest.raises(TrainingError):
        run.load()
    torch.save({"settings": exploit}, run.path / CHECKPOINT)
    with pytest.raises(TrainingError):
        run.load()
    assert not (tmp_path / "executed").exists()


def test_damaged_bytes_are_an_error(run: RunFolder) -> None:
    """A checkpoint cut short or with flipped bits is read whole or refused, never another error."""
    run.save(state())
    file = run.path / CHECKPOINT
    content, draw = file.read_bytes(), random.Random(1)
    for place in range(150):
        damaged = bytearray(content)
        if place % 2:
            damaged = damaged[: draw.randrange(len(damaged))]
        else:
            for _ in range(draw.randrange(1, 20)):
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            saved = run.load()
        except (TrainingError, InvalidInputError):
            continue
        assert saved is not None
        assert saved.step >= 0


def test_a_planted_link_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    """A link in the place of a checkpoint, or of a temporary file, does not make its target change."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run.path / f".{CHECKPOINT}.new").symlink_to(victim)
    (run.path / CHECKPOINT).symlink_to(victim)
    run.save(state())
    assert victim.read_text() == "precious"
    assert run.load() is not None


@pytest.mark.parametrize(
    "line", [b'{"a": 1}', b"[1]", b"\xff", b'{"step": "x"}', b"5", b'{"step": -1}', b'{"step": 1, "loss": "low"}']
)
def test_a_damaged_log_is_an_error(run: RunFolder, line: bytes) -> None:
    """A line of the log that is not one is an error with its number."""
    (run.path / LOG).write_bytes(b'{"step": 0, "nDCG@10": 0.5}\n' + line + b"\n")
    with pytest.raises(TrainingError, match=r"log.jsonl, line 2"):
        run.rewind(3)


def test_a_line_cut_short_is_left_out(run: RunFolder) -> None:
    """The last line of a log whose writing was interrupted is dropped, and the resumed run goes on after the others."""
    run.log({"step": 1, "loss": 0.5, "seconds": 0.1})
    run.log({"step": 2, "loss": 0.4, "seconds": 0.2})
    with (run.path / LOG).open("ab") as log:
        log.write(b'{"step": 3, "lo')
    run.rewind(1)
    assert (run.path / LOG).read_text() == json.dumps({"step": 1, "loss": 0.5, "seconds": 0.1}) + "\n"


def test_other_settings_are_named(run: RunFolder) -> None:
    """A checkpoint that was written with other settings is refused with the name of the setting."""
    run.save(state())
    run.hold_to({"seed": 2})
    with pytest.raises(InvalidInputError, match=r"was started with seed=1, not 2"):
        run.load()
