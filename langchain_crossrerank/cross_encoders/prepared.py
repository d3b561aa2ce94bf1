"""Graphs made ready for this machine once and kept on disk: rewritten to be faster, or in eight bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from langchain_crossrerank.cross_encoders.external_data import external_locations
from langchain_crossrerank.cross_encoders.producer import PRODUCER, is_ready
from langchain_crossrerank.cross_encoders.source import hash_files
from langchain_crossrerank.files import write_whole

GraphPrecision = Literal["fp32", "int8", "bf16"]
"""`"fp32"` computes what the graph says; `"int8"` multiplies matrices in eight bits, `"bf16"` is OpenVINO's."""

CACHE_VARIABLE = "CROSSRERANK_CACHE"
"""Environment variable that names the folder for graphs and calibrations."""

_FORMAT = 2

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedGraph:
    """A graph for onnxruntime.

    Attributes:
        model: Its file, or its content where no file could be written.
        precision: What it computes in.
        rewritten: Whether it is another graph than the model came with.
    """

    model: Path | bytes
    precision: GraphPrecision
    rewritten: bool

    def __str__(self) -> str:
        return str(self.model) if isinstance(self.model, Path) else f"of {len(self.model)} bytes in memory"


def cache_folder() -> Path:
    """The folder for what is made once a machine: `CROSSRERANK_CACHE`, or one in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "langchain-crossrerank"


def _cached(file_name: str) -> Path:
    """Name a file in the cache folder.

    Raises:
        OSError: If there is no such folder, because the user has no home.
    """
    try:
        return cache_folder() / file_name
    except RuntimeError as err:
        raise OSError(f"{err}; name a folder in {CACHE_VARIABLE}") from err


def prepare_graph(onnx_file: Path, precision: GraphPrecision = "fp32") -> PreparedGraph:
    """Make a model's graph ready, or find it made ready already.

    A graph that cannot be made faster is used as it is, and the reason is logged. The cache's names are hashes of the
    graph's content, so that another graph never finds them; files appear whole or not at all.

    Args:
        onnx_file: The model's own graph.
        precision: `"int8"` quantises matrices, each column with a scale of its own, and activations as they come.
    """
    if precision == "fp32" and is_ready(onnx_file):
        return PreparedGraph(onnx_file, precision, rewritten=False)
    beside = [onnx_file.parent / location for location in sorted(external_locations(onnx_file))]
    key = f"{hash_files([onnx_file, *beside])}-{_FORMAT}-{onnxruntime.__version__}"
    make = _rewritten if precision == "fp32" else _quantised
    made = _find_or_make(f"{key}-{precision}", lambda: make(onnx_file))
    if made is None and precision != "fp32":
        return prepare_graph(onnx_file)
    return PreparedGraph(made or onnx_file, precision, rewritten=made is not None)


def make_ready(onnx_file: Path) -> None:
    """Replace a graph by a faster one, or mark it as one that cannot be made faster."""
    import onnx

    from langchain_crossrerank.cross_encoders.graph import NotUnderstoodError

    try:
        content = _rewritten(onnx_file)
    except NotUnderstoodError as err:
        _logger.info("%s stays as it is: %s", onnx_file, err)
        if external_locations(onnx_file):
            return
        model = onnx.load(str(onnx_file))
        model.producer_name = PRODUCER
        content = model.SerializeToString()
    write_whole(onnx_file, content)


def recall(name: str) -> dict[str, Any] | None:
    """Give what `remember` kept under this name on this machine; `None` if nothing usable is there."""
    try:
        content = json.loads(_cached(f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remember(name: str, content: dict[str, Any]) -> None:
    """Keep a small finding for later processes; where the folder cannot be written it is found anew each time."""
    try:
        write_whole(_cached(f"{name}.json"), json.dumps(content) + "\n")
    except OSError as err:
        _logger.info("%s.json cannot be written (%s), so it is not kept", name, err)


def _find_or_make(name: str, make: Callable[[], bytes]) -> Path | bytes | None:
    with contextlib.suppress(OSError):
        # Unlike `Path.is_file`, this one does not raise where a folder may not be read.
        if os.path.isfile(file := _cached(f"{name}.onnx")):
            return file
    if (recall(name) or {}).get("reason"):
        return None
    # Imports onnx, which a graph found ready does without.
    from langchain_crossrerank.cross_encoders.graph import NotUnderstoodError

    try:
        made = make()
    except NotUnderstoodError as err:
        _logger.info("the graph %s runs as it is: %s", name, err)
        remember(name, {"reason": str(err)})
        return None
    try:
        write_whole(file := _cached(f"{name}.onnx"), made)
    except OSError as err:
        _logger.info("%s.onnx cannot be written (%s); the graph is made anew by each process", name, err)
        return made
    return file


def _rewritten(onnx_file: Path) -> bytes:
    from langchain_crossrerank.cross_encoders.graph import rewrite

    made = rewrite(onnx_file)
    made.model.producer_name = PRODUCER
    _logger.info("rewrote %s: %d operations work on the first token alone", onnx_file, made.first_token_only)
    content: bytes = made.model.SerializeToString()
    return content


def _quantised(onnx_file: Path) -> bytes:
    from langchain_crossrerank.cross_encoders.graph import quantise

    ready = prepare_graph(onnx_file)
    if isinstance(ready.model, Path):
        return quantise(ready.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ready.onnx"
        file.write_bytes(ready.model)
        return quantise(file)


def machine_key(*parts: object) -> str:
    """Make a short name for this kind of processor and what else decides how fast something runs on it."""
    described = "|".join(map(str, (_processor(), onnxruntime.__version__, *parts)))
    return hashlib.blake2b(described.encode(), digest_size=12).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor()
    # Virtual machines hide the name; the instructions decide the speed.
    wanted = ("model name", "cpu family", "model", "flags", "Features")
    named = {line.partition(":")[0].strip(): line for line in lines if line.partition(":")[0].strip() in wanted}
    return "\n".join(named.values())
