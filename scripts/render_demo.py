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
WIDTH = 100


def render() -> None:
    """Run the demo as on a terminal, and draw the part about its last question."""
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS=str(WIDTH), FORCE_COLOR="1", TERM="xterm-256color")
    os.environ.pop("NO_COLOR", None)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if main(["demo"]):
            raise SystemExit("the demo failed")
    text = output.getvalue()
    # What a shell would show, with the colours as they were printed.
    last = Text.from_ansi(f"$ crossrerank demo\n...\n\x1b[1m{text[text.rindex('Query:') :].rstrip()}")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(last)
    TARGET.parent.mkdir(exist_ok=True)
    console.save_svg(str(TARGET), title="crossrerank demo")
    print(f"{TARGET}: {len(last.plain.splitlines())} lines")


if __name__ == "__main__":
    render()
