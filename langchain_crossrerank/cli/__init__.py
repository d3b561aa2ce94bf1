"""The command line, `crossrerank`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `crossrerank`; `None` for those of this process.

    Returns:
        The exit code: 0 for success, 1 for an error, 2 for a wrong call, 3 for a gain below `--min-ndcg-gain`, 130
        when interrupted.
    """
    try:
        # Imported here, so that an interrupt during the import ends like any other.
        from langchain_crossrerank.cli.app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("crossrerank: interrupted\n")
        return 130
