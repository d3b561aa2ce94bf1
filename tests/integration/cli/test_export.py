"""`crossrerank export`."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank import cli, load_cross_encoder
from langchain_crossrerank.cross_encoders.export import PARITY_PAIRS


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("fp16", 0.6, 0.05), ("int8", 1.0, 0.5)])
def test_export_in_fewer_bits(
    tiny_model_folder: Path, tmp_path: Path, precision: str, share: float, tolerance: float
) -> None:
    """The exported file is smaller, its scores are close, and the folder loads like any other."""
    sizes = {}
    for kind in ("fp32", precision):
        assert cli.main(["export", str(tiny_model_folder), str(tmp_path / kind), "--precision", kind]) == 0
        sizes[kind] = (tmp_path / kind / "model.onnx").stat().st_size
    assert sizes[precision] < share * sizes["fp32"]
    exact, reduced = (
        load_cross_encoder(tmp_path / kind, activation="identity").score(PARITY_PAIRS) for kind in ("fp32", precision)
    )
    assert 0 < max(abs(a - b) for a, b in zip(exact, reduced, strict=True)) < tolerance


def test_export_writes_a_folder(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`export` makes a folder that `--model` takes, and says how exact it is."""
    assert cli.main(["export", str(tiny_model_folder), str(tmp_path / "exported")]) == 0
    captured = capsys.readouterr()
    *rows, last = captured.out.splitlines()
    assert last.startswith(f"Wrote {tmp_path / 'exported'}; largest difference from torch ")
    assert len(rows) == 1 + len(PARITY_PAIRS)
    assert all(abs(float(row.split()[-1]) - float(row.split()[-2])) <= 1e-4 for row in rows[1:])
    assert {"model.onnx", "config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "exported").iterdir()}
