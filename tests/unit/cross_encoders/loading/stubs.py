"""A stand-in for a backend's class, and what else the tests of loading and their fixtures share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.testing import FakeCrossEncoder

Install = Callable[[bool], None]
MakeFolder = Callable[..., Path]

THREADS = 16


class Stub(FakeCrossEncoder):
    """Stands for a backend's class and notes what it was made with."""

    made: ClassVar[list[Stub]]

    def __init__(self, source: ModelSource | str, **settings: Any) -> None:
        super().__init__(max_batch_tokens=settings["max_batch_tokens"])
        self.source = source
        self.settings = settings
        self.made.append(self)
