"""What `make release-check` finds."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "release_check.py"
if not SCRIPT.is_file():
    pytest.skip("needs the source tree", allow_module_level=True)

WHEEL = [
    "langchain_crossrerank/__init__.py",
    "langchain_crossrerank/py.typed",
    "langchain_crossrerank/models/small/model.onnx",
    "langchain_crossrerank/models/small/tokenizer.json",
    "langchain_crossrerank/models/small/LICENSE",
    "langchain_crossrerank-0.1.0.dist-info/METADATA",
    "langchain_crossrerank-0.1.0.dist-info/licenses/LICENSE",
]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The functions of the script by name."""
    return runpy.run_path(str(SCRIPT))


def test_a_whole_wheel_has_no_fault(script: dict[str, Any]) -> None:
    """Package, type marker, licences and a bundled model are enough."""
    assert script["wheel_faults"](WHEEL, "0.1.0") == []


@pytest.mark.parametrize("missing", WHEEL)
def test_what_a_wheel_lacks_is_named(script: dict[str, Any], missing: str) -> None:
    """Each file that is needed is missed by its name."""
    (fault,) = script["wheel_faults"]([name for name in WHEEL if name != missing], "0.1.0")
    assert Path(missing).name in fault


@pytest.mark.parametrize("foreign", ["tests/test_x.py", "langchain_crossrerank/__pycache__/x.pyc", "notes.txt"])
def test_what_a_wheel_must_not_have_is_named(script: dict[str, Any], foreign: str) -> None:
    """Tests, caches and stray files are reported."""
    assert script["wheel_faults"]([*WHEEL, foreign], "0.1.0") == [f"the wheel must not have {foreign}"]


def test_what_an_sdist_lacks_is_named(script: dict[str, Any]) -> None:
    """Each included path needs a file."""
    assert script["sdist_faults"](["tests/x.py", "README.md"], ["/tests", "/docs", "/README.md"]) == [
        "the sdist has no docs"
    ]


@pytest.mark.parametrize(
    ("heading", "final", "is_fine"),
    [
        ("## [0.1.0] - 2026-12-01", True, True),
        ("## [0.1.0] - 2026-12-01", False, True),
        ("## [0.1.0] - Unreleased", False, True),
        ("## [0.1.0] - Unreleased", True, False),
        ("## [0.1.0] - soon", False, False),
        ("## [0.2.0] - 2026-12-01", False, False),
        ("## [Unreleased]", False, False),
    ],
)
def test_the_changelog_must_have_the_version(script: dict[str, Any], heading: str, final: bool, is_fine: bool) -> None:
    """A release has a heading with its version, and a final one a date."""
    faults = script["changelog_faults"](f"# Changelog\n\n{heading}\n\n- A line.\n", "0.1.0", final=final)
    assert (faults == []) is is_fine
