"""Scores a file in forked children that are killed at random moments, and prints the rows that each had done.

python score_in_child.py SOURCE OUTPUT MODEL KILLS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.scoring import score_file
from langchain_crossrerank.scoring.journal import Journal

PAUSE = 0.02
"""Seconds before each entry of the journal, so that no machine is so fast that a run ends before it is killed."""


def run(source: str, output: str, model: str) -> None:
    """Score, or continue."""
    score_file(source, output, model=load_cross_encoder(model, num_threads=1), on_error="skip", chunk_pairs=8)


def killed(source: str, output: str, model: str, draw: random.Random) -> int | None:
    """Score in a child process and kill it at a random moment.

    Returns:
        Lines of the journal, or `None` if the run ended before.
    """
    journal = Path(f"{output}.partial")
    child = os.fork()
    if child == 0:
        pause_before_entries()
        run(source, output, model)
        os._exit(0)
    wanted = lines_of(journal) + draw.randrange(3)
    while lines_of(journal) < wanted:
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        time.sleep(0.001)
    time.sleep(draw.random() * 2 * PAUSE)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return lines_of(journal)


def pause_before_entries() -> None:
    """Slow this process's runs down."""
    add = Journal.add

    def add_slowly(journal: Journal, entries: Any) -> None:
        time.sleep(PAUSE)
        add(journal, entries)

    Journal.add = add_slowly  # type: ignore[method-assign]


def lines_of(journal: Path) -> int:
    """Count the lines of the journal."""
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def main() -> None:
    """Score and kill, then score to the end."""
    source, output, model, kills, seed = sys.argv[1:]
    draw = random.Random(int(seed))
    done = [killed(source, output, model, draw) for _ in range(int(kills))]
    # A run that was killed between writing its output and removing its journal is finished by the same call.
    if not Path(output).exists() or Path(f"{output}.partial").exists():
        run(source, output, model)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
