"""Counts what this folder tried, and says so at the end of the run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

import langchain_crossrerank


class Tally:
    """Counts cases by kind of fault or of hostile input."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()

    def __call__(self, kind: str, cases: int = 1) -> None:
        """Count cases of one kind."""
        self.cases[kind] += cases

    def line(self, broken: int) -> str:
        """Give the sentence for the summary."""
        return f"faults: {len(self.cases)} kinds, {self.cases.total():,} cases, {broken} invariants broken"


_TALLY = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """The one tally of this run."""
    return pytestconfig.stash.setdefault(_TALLY, Tally())


@pytest.fixture
def child_environment() -> dict[str, str]:
    """An environment in which a child process imports the package that is under test here, and no other copy."""
    place = str(Path(langchain_crossrerank.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": place, "HF_HUB_OFFLINE": "1"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tally."""
    tally = config.stash.get(_TALLY, None)
    if tally is None:
        return
    here = Path(__file__).parent.relative_to(config.rootpath).as_posix() + "/"
    reports = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
    broken = {report.nodeid for report in reports if report.nodeid.startswith(here)}
    terminalreporter.write_line(tally.line(len(broken)))
