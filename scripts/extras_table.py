"""What each extra installs: a table of megabytes and packages, each measured in a fresh environment.

python scripts/extras_table.py [EXTRA ...] [--before REQUIREMENT ...]

Without names, every extra of `pyproject.toml` for users is installed in turn; `rag,offline` means both at once, and
`none` the package alone. Packages are counted without pip itself. `--before` adds rows for other sets of requirements,
such as those of an older release. Torch is taken from the index that pip is configured for: with CUDA it is several
times as large.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_FOR_USERS = {"dev", "docs", "release"}


@dataclass(frozen=True)
class Installed:
    """What a fresh environment has after an installation.

    Attributes:
        megabytes: Size of what was installed, in 10^6 bytes.
        packages: Number of distributions, without pip.
        largest: Names and megabytes of the largest folders.
    """

    megabytes: float
    packages: int
    largest: list[tuple[str, float]]


def install(requirements: list[str], *, constraints: Path | None = ROOT / "constraints.txt") -> Installed:
    """Install requirements in a fresh environment and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        before = _bytes(Path(folder))
        limits = ["-c", str(constraints)] if constraints else []
        subprocess.run([python, "-m", "pip", "install", "-q", *limits, *requirements], check=True, cwd=ROOT)
        listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
        packages = [entry["name"] for entry in json.loads(listed.stdout)]
        site = next(Path(folder).glob("lib/python*/site-packages"))
        sizes = sorted(((entry.name, _bytes(entry) / 1e6) for entry in site.iterdir()), key=lambda entry: -entry[1])
        return Installed((_bytes(Path(folder)) - before) / 1e6, len(set(packages) - {"pip", "setuptools"}), sizes[:5])


def _bytes(place: Path) -> int:
    files = [place] if place.is_file() else place.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def row(name: str, requirements: list[str]) -> str:
    """Install one set and return its row."""
    found = install(requirements)
    largest = ", ".join(f"{folder} {size:.0f}" for folder, size in found.largest)
    return f"| {name} | {found.megabytes:.0f} | {found.packages} | {largest} |"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", help="extras; several at once with commas; none for the package alone")
    parser.add_argument(
        "--before", nargs="*", default=[], metavar="REQUIREMENTS", help="other sets, with spaces inside"
    )
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = options.extras or ["none", *sorted(set(project["optional-dependencies"]) - NOT_FOR_USERS)]
    print("| extra | MB | packages | largest, MB |\n|---|---|---|---|", flush=True)
    for extra in extras:
        print(row(f"`{extra}`", ["." if extra == "none" else f".[{extra}]"]), flush=True)
    for requirements in options.before:
        print(row(requirements, requirements.split()), flush=True)


if __name__ == "__main__":
    main()
