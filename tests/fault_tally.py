"""Counts what the fault tests tried, over all workers of a parallel run, and says so at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

FOLDER = "tests/faults/"


class Tally:
    """Counts cases by kind of fault or of hostile input."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()

    def __call__(self, kind: str, cases: int = 1) -> None:
        """Count cases of one kind."""
        self.cases[kind] += cases

    def line(self, broken: int) -> str:
        """Return the sentence for the summary."""
        return f"faults: {len(self.cases)} kinds, {self.cases.total():,} cases, {broken} invariants broken"


_TALLY = pytest.StashKey[Tally]()


def _tally_of(config: pytest.Config) -> Tally:
    return config.stash.setdefault(_TALLY, Tally())


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """The one tally of this process."""
    return _tally_of(pytestconfig)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker, send its tally to the process that prints the summary."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fault_tally"] = dict(_tally_of(session.config).cases)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a finished worker's tally."""
    _tally_of(node.config).cases.update(getattr(node, "workeroutput", {}).get("fault_tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tally, if any fault test ran."""
    tally = _tally_of(config)
    if not tally.cases:
        return
    reports = [*terminalreporter.stats.get("failed", []), *terminalreporter.stats.get("error", [])]
    broken = {report.nodeid for report in reports if report.nodeid.startswith(FOLDER)}
    terminalreporter.write_line(tally.line(len(broken)))
