"""Trains a tiny model in forked children that are killed at random moments, and prints each validation.

python train_in_child.py DATA BASE FOLDER KILLS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from langchain_crossrerank.training import TrainingSettings, train
from langchain_crossrerank.training.loading import load_trainable

SETTINGS = TrainingSettings(
    steps=40,
    groups_per_step=2,
    negatives=2,
    warmup=5,
    learning_rate=2e-3,
    validate_every=5,
    patience=100,
    checkpoint_minutes=0.0001,
    seed=3,
)


def run(data: str, base: str, folder: str) -> None:
    """Train, or resume."""
    torch.set_num_threads(1)
    train([data], folder, base=base, settings=SETTINGS, max_length=48, held_out=0.3, show_progress=False)


def killed(data: str, base: str, folder: str, draw: random.Random) -> int | None:
    """Train in a child process and kill it at a random moment.

    Returns:
        The number of steps done, or `None` if training ended before.
    """
    log = Path(folder + ".run") / "log.jsonl"
    child = os.fork()
    if child == 0:
        run(data, base, folder)
        os._exit(0)
    wanted = steps_of(log) + draw.randrange(6)
    while steps_of(log) < wanted:
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        time.sleep(0.001)
    time.sleep(draw.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return steps_of(log)


def steps_of(log: Path) -> int:
    """Return the number of steps in the log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return len([line for line in lines if '"loss"' in line])


def main() -> None:
    """Train and kill, then train to the end and print the log."""
    data, base, folder, kills, seed = sys.argv[1:]
    draw = random.Random(int(seed))
    # Each child inherits what is imported with a model, which takes longer than to train.
    load_trainable(base)
    done = [killed(data, base, folder, draw) for _ in range(int(kills))]
    run(data, base, folder)
    rows = [json.loads(line) for line in (Path(folder + ".run") / "log.jsonl").read_text().splitlines()]
    print(json.dumps({"killed": done, "rows": rows}))


if __name__ == "__main__":
    main()
