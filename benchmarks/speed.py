"""Speed of reranking, side by side on the same weights and the same pairs: this package and its alternatives.

    python benchmarks/speed.py --model FOLDER [--rounds 7] [--cascade-keep 15] [--json out.json] [--markdown out.md]

FOLDER holds a sequence-classification cross-encoder as safetensors (fp32, which all of them compute in). It is exported
to ONNX, and each contender reranks the same documents, in turns within every round, so that other load on the machine
affects all of them alike. Every round has new documents, so that tokens kept from an earlier one save no time.
Contenders that are not installed, or cannot use these weights, are listed with the reason.

GFLOP/s count the whole model's matrix products on the tokens without padding, whatever was really computed; the peak is
the fastest matrix product of 512 x 384 by 384 x 1536 that numpy, onnxruntime or torch reached in the same run.
Peak memory and cold start are of fresh processes. With `--child` the program is one of those.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from contenders import (
    CASCADE,
    OURS,
    PEERS,
    REFERENCE,
    STOCK,
    Rerank,
    Weights,
    export_weights,
    load_contender,
)
from langchain_core.documents import Document
from timing import ProcessFigures, Stopwatch, in_turns, seconds, time_process

TEXT = Path(__file__).parent.parent / "notebooks" / "data" / "llm_fundamentals.md"
QUERIES = (
    "how does attention read a passage?",
    "what is the cost of a longer context?",
    "when is a smaller model enough?",
    "why are scores of two models not comparable?",
)
WORKLOADS: dict[str, tuple[int, int, int]] = {
    "1 x 800 characters": (1, 800, 800),
    "20 x 500": (20, 500, 500),
    "50 x 500": (50, 500, 500),
    "100 x 50 to 2,000": (100, 50, 2000),
    "1,000 x 300": (1000, 300, 300),
}
"""For each workload the documents and the range of their characters."""


def make_documents(count: int, least: int, most: int, round_: int = 0) -> list[Document]:
    """Cut passages of `least` to `most` characters out of the teaching text, each different, and in each round."""
    source = random.Random(count)
    text = TEXT.read_text(encoding="utf-8")
    documents = []
    for number in range(count):
        length = source.randint(least, most)
        start = source.randrange(len(text) - length)
        documents.append(Document(f"{round_}.{number} {text[start : start + length]}", id=str(number)))
    return documents


def peak_gflops() -> dict[str, float]:
    """Measure the matrix product of a feed-forward layer, by each library; in GFLOP/s."""
    import onnx
    import onnxruntime
    import torch

    left = np.random.default_rng(0).random((512, 384), dtype=np.float32)
    right = np.random.default_rng(1).random((384, 1536), dtype=np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [None, None]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "product", ends[:1], ends[1:], [onnx.numpy_helper.from_array(right, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    one, two = torch.from_numpy(left), torch.from_numpy(right)
    ways = {
        "numpy": lambda: left @ right,
        "onnxruntime": lambda: session.run(None, {"x": left}),
        "torch": lambda: one @ two,
    }
    return {name: 2 * 512 * 384 * 1536 / min(seconds(way) for _ in range(50)) / 1e9 for name, way in ways.items()}


def model_flops(config: dict[str, Any], lengths: list[int]) -> float:
    """Count the matrix products of the whole model for pairs of such lengths."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return float(sum(layers * (2 * n * (4 * width**2 + 2 * width * inner) + 4 * n**2 * width) for n in lengths))


def in_fresh_processes(names: list[str], weights: Weights) -> dict[str, dict[str, ProcessFigures]]:
    """Rerank once in a fresh process, for each contender that can, and measure it from start to end."""
    figures: dict[str, dict[str, ProcessFigures]] = {}
    for name in names:
        workloads = ["20 x 500", "1,000 x 300"] if name == STOCK or name.startswith("ours") else ["20 x 500"]
        command = [__file__, "--model", str(weights.torch), "--onnx", str(weights.onnx), "--child", name]
        try:
            figures[name] = {w: time_process([*command, w]) for w in workloads if w in WORKLOADS}
        except RuntimeError as err:
            print(f"{name}: {err}", file=sys.stderr)
    return figures


def load_all(names: list[str], weights: Weights) -> tuple[dict[str, Rerank], dict[str, str]]:
    """Load every contender; return those that can rerank, and why the others cannot."""
    loaded: dict[str, Rerank] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            rerank = load_contender(name, weights)
            rerank(QUERIES[0], make_documents(2, 50, 80))
            loaded[name] = rerank
        except Exception as err:
            absent[name] = f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
    return loaded, absent


def token_lengths(folder: Path, documents: list[Document]) -> list[int]:
    """Count the tokens of each pair that the model reads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_second")
    return [len(e.ids) for e in tokenizer.encode_batch([(QUERIES[0], d.page_content) for d in documents])]


def measure(workload: str, loaded: dict[str, Rerank], weights: Weights, rounds: int) -> list[dict[str, Any]]:
    """Run every contender on one workload, in turns; return a row for each."""
    scores: dict[str, list[float]] = {}
    # By the last and longest workload everything is warm.
    is_long = WORKLOADS[workload][0] >= 1000
    rounds, warm_up = (2, 0) if is_long else (rounds, 1)
    shown = [make_documents(*WORKLOADS[workload], round_) for round_ in range(warm_up + rounds)]
    documents = shown[-1]

    def rerank(name: str, round_: int) -> None:
        scores[name] = loaded[name](QUERIES[round_ % len(QUERIES)], shown[round_])

    watches = in_turns(
        {name: partial(rerank, name) for name in loaded},
        rounds=rounds,
        warm_up=warm_up,
        pause=0.2,
    )
    print(f"{workload}: {', '.join(f'{n} {w.median * 1000:.0f} ms' for n, w in watches.items())}", file=sys.stderr)
    config = json.loads((weights.onnx / "config.json").read_text(encoding="utf-8"))
    flops = model_flops(config, token_lengths(weights.onnx, documents))
    peak = peak_gflops()
    return [
        {
            "workload": workload,
            "contender": name,
            "median_ms": watch.median * 1000,
            "p95_ms": float(np.percentile(watch.seconds, 95)) * 1000,
            "passages_per_s": len(documents) / watch.median,
            "times_stock": times_stock(watches, name),
            "gflops": flops / watch.median / 1e9,
            "peak_gflops": max(peak.values()),
            "peak_by": peak,
            **agreement(np.array(scores[REFERENCE]), np.array(scores[name])),
        }
        for name, watch in watches.items()
    ]


def times_stock(watches: dict[str, Stopwatch], name: str) -> float | None:
    """How many times faster than stock LangChain; `None` where that did not take part."""
    return watches[STOCK].median / watches[name].median if STOCK in watches else None


def agreement(exact: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> dict[str, Any]:
    """How far scores are from the reference, and whether they order the documents alike."""
    orders = [np.argsort(-values, kind="stable") for values in (exact, scores)]
    return {
        "largest_difference": float(np.abs(exact - scores).max()),
        "same_order": bool(np.array_equal(*orders)),
    }


def markdown(rows: list[dict[str, Any]], absent: dict[str, str], fresh: dict[str, dict[str, ProcessFigures]]) -> str:
    """Lay everything out in Markdown."""
    parts = []
    for workload in WORKLOADS:
        here = [row for row in rows if row["workload"] == workload]
        parts += [
            f"\n**{workload}**, matrix-product peak {here[0]['peak_gflops']:.0f} GFLOP/s\n",
            "| | median ms | p95 ms | passages/s | times stock | share of peak | largest difference | same order |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in here:
            ratio = "-" if row["times_stock"] is None else f"{row['times_stock']:.2f}"
            cells = [row["contender"], *(f"{row[key]:.0f}" for key in ("median_ms", "p95_ms", "passages_per_s")), ratio]
            cells += [f"{row['gflops'] / row['peak_gflops']:.2f}", f"{row['largest_difference']:.1e}"]
            parts.append("| " + " | ".join([*cells, "yes" if row["same_order"] else "no"]) + " |")
    parts += [
        "\n**Fresh processes**\n",
        "| | 20 x 500: wall s | peak MiB | 1,000 x 300: peak MiB |",
        "|---|---|---|---|",
    ]
    for name, found in fresh.items():
        small, large = found.get("20 x 500"), found.get("1,000 x 300")
        cells = ["", ""] if small is None else [f"{small.seconds:.1f}", f"{small.peak_mib:.0f}"]
        parts.append(f"| {name} | {' | '.join(cells)} | {'' if large is None else f'{large.peak_mib:.0f}'} |")
    parts += [f"\n{name} did not take part: {reason}" for name, reason in absent.items()]
    return "\n".join(parts) + "\n"


def versions() -> str:
    """List the versions of the libraries that take part."""
    named = []
    for package in ("torch", "onnxruntime", "openvino", "sentence-transformers", "rerankers", "flashrank", "fastembed"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--onnx", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cascade-keep", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="contenders to run; stock and sentence-transformers always")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), help="workloads to run; all by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("CONTENDER", "WORKLOAD"), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_child(name: str, workload: str, weights: Weights) -> None:
    """Do in this process what a parent measures."""
    if name == "export":
        export_weights(weights)
    else:
        load_contender(name, weights)(QUERIES[0], make_documents(*WORKLOADS[workload]))


def main() -> None:
    """Export, measure, print and write."""
    options = read_options()
    warnings.simplefilter("ignore")
    if options.child:
        run_child(*options.child, Weights(options.model, options.onnx))
        return
    for workload in set(WORKLOADS) - set(options.workloads or WORKLOADS):
        del WORKLOADS[workload]
    names = [*PEERS, *OURS, f"{CASCADE} {options.cascade_keep}"]
    if options.only is not None:
        names = [name for name in names if name in (STOCK, REFERENCE, *options.only)]
    with tempfile.TemporaryDirectory() as folder:
        weights = Weights(options.model, Path(folder) / "exported")
        time_process([__file__, "--model", str(weights.torch), "--onnx", str(weights.onnx), "--child", "export", ""])
        # First, while this process is small: a child's peak memory starts at its parent's.
        fresh = in_fresh_processes(names, weights)
        loaded, absent = load_all(names, weights)
        rows = [row for workload in WORKLOADS for row in measure(workload, loaded, weights, options.rounds)]
    head = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions()}\n"
    text = head + markdown(rows, absent, fresh)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        figures = {name: {w: [f.seconds, f.peak_mib] for w, f in found.items()} for name, found in fresh.items()}
        options.json.write_text(
            json.dumps({"machine": head, "rows": rows, "fresh": figures, "absent": absent}, indent=1)
        )


if __name__ == "__main__":
    main()
