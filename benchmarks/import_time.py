"""Import time: fresh processes that import this package, and `langchain_core.documents` for comparison.

python benchmarks/import_time.py [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics

from timing import time_process

STATEMENTS = (
    "import langchain_core.documents",
    "import langchain_crossrerank",
    "from langchain_crossrerank import CrossEncoderReranker",
)


def main() -> None:
    """Measure in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for round_ in range(runs + 1):
        for statement in STATEMENTS:
            program = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            output = time_process(["-c", program]).output
            if round_:  # the first round warms the disk cache
                seconds[statement].append(float(output))
    for statement, values in seconds.items():
        print(f"{statement:60} {statistics.median(values):.3f} s")


if __name__ == "__main__":
    main()
