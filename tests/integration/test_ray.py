"""Scoring and serving on a real Ray cluster of two nodes with a core each, also when a worker is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import langchain_crossrerank

pytest.importorskip("ray.data", reason="needs the ray extra")
pytest.importorskip("starlette", reason="needs the ray extra")
pytest.importorskip("httpx", reason="needs the remote extra")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

SCENARIOS = Path(__file__).with_name("ray_cluster.py")


def run_scenario(name: str) -> dict[str, Any]:
    """Run a scenario in a process of its own, which has the cluster's processes below it."""
    place = str(Path(langchain_crossrerank.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(SCENARIOS), name],
        env={**os.environ, "PYTHONPATH": place, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("scenario", ["score", "kill"])
def test_every_row_is_scored_once(scenario: str) -> None:
    """Two workers give each row the score of the model in one process; so they do if one of them is killed."""
    result = run_scenario(scenario)
    assert result["killed"] == (scenario == "kill")
    assert result["ids"] == list(range(360))
    assert result["largest_error"] < 1e-5


def test_the_server_runs_as_a_deployment() -> None:
    """Two replicas answer like the server, with its access rules, and a replica that is killed is replaced."""
    result = run_scenario("serve")
    assert result["counts"] == [20] * 8
    assert (result["replicas"], result["replaced"]) == (2, 1)
    assert (result["last_status"], result["unknown"], result["denied"]) == (200, 404, 401)
    assert result["health"] == {"status": "ok"}
    assert result["largest_error"] < 1e-5
