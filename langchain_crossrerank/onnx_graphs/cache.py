"""Graphs made ready for this machine once and kept on disk: rewritten to be faster, or in eight bits."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime

from langchain_crossrerank._machine import cached_file, recall, remember
from langchain_crossrerank.files import hash_files, write_whole
from langchain_crossrerank.onnx_graphs.external_data import external_locations
from langchain_crossrerank.onnx_graphs.provenance import PRODUCER, is_ready

GraphPrecision = Literal["fp32", "int8", "bf16"]
"""`"fp32"` computes what the graph says; `"int8"` multiplies matrices in eight bits, `"bf16"` is OpenVINO's."""


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

    from langchain_crossrerank.onnx_graphs.rewriting import NotUnderstoodError

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


def _find_or_make(name: str, make: Callable[[], bytes]) -> Path | bytes | None:
    with contextlib.suppress(OSError):
        # Unlike `Path.is_file`, this one does not raise where a folder may not be read.
        if os.path.isfile(file := cached_file(f"{name}.onnx")):
            return file
    if (recall(name) or {}).get("reason"):
        return None
    # Imports onnx, which a graph found ready does without.
    from langchain_crossrerank.onnx_graphs.rewriting import NotUnderstoodError

    try:
        made = make()
    except NotUnderstoodError as err:
        _logger.info("the graph %s runs as it is: %s", name, err)
        remember(name, {"reason": str(err)})
        return None
    try:
        write_whole(file := cached_file(f"{name}.onnx"), made)
    except OSError as err:
        _logger.info("%s.onnx cannot be written (%s); the graph is made anew by each process", name, err)
        return made
    return file


def _rewritten(onnx_file: Path) -> bytes:
    from langchain_crossrerank.onnx_graphs.rewriting import rewrite

    made = rewrite(onnx_file)
    made.model.producer_name = PRODUCER
    _logger.info("rewrote %s: %d operations work on the first token alone", onnx_file, made.first_token_only)
    content: bytes = made.model.SerializeToString()
    return content


def _quantised(onnx_file: Path) -> bytes:
    from langchain_crossrerank.onnx_graphs.rewriting import quantise

    ready = prepare_graph(onnx_file)
    if isinstance(ready.model, Path):
        return quantise(ready.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ready.onnx"
        file.write_bytes(ready.model)
        return quantise(file)
