"""Training runs on tiny models, from data to a folder without torch: what is learnt, resumed, stopped and refused."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank import load_cross_encoder  # noqa: E402
from langchain_crossrerank.errors import InvalidInputError  # noqa: E402
from langchain_crossrerank.training import train  # noqa: E402
from langchain_crossrerank.training.loading import load_trainable  # noqa: E402
from langchain_crossrerank.training.validation import HeldOut  # noqa: E402
from tests.unit.training.tiny_runs import ANIMALS, SETTINGS, run  # noqa: E402


def test_training_learns_and_exports(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The loss falls, the weights of the best validation are exported, and the folder loads without torch."""
    result = run(data_file, tmp_path / "out", base, steps=40)
    losses = [row["loss"] for row in result.log if "loss" in row]
    assert len(losses) == 40
    assert sum(losses[-10:]) < sum(losses[:10])
    validations = [row["nDCG@10"] for row in result.log if "nDCG@10" in row]
    assert result.base_ndcg == validations[0]
    assert result.ndcg == max(validations) >= result.base_ndcg
    assert result.examples + result.held_out <= 60
    script = (
        "import sys; from langchain_crossrerank import load_cross_encoder;"
        f"print(load_cross_encoder({str(result.folder)!r}).score([('when the heron eats', 'The heron eats.')])[0]);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) <= 1


def test_a_trained_folder_can_be_trained_on(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A trained folder scores the same in torch and as a graph, and can be trained again."""
    first = run(data_file, tmp_path / "first", base, steps=10)
    pairs = [("when the heron eats", "The heron eats in the morning."), ("stork", "A ferry.")]
    trainable = load_trainable(first.folder, max_length=48)
    trainable.network.eval()
    with torch.inference_mode():
        expected = trainable.logits(pairs).tolist()
    exported = load_cross_encoder(str(first.folder), activation="identity")
    assert exported.score(pairs) == pytest.approx(expected, abs=1e-3)
    second = run(data_file, tmp_path / "second", first.folder, steps=10)
    assert second.base_ndcg == pytest.approx(first.ndcg, abs=1e-6)


def test_a_finished_run_is_only_exported_again(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The same call with another output folder and the same run folder exports the same model without a step."""
    one = run(data_file, tmp_path / "one", base, steps=10, run_folder=tmp_path / "run")
    two = run(data_file, tmp_path / "two", base, steps=10, run_folder=tmp_path / "run")
    assert one.log == two.log
    pairs = [("when the heron eats", "The heron eats in the morning.")]
    assert load_cross_encoder(str(one.folder)).score(pairs) == load_cross_encoder(str(two.folder)).score(pairs)


def test_training_stops_when_nothing_gets_better(data_file: Path, base: Path, tmp_path: Path) -> None:
    """After `patience` validations without a better nDCG@10, training stops."""
    result = run(data_file, tmp_path / "out", base, learning_rate=1e-12, validate_every=2, patience=2)
    assert max(row["step"] for row in result.log) == 4
    assert result.ndcg == result.base_ndcg


def test_two_runs_are_equal(data_file: Path, base: Path, tmp_path: Path) -> None:
    """The same data, base, settings and seed have the same log; another seed has another."""
    logs = [
        [{**row, "seconds": 0} for row in run(data_file, tmp_path / name, base, steps=6, seed=seed).log]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert logs[0] == logs[1] != logs[2]


def test_distillation_keeps_the_start(data_file: Path, bi_encoder_folder: Path, tmp_path: Path) -> None:
    """With a heavy distillation term, scores stay closer to those of the starting model."""
    pairs = [(f"when the {animal} hides", f"The {animal} swims in the morning.") for animal in ANIMALS]

    def spread(weights: dict[str, Any]) -> list[float]:
        model = load_trainable(bi_encoder_folder, max_length=48)
        model.network.load_state_dict(weights, strict=False)
        model.network.eval()
        with torch.inference_mode():
            scores = model.logits(pairs)
        return (scores - scores[0]).tolist()

    shifts = []
    for weight in (0.0, 50.0):
        name = f"out{weight}"
        run(data_file, tmp_path / name, bi_encoder_folder, steps=20, distillation=weight, calibration=0.0)
        saved = torch.load(tmp_path / f"{name}.run" / "checkpoint.pt", weights_only=True)["trained"]
        shifts.append(sum(abs(a - b) for a, b in zip(spread({}), spread(saved), strict=True)))
    assert shifts[1] < shifts[0] / 2


def test_part_of_the_start_can_be_kept(
    data_file: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `keep_start`, every trained weight except the rescaled head is that much closer to its start."""
    # Each validation is better than the one before, so that the last weights are exported and not those of the start.
    rising = itertools.count(1)
    monkeypatch.setattr(HeldOut, "ndcg", lambda self, scores: ((ndcg := next(rising) / 100), {"animals": ndcg}))
    weights = []
    for name, share in (("none", 0.0), ("part", 0.4)):
        options = {"run_folder": tmp_path / "run", "keep_start": share, "max_length": 48}
        result = run(data_file, tmp_path / name, base, steps=40, **options)
        weights.append(load_trainable(tmp_path / name, max_length=48).network.state_dict())
        validations = [row["nDCG@10"] for row in result.log if "nDCG@10" in row]
        assert result.ndcg == pytest.approx(validations[-1] if share else max(validations), abs=1e-6)
    torch.manual_seed(SETTINGS.seed)
    model = load_trainable(base, max_length=48)
    compared = 0
    for name, start in model.network.state_dict().items():
        whole, part = weights[0][name], weights[1][name]
        if ".layers." in f".{name}" or ".layer." in name:
            assert torch.allclose(part, whole + 0.4 * (start - whole), atol=1e-6)
            compared += not torch.equal(whole, start)
    assert compared


def test_a_kept_start_is_exported_again_unchanged(data_file: Path, base: Path, tmp_path: Path) -> None:
    """Exporting a finished run with `keep_start` again writes the same model and the same log."""
    options = {"run_folder": tmp_path / "run", "keep_start": 0.3, "steps": 6}
    logs = [run(data_file, tmp_path / name, base, **options).log for name in ("one", "two")]
    assert logs[0] == logs[1]
    pair = [("when the heron eats", "The heron eats in the morning.")]
    first, second = (load_cross_encoder(str(tmp_path / name)).score(pair) for name in ("one", "two"))
    assert first == second


def test_a_resumed_run_needs_the_same_settings(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A run is not resumed with another setting, which is named; only when it ends may change."""
    run(data_file, tmp_path / "one", base, steps=4, run_folder=tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"was started with learning_rate=0.005, not 0.1; resume it"):
        run(data_file, tmp_path / "two", base, steps=4, run_folder=tmp_path / "run", learning_rate=0.1)
    later = run(data_file, tmp_path / "two", base, steps=6, run_folder=tmp_path / "run")
    assert max(row["step"] for row in later.log) == 6


def test_a_resumed_run_needs_the_same_data(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A run is not resumed on other passages, even if there are as many."""
    run(data_file, tmp_path / "one", base, steps=4, run_folder=tmp_path / "run")
    other = tmp_path / data_file.name
    other.write_text(data_file.read_text(encoding="utf-8").replace("in the morning", "at noon"), encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"was started with mined="):
        run(other, tmp_path / "two", base, steps=4, run_folder=tmp_path / "run")


def test_an_output_folder_with_files_is_refused(data_file: Path, base: Path, tmp_path: Path) -> None:
    """A folder that is not empty is refused before anything is done."""
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="is not an empty folder"):
        run(data_file, tmp_path, base)


def test_the_current_folder_is_refused(data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training replaces its output folder, which must not be the one that the process is in."""
    monkeypatch.chdir(tmp_path)
    for name in (".", "", tmp_path):
        with pytest.raises(InvalidInputError, match="is the current folder"):
            train([data_file], name, base="bundled")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_sizes": []}, r"window_sizes is \[\]; pass numbers of sentences"),
        ({"window_sizes": 2}, "window_sizes is 2; pass numbers of sentences"),
        ({"window_sizes": [0, -1]}, r"window_sizes\[1\] is -1; pass a whole number of at least 0"),
        ({"window_sizes": [1.5]}, r"window_sizes\[0\] is 1.5"),
        ({"max_held_out": 0}, "max_held_out is 0; pass a whole number of at least 1"),
        ({"mine_k": 0}, "mine_k is 0; pass a whole number of at least 1"),
        ({"validation_k": 0}, "validation_k is 0; pass a whole number of at least 1"),
        ({"max_length": "x"}, "max_length is 'x'; pass a whole number of at least 8"),
        ({"held_out": 1}, "held_out is 1; pass a fraction above 0 and below 1"),
        ({"held_out": "x"}, "held_out is 'x'; pass a fraction"),
        ({"source_weights": {"t": float("nan")}}, r"source_weights\['t'\] is nan; pass a number of at least 0"),
        ({"source_weights": {"t": -1}}, r"source_weights\['t'\] is -1; pass a number"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """An argument that cannot be used is an error that names it, before any file is read or written."""
    with pytest.raises(InvalidInputError, match=message):
        train("missing.jsonl", tmp_path / "out", base=tmp_path / "missing", **options)
    assert list(tmp_path.iterdir()) == []
