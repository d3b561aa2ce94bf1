"""Print one of the README's two commands, so that CI runs what the README says.

python scripts/readme_command.py demo|test
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def readme_command(name: str) -> str:
    """Return the shell block that follows `<!-- command: NAME -->`."""
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- command: {re.escape(name)} -->\n```sh\n(.+?)\n```", text, re.DOTALL)
    if match is None:
        raise SystemExit(f"README.md has no command {name!r}")
    return match[1]


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
