"""Draws `docs/demo.svg` from what `crossrerank demo` prints now.

python scripts/render_demo.py
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from rich.console import Console

from langchain_crossrerank.cli import main

TARGET = Path(__file__).parent.parent / "docs" / "demo.svg"


def render() -> None:
    """Run the demo and draw the last question's part of its output."""
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="110")
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if main(["demo"]):
            raise SystemExit("the demo failed")
    text = output.getvalue()
    last = text[text.rindex("Query:") :]
    console = Console(record=True, width=112, file=io.StringIO())
    console.print("$ crossrerank demo\n...\n" + last.rstrip("=\n "), markup=False, highlight=False)
    TARGET.parent.mkdir(exist_ok=True)
    console.save_svg(str(TARGET), title="crossrerank demo")
    print(f"{TARGET}: {len(last.splitlines())} lines")


if __name__ == "__main__":
    render()
