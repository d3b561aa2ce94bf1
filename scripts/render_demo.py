"""Draw `docs/demo.svg` from what `crossrerank demo` prints.

python scripts/render_demo.py
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from langchain_crossrerank.cli import main

TARGET = Path(__file__).parent.parent / "docs" / "demo.svg"
WIDTH = 80


def render() -> None:
    """Run the demo as on a terminal, and draw its first question and its last lines."""
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS=str(WIDTH), FORCE_COLOR="1", TERM="xterm-256color")
    os.environ.pop("NO_COLOR", None)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if main(["demo"]):
            raise SystemExit("the demo failed")
    questions = output.getvalue().split("\nFirst stage ")
    times, closing = questions[1].split("\n", 1)[0], questions[-1].split("\n", 2)[2]
    # What a shell would show, with the colours as they were printed.
    shown = Text.from_ansi(f"$ crossrerank demo\n{questions[0]}\nFirst stage {times}\n\n...\n\n{closing.rstrip()}")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(shown)
    TARGET.parent.mkdir(exist_ok=True)
    console.save_svg(str(TARGET), title="crossrerank demo")
    print(f"{TARGET}: {len(shown.plain.splitlines())} lines")


if __name__ == "__main__":
    render()
