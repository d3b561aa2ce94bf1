"""Builds the distributions and checks what would be published.

python scripts/release_check.py [--final]

Checked: wheel and sdist build; twine accepts their metadata, and the README renders; the wheel has the models, the
licences and the type marker, and nothing else but the package; the sdist has the files that it names; the wheel is no
larger than 60 MB; and the changelog has the version. With --final, the version in the changelog has a date.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "langchain_crossrerank"
MAX_WHEEL_BYTES = 60_000_000


def wheel_faults(names: Sequence[str], version: str) -> list[str]:
    """Return what is wrong with the files of a wheel.

    Args:
        names: The paths in the wheel.
        version: The version that its metadata must have.
    """
    info = f"{PACKAGE}-{version}.dist-info"
    needed = [f"{PACKAGE}/__init__.py", f"{PACKAGE}/py.typed", f"{info}/METADATA", f"{info}/licenses/LICENSE"]
    faults = [f"the wheel lacks {name}" for name in needed if name not in names]
    of_models = {Path(name).name for name in names if name.startswith(f"{PACKAGE}/models/")}
    of_each_model = ("model.onnx", "tokenizer.json", "LICENSE")
    faults += [f"the wheel has no {name} of a bundled model" for name in of_each_model if name not in of_models]
    foreign = [name for name in names if not name.startswith((f"{PACKAGE}/", f"{info}/")) or "__pycache__" in name]
    return faults + [f"the wheel must not have {name}" for name in foreign]


def sdist_faults(names: Sequence[str], included: Sequence[str]) -> list[str]:
    """Return what is wrong with the files of an sdist.

    Args:
        names: The paths in the sdist, below its top folder.
        included: What `pyproject.toml` says that it includes, such as `/tests`.
    """
    wanted = [path.strip("/") for path in included]
    return [
        f"the sdist has no {path}"
        for path in wanted
        if not any(name == path or name.startswith(f"{path}/") for name in names)
    ]


def changelog_faults(changelog: str, version: str, *, final: bool) -> list[str]:
    """Return what is wrong with the changelog's entry of the version.

    Args:
        changelog: The text of `CHANGELOG.md`.
        version: The version that is to be released.
        final: Whether the release has a date; before that the heading may say `Unreleased`.
    """
    heading = re.search(rf"^## \[{re.escape(version)}\] - (\S+)$", changelog, re.MULTILINE)
    if heading is None:
        return [f"CHANGELOG.md has no heading '## [{version}] - YYYY-MM-DD'"]
    dated = re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[1])
    if not dated and (final or heading[1] != "Unreleased"):
        return [f"CHANGELOG.md says {heading[1]!r} of {version}; write the date as YYYY-MM-DD"]
    return []


def check_release(folder: Path, *, final: bool) -> list[str]:
    """Build into a folder, print what was built, and return the faults.

    Args:
        folder: An empty folder.
        final: Whether the changelog must have a date.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    _run("build", "--outdir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    _run("twine", "check", "--strict", str(wheel), str(sdist))
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = [name.partition("/")[2] for name in archive.getnames()]
    size = wheel.stat().st_size
    print(f"{wheel.name}: {len(in_wheel)} files, {size / 1e6:.1f} MB")
    print(f"{sdist.name}: {len(in_sdist)} files, {sdist.stat().st_size / 1e6:.1f} MB")
    for name in sorted(name for name in in_wheel if not name.endswith(".py")):
        print(f"  {name}")
    faults = [] if size <= MAX_WHEEL_BYTES else [f"the wheel has {size} bytes; the limit is {MAX_WHEEL_BYTES}"]
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return [
        *faults,
        *wheel_faults(in_wheel, version),
        *sdist_faults(in_sdist, included),
        *changelog_faults(changelog, version, final=final),
    ]


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Check, and exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true", help="the changelog must have the release's date")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = check_release(Path(folder), final=options.final)
    if faults:
        raise SystemExit("\n".join(faults))
    print("Ready to be released." if options.final else "Nothing is wrong; --final also wants the date.")


if __name__ == "__main__":
    main()
