"""What `pip install` brings: followed through the metadata of installed packages, as a resolver does."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"
PACKAGE = "langchain-crossrerank"

TORCH = {"torch", "torchvision", "transformers", "sentence-transformers"}
"""Torch, and what is only of use with it."""

NOT_FOR_USERS = {"all", "dev", "docs", "release"}
"""Extras that are for working on this package, and the one that names the others."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The `project` table of `pyproject.toml`."""
    content: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return content


def installed_with(project: dict[str, Any], *extras: str) -> set[str]:
    """Names of all distributions that the package brings with some extras; skips if one is not installed here."""
    found: set[str] = set()
    visited: set[tuple[str, str]] = set()
    waiting = [Requirement(f"{PACKAGE}[{','.join(extras)}]")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.add(name)
        for extra in ("", *wanted.extras):
            if (name, extra) not in visited:
                visited.add((name, extra))
                waiting += _needed_by(project, name, extra)
    return found


def _needed_by(project: dict[str, Any], name: str, extra: str) -> list[Requirement]:
    if name == PACKAGE:
        listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
        return [Requirement(line) for line in listed]
    try:
        lines = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]


@pytest.mark.parametrize("extras", [(), ("rag", "offline"), ("rag", "eval", "documents", "remote", "parquet")])
def test_nothing_but_its_own_extras_brings_torch(project: dict[str, Any], extras: tuple[str, ...]) -> None:
    """The package alone, and with the README's first command, installs neither torch nor what comes with it."""
    names = installed_with(project, *extras)
    assert "onnxruntime" in names
    assert names & TORCH == set()


@pytest.mark.parametrize("extra", ["torch", "export", "training"])
def test_the_extras_for_torch_bring_it(project: dict[str, Any], extra: str) -> None:
    """The walk finds torch where it is, also through extras of extras."""
    assert {"torch", "sentence-transformers"} <= installed_with(project, extra)


def test_offline_brings_nothing_more(project: dict[str, Any]) -> None:
    """The models for machines without a hub are inside the package."""
    assert installed_with(project, "offline") == installed_with(project)


def test_all_has_every_extra(project: dict[str, Any]) -> None:
    """`all` names every extra for users but itself, and Ray, which is larger than all the others together."""
    (line,) = project["optional-dependencies"]["all"]
    assert Requirement(line).extras == set(project["optional-dependencies"]) - NOT_FOR_USERS - {"ray"}
