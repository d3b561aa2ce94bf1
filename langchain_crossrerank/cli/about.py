"""The commands models, which prints the catalogue, and info, which describes this installation."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated

import typer

from langchain_crossrerank.cli.output import make_console, report_error, say, show_table
from langchain_crossrerank.errors import CrossRerankError

_WIDTH_OF_TABLE = 160
"""Columns from which the catalogue is a table; on a narrower terminal each model has two lines."""

_PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "onnx", "tokenizers", "huggingface-hub", "numpy"),
    *("langchain-core", "langchain-classic", "langchain", "langchain-community"),
    *("torch", "transformers", "sentence-transformers", "openvino", "httpx"),
)
"""The packages whose versions matter in a report."""

_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "sentence_transformers", "remote": "httpx"}
"""The module that each backend needs."""


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the catalogue as JSON.")] = False,
) -> None:
    """List cross-encoders to choose from: size, languages, licence, unit, length, quality, time, backends."""
    from langchain_crossrerank.model_catalogue import HEADINGS, MODELS, table_notes, table_rows

    if as_json:
        say(json.dumps([model.to_dict() for model in MODELS], indent=1, ensure_ascii=False))
        return
    if make_console().width >= _WIDTH_OF_TABLE:
        from rich import box
        from rich.table import Table

        table = Table(*HEADINGS, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for row in table_rows():
            table.add_row(*row)
        show_table(table)
    else:
        for name, *cells in table_rows():
            facts = [f"{heading} {cell}" for heading, cell in zip(HEADINGS[1:], cells, strict=True) if cell]
            say(f"{name}\n  {'; '.join(facts)}")
    say("\n" + "\n".join(table_notes()))


def info_command(
    model: Annotated[str, typer.Option(metavar="MODEL", help="The cross-encoder to load and try.")] = "bundled",
) -> int:
    """Show what a maintainer needs to know: versions, device, backends, cache folder, and the model in use."""
    from langchain_crossrerank.cross_encoders.loading import load_cross_encoder

    for heading, text in _installation():
        say(f"{heading:<10}{text}")
    try:
        cross_encoder = load_cross_encoder(model)
        (score,) = cross_encoder.score([("When does the ferry leave?", "The ferry leaves at nine.")])
    except CrossRerankError as err:
        return report_error(err)
    say(f"{'model':<10}{cross_encoder!r}")
    say(f"{'':<10}sample score: {score:.6f}")
    return 0


def _installation() -> Iterator[tuple[str, str]]:
    import onnxruntime

    from langchain_crossrerank._machine import cache_folder, usable_cores
    from langchain_crossrerank.cross_encoders.backends.onnx_devices import has_nvidia_gpu
    from langchain_crossrerank.extras import missing_modules
    from langchain_crossrerank.redaction import show_url

    yield "package", f"langchain-crossrerank {metadata.version('langchain-crossrerank')}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    cores = usable_cores()
    yield "cores", f"{'unknown' if cores is None else cores} that this process may use"
    gpu = "an NVIDIA GPU can be reached" if has_nvidia_gpu() else "no NVIDIA GPU"
    yield "device", f"{gpu}; onnxruntime has {', '.join(onnxruntime.get_available_providers())}"
    there = [name for name, module in _BACKENDS.items() if not missing_modules(name, (module,))]
    absent = [name for name in _BACKENDS if name not in there]
    yield "backends", ", ".join(there) + (f"; not installed: {', '.join(absent)}" if absent else "")
    versions = ((name, _version(name)) for name in _PACKAGES)
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions if version)
    folder = cache_folder()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    yield "cache", f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"
    offline = os.environ.get("HF_HUB_OFFLINE", "not set")
    endpoint = show_url(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    yield "hub", f"{endpoint}; HF_HUB_OFFLINE {offline}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
