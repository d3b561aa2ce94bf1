"""What the fault tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import langchain_crossrerank


@pytest.fixture
def child_environment() -> dict[str, str]:
    """An environment in which a child process imports the package that is under test here, and no other copy."""
    place = str(Path(langchain_crossrerank.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": place, "HF_HUB_OFFLINE": "1"}
