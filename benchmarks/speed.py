"""Speed of reranking, side by side on the same weights and the same pairs: this package and what else one could use.

    python benchmarks/speed.py --model FOLDER [--rounds 7] [--cascade-keep 15] [--json out.json] [--markdown out.md]

FOLDER holds a sequence-classification cross-encoder as safetensors (fp32 is what all compute in). It is exported to
ONNX, and each contender reranks the same documents, in turns within every round, so that what else the machine does
hits all of them alike. Contenders that are not installed, or cannot take these weights, are named with the reason.
FlashRank and fastembed run from the exported graph in the layouts that they want.

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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document

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
OURS = {
    "ours, exact": {"backend": "onnx"},
    "ours, int8": {"backend": "onnx", "precision": "int8"},
    "ours, openvino": {"backend": "openvino"},
    "ours, openvino bf16": {"backend": "openvino", "precision": "bf16"},
}
STOCK = "stock LangChain"
PEERS = (STOCK, "sentence-transformers", "rerankers", "FlashRank", "fastembed")

Rerank = Callable[[str, list[Document]], list[float]]


def make_documents(count: int, least: int, most: int) -> list[Document]:
    """Cut passages of such lengths out of the teaching text, each different."""
    source = random.Random(count)
    text = TEXT.read_text(encoding="utf-8")
    documents = []
    for number in range(count):
        length = source.randint(least, most)
        start = source.randrange(len(text) - length)
        documents.append(Document(f"{number} {text[start : start + length]}", id=str(number)))
    return documents


def contender(name: str, folder: Path, onnx: Path) -> Rerank:
    """Load a contender; its function gives the logit of each document, in the documents' order."""
    if name == STOCK:
        import torch
        from langchain_classic.retrievers.document_compressors import CrossEncoderReranker as Stock
        from langchain_community.cross_encoders import HuggingFaceCrossEncoder

        scorer = HuggingFaceCrossEncoder(
            model_name=str(folder), model_kwargs={"device": "cpu", "activation_fn": torch.nn.Identity()}
        )
        kept: dict[int, float] = {}

        class Remembering(HuggingFaceCrossEncoder):
            """Keeps the scores, which the stock reranker throws away."""

            def score(self, text_pairs: Any) -> Any:
                found = super().score(text_pairs)
                kept.update(enumerate(map(float, found)))
                return found

        stock = Stock(model=Remembering.model_construct(**scorer.__dict__), top_n=100_000)

        def by_stock(query: str, documents: list[Document]) -> list[float]:
            stock.compress_documents(documents, query)
            return [kept[place] for place in range(len(documents))]

        return by_stock
    if name == "sentence-transformers":
        import torch
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
        return lambda query, documents: [
            float(score)
            for score in model.predict([(query, d.page_content) for d in documents], show_progress_bar=False)
        ]
    if name == "rerankers":
        from rerankers import Reranker

        ranker = Reranker(str(folder), model_type="cross-encoder", device="cpu", verbose=0)

        def by_rerankers(query: str, documents: list[Document]) -> list[float]:
            found = ranker.rank(query, [d.page_content for d in documents], doc_ids=list(range(len(documents))))
            scores = {result.document.doc_id: float(result.score) for result in found.results}
            return [scores[place] for place in range(len(documents))]

        return by_rerankers
    if name == "FlashRank":
        from flashrank import Ranker, RerankRequest

        # Its models are listed by name; this one is there already, so that nothing is fetched.
        sys.modules[Ranker.__module__].model_file_map["plain"] = "model.onnx"
        flash = Ranker(model_name="plain", cache_dir=str(onnx.parent), max_length=512, log_level="ERROR")

        def by_flashrank(query: str, documents: list[Document]) -> list[float]:
            passages = [{"id": place, "text": d.page_content} for place, d in enumerate(documents)]
            found = {entry["id"]: float(entry["score"]) for entry in flash.rerank(RerankRequest(query, passages))}
            # It gives probabilities.
            return [float(np.log(found[i] / (1 - found[i]))) for i in range(len(documents))]

        return by_flashrank
    if name == "fastembed":
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        TextCrossEncoder.add_custom_model(model="local/plain", model_file="model.onnx", sources=ModelSource(hf="local"))
        fast = TextCrossEncoder("local/plain", specific_model_path=str(onnx.parent / "plain"))
        return lambda query, documents: [float(s) for s in fast.rerank(query, [d.page_content for d in documents])]
    from langchain_crossrerank import CrossEncoderReranker, load_cross_encoder

    if name.startswith("ours, cascade"):
        from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder

        cheap = load_cross_encoder(onnx, activation="identity", precision="int8")
        full = load_cross_encoder(onnx, activation="identity")
        model_of_ours: Any = CascadeCrossEncoder(cheap, full, keep=int(name.rsplit(" ", 1)[-1]))
    else:
        model_of_ours = load_cross_encoder(onnx, activation="identity", **OURS[name])  # type: ignore[arg-type]
    reranker = CrossEncoderReranker(model=model_of_ours, top_n=None)

    def by_ours(query: str, documents: list[Document]) -> list[float]:
        found = {d.id: d.metadata["relevance_score"] for d in reranker.compress_documents(documents, query)}
        return [found[document.id] for document in documents]

    return by_ours


def export_both(folder: Path, onnx: Path) -> None:
    """Export for this package, and beside it the plain graph, which is what the others would be given."""
    command = [sys.executable, __file__, "--model", str(folder), "--onnx", str(onnx), "--child", "export", ""]
    subprocess.run(command, check=True)


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


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def model_flops(config: dict[str, Any], lengths: list[int]) -> float:
    """Count the matrix products of the whole model for pairs of such lengths."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    return float(sum(layers * (2 * n * (4 * width**2 + 2 * width * inner) + 4 * n**2 * width) for n in lengths))


def fresh_process(name: str, folder: Path, onnx: Path, workload: str) -> tuple[float, float] | None:
    """Rerank once in a fresh process; give seconds from its start to its end, and its peak MiB."""
    command = [sys.executable, __file__, "--model", str(folder), "--onnx", str(onnx), "--child", name, workload]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return None if status else (time.perf_counter() - started, usage.ru_maxrss / 1024)


def measure(names: list[str], folder: Path, onnx: Path, rounds: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Run every contender on every workload, in turns; give the rows, and why some could not take part."""
    from tokenizers import Tokenizer

    loaded: dict[str, Rerank] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            loaded[name] = contender(name, folder, onnx)
            loaded[name](QUERIES[0], make_documents(2, 50, 80))
        except Exception as err:
            loaded.pop(name, None)
            absent[name] = f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
    tokenizer = Tokenizer.from_file(str(onnx / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_second")
    config = json.loads((onnx / "config.json").read_text(encoding="utf-8"))
    rows = []
    for workload, shape in WORKLOADS.items():
        documents = make_documents(*shape)
        lengths = [len(e.ids) for e in tokenizer.encode_batch([(QUERIES[0], d.page_content) for d in documents])]
        times: dict[str, list[float]] = {name: [] for name in loaded}
        scores: dict[str, list[float]] = {}
        # By the last and longest workload everything is warm.
        long = shape[0] >= 1000
        turns = 2 if long else rounds
        for turn in range(int(long), turns + 1):
            query = QUERIES[turn % len(QUERIES)]
            for name, rerank in loaded.items():
                # The last one's threads still spin for a moment.
                time.sleep(0.2)
                started = time.perf_counter()
                found = rerank(query, documents)
                if turn:
                    times[name].append(time.perf_counter() - started)
                if turn == turns:
                    scores[name] = found
        peak = peak_gflops()
        exact = np.array(scores["sentence-transformers"])
        for name, spent in times.items():
            middle = statistics.median(spent)
            rows.append(
                {
                    "workload": workload,
                    "contender": name,
                    "median_ms": middle * 1000,
                    "p95_ms": float(np.percentile(spent, 95)) * 1000,
                    "passages_per_s": len(documents) / middle,
                    "times_stock": statistics.median(times[STOCK]) / middle if STOCK in times else None,
                    "gflops": model_flops(config, lengths) / middle / 1e9,
                    "peak_gflops": max(peak.values()),
                    "peak_by": peak,
                    "largest_difference": float(np.abs(exact - scores[name]).max()),
                    "same_order": bool(
                        np.array_equal(
                            np.argsort(-exact, kind="stable"), np.argsort(-np.array(scores[name]), kind="stable")
                        )
                    ),
                }
            )
        print(
            f"{workload}: " + ", ".join(f"{n} {statistics.median(t) * 1000:.0f} ms" for n, t in times.items()),
            file=sys.stderr,
            flush=True,
        )
    return rows, absent


def markdown(
    rows: list[dict[str, Any]], absent: dict[str, str], fresh: dict[str, dict[str, tuple[float, float]]]
) -> str:
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
        cells = ["", ""] if small is None else [f"{small[0]:.1f}", f"{small[1]:.0f}"]
        parts.append(f"| {name} | {' | '.join(cells)} | {'' if large is None else f'{large[1]:.0f}'} |")
    parts += [f"\n{name} did not take part: {reason}" for name, reason in absent.items()]
    return "\n".join(parts) + "\n"


def versions() -> str:
    """Name the versions that take part."""
    named = []
    for package in ("torch", "onnxruntime", "openvino", "sentence-transformers", "rerankers", "flashrank", "fastembed"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named)


def main() -> None:
    """Export, measure, print and write."""
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
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        name, workload = options.child
        if name == "export":
            from langchain_crossrerank.cross_encoders import export

            export.export_onnx(str(options.model), options.onnx)
            plain = options.onnx.parent / "plain"
            shutil.copytree(options.onnx, plain)
            network, tokenizer = export._load(str(options.model), None)
            export._trace(network, tokenizer, plain / "model.onnx")
            # fastembed cuts at the tokenizer's max_length; all read the same 512 tokens here.
            described = json.loads((plain / "tokenizer_config.json").read_text(encoding="utf-8"))
            (plain / "tokenizer_config.json").write_text(json.dumps({**described, "max_length": 512}))
            # FlashRank reads this file, which transformers does not write any more.
            special = json.dumps(tokenizer.special_tokens_map)
            (plain / "special_tokens_map.json").write_text(special, encoding="utf-8")
            return
        contender(name, options.model, options.onnx)(QUERIES[0], make_documents(*WORKLOADS[workload]))
        return
    for workload in set(WORKLOADS) - set(options.workloads or WORKLOADS):
        del WORKLOADS[workload]
    names = [*PEERS, *OURS, f"ours, cascade of int8, keep {options.cascade_keep}"]
    if options.only is not None:
        names = [name for name in names if name in (STOCK, "sentence-transformers", *options.only)]
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "exported"
        export_both(options.model, onnx)
        # First, while this process is small: a child's peak memory starts at its parent's.
        fresh = {}
        for name in names:
            large = name == STOCK or name.startswith("ours")
            workloads = [w for w in ("20 x 500", "1,000 x 300")[: 1 + large] if w in WORKLOADS]
            found = {w: fresh_process(name, options.model, onnx, w) for w in workloads}
            if found and all(found.values()):
                fresh[name] = found
        rows, absent = measure(names, options.model, onnx, options.rounds)
    head = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions()}\n"
    text = head + markdown(rows, absent, fresh)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps({"machine": head, "rows": rows, "fresh": fresh, "absent": absent}, indent=1))


if __name__ == "__main__":
    main()
