"""The names of ONNX graphs in a model's folder, and which of them is run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from langchain_crossrerank.errors import ModelNotFoundError

EXACT_GRAPHS = (
    *("model.onnx", "onnx/model.onnx"),
    *(f"{folder}model_{kind}.onnx" for kind in ("optimized", "O3", "O2", "O1") for folder in ("", "onnx/")),
)
"""Graphs in fp32 by their usual names, in the order of preference."""

ROUGH_GRAPHS = tuple(
    f"{folder}model_{kind}.onnx"
    for kind in ("fp16", "O4", "quantized", "int8", "uint8", "qint8", "quint8")
    for folder in ("", "onnx/")
)
"""Graphs in fewer bits by their usual names; one is taken only if nothing exact is there."""

SPARSE_GRAPH = "sparse.onnx"
"""The name of the graph of a model's sparse branch alone."""


def choose_graph(files: Iterable[str], name: str) -> str | None:
    """Choose the graph to run from the files of a model.

    Exact graphs come first, in the order of `EXACT_GRAPHS`; then those of `ROUGH_GRAPHS`; then the only graph there is,
    whatever its name.

    Args:
        files: Names relative to the model's folder.
        name: The model, for messages.

    Returns:
        One of the files, or `None` if none is a graph.

    Raises:
        ModelNotFoundError: If there are several graphs and none has one of the usual names.
    """
    graphs = sorted(
        file for file in files if file.endswith(".onnx") and PurePosixPath(file).parent.name in ("", "onnx")
    )
    for usual in (*EXACT_GRAPHS, *ROUGH_GRAPHS):
        # Quantised graphs carry the processor in their name, as in model_qint8_avx512.onnx.
        stem = usual.removesuffix(".onnx")
        found = [graph for graph in graphs if graph == usual or ("int8" in stem and graph.startswith(f"{stem}_"))]
        if found:
            return found[0]
    if len(graphs) > 1:
        raise ModelNotFoundError(
            f"the model {name!r} has the graphs {', '.join(graphs)}, and none of them is called model.onnx; "
            f'say which one to run, for example file_name="{graphs[0]}".'
        )
    return graphs[0] if graphs else None
