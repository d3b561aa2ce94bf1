"""Children that are forked while threads score: every one of them can score, whatever the parent's threads held."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_tally import Tally

CHILDREN = int(os.environ.get("FORKED_CHILDREN", "12"))
"""Children of each kind; the environment may ask for more."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kind", ["memory", "sqlite", "onnx", "torch", "remote"])
def test_no_child_hangs(
    kind: str, child_environment: dict[str, str], request: pytest.FixtureRequest, tally: Tally
) -> None:
    """Of children forked under load, all score, and score the same as the parent."""
    environment = dict(child_environment)
    if kind == "torch":
        environment["TORCH_MODEL"] = str(request.getfixturevalue("tiny_model_folder"))
    script = Path(__file__).with_name("fork_under_load.py")
    done = subprocess.run(
        [sys.executable, str(script), kind, str(CHILDREN)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120 + 90 * CHILDREN,
        check=False,
    )
    assert done.stdout.split() == [str(CHILDREN), "0", "0"], done.stdout + done.stderr[-2000:]
    tally(f"children forked while threads score: {kind}", CHILDREN)
