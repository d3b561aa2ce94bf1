"""Measures what loading a large ONNX graph takes, next to plain onnxruntime: peak memory and time, first and later.

Writes a graph of XLM-RoBERTa's shape with random weights (1.1 GB with the default sizes), without torch, and loads it
in fresh processes: by onnxruntime alone, by this package for the first time (when it is rewritten), again, and by
several processes at once with an empty cache. Run on an idle machine; see `--help`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

PROBE = """
import json, sys, time
started = time.perf_counter()
if sys.argv[1] == "plain":
    import numpy, onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[2] + "/onnx/model.onnx", providers=["CPUExecutionProvider"])
    ids = numpy.full((1, 32), 5)
    session.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
    rewritten = None
else:
    from langchain_crossrerank import load_cross_encoder
    model = load_cross_encoder(sys.argv[2], backend=sys.argv[1])
    model.score([("a query", "a passage")])
    rewritten = model._graph.rewritten
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
    "resident_mib": int(status["VmRSS"].split()[0]) / 1024,
    "rewritten": rewritten,
}))
"""


def write_model(folder: Path, *, words: int, layers: int, hidden: int) -> None:
    """Write a classifier of XLM-RoBERTa's shape with random weights: graph, config and a small tokenizer."""
    (folder / "onnx").mkdir(parents=True)
    config = {"model_type": "xlm-roberta", "num_labels": 1, "max_position_embeddings": 514, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    vocabulary = {
        token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "query", "passage"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    onnx.save(_model(words, layers, hidden), str(folder / "onnx" / "model.onnx"))


def _model(words: int, layers: int, hidden: int) -> onnx.ModelProto:
    graph = _Graph(hidden)
    graph.add("Gather", ["table", "input_ids"], "rows", table=(words, hidden))
    graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    graph.constant("axes", np.array([1, 2]))
    graph.add("Unsqueeze", ["mask", "axes"], "mask4")
    graph.constant("one", np.array(1, dtype=np.float32))
    graph.constant("far", np.array(-10000, dtype=np.float32))
    graph.add("Sub", ["one", "mask4"], "hidden4")
    graph.add("Mul", ["hidden4", "far"], "bias4")
    state = graph.norm("rows", "embedded")
    for number in range(layers):
        state = graph.layer(state, f"l{number}")
    graph.constant("first", np.array(0))
    graph.add("Gather", [state, "first"], "pooled", axis=1)
    graph.add("MatMul", ["pooled", "head"], "logits", head=(hidden, 1))
    return graph.model()


class _Graph:
    """Collects nodes and random weights."""

    def __init__(self, hidden: int) -> None:
        self.hidden, self.heads = hidden, hidden // 64
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **given: Any) -> str:
        shapes = {name: shape for name, shape in given.items() if isinstance(shape, tuple)}
        for name, shape in shapes.items():
            self.constant(name, self.random.standard_normal(shape, dtype=np.float32) * np.float32(0.02))
        attributes = {name: value for name, value in given.items() if name not in shapes}
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def norm(self, before: str, after: str) -> str:
        scale = self.constant(f"{after}_scale", np.ones(self.hidden, dtype=np.float32))
        shift = self.constant(f"{after}_shift", np.zeros(self.hidden, dtype=np.float32))
        return self.add("LayerNormalization", [before, scale, shift], after, axis=-1)

    def product(self, before: str, after: str, width: int, inner: int) -> str:
        return self.add("MatMul", [before, f"{after}_w"], after, **{f"{after}_w": (inner, width)})

    def heads_of(self, before: str, after: str, order: list[int]) -> str:
        shape = self.constant(f"{after}_shape", np.array([0, 0, self.heads, 64]))
        self.add("Reshape", [before, shape], f"{after}_split")
        return self.add("Transpose", [f"{after}_split"], after, perm=order)

    def layer(self, state: str, name: str) -> str:
        hidden = self.hidden
        orders = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        for part, order in orders.items():
            self.product(state, f"{name}_{part}", hidden, hidden)
            self.heads_of(f"{name}_{part}", f"{name}_{part}h", order)
        self.add("MatMul", [f"{name}_qh", f"{name}_kh"], f"{name}_raw")
        self.constant(f"{name}_root", np.array(0.125, dtype=np.float32))
        self.add("Mul", [f"{name}_raw", f"{name}_root"], f"{name}_scaled")
        self.add("Add", [f"{name}_scaled", "bias4"], f"{name}_masked")
        self.add("Softmax", [f"{name}_masked"], f"{name}_shares", axis=-1)
        self.add("MatMul", [f"{name}_shares", f"{name}_vh"], f"{name}_read")
        self.add("Transpose", [f"{name}_read"], f"{name}_turned", perm=[0, 2, 1, 3])
        shape = self.constant(f"{name}_flat", np.array([0, 0, hidden]))
        self.add("Reshape", [f"{name}_turned", shape], f"{name}_joined")
        self.product(f"{name}_joined", f"{name}_out", hidden, hidden)
        self.add("Add", [state, f"{name}_out"], f"{name}_sum")
        middle = self.norm(f"{name}_sum", f"{name}_middle")
        self.product(middle, f"{name}_up", 4 * hidden, hidden)
        self.add("Tanh", [f"{name}_up"], f"{name}_act")
        self.product(f"{name}_act", f"{name}_down", hidden, 4 * hidden)
        self.add("Add", [middle, f"{name}_down"], f"{name}_end")
        return self.norm(f"{name}_end", f"{name}_state")

    def model(self) -> onnx.ModelProto:
        names = ("input_ids", "attention_mask")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])]
        graph = helper.make_graph(self.nodes, "classifier", inputs, outputs, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def start(kind: str, folder: Path, cache: Path) -> subprocess.Popen[str]:
    """Start one load in a fresh process."""
    environment = {**os.environ, "CROSSRERANK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROBE, kind, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def result(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a load and return what it measured."""
    out, _ = child.communicate(timeout=900)
    if child.returncode:
        raise SystemExit(f"a load ended with status {child.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def measure(folder: Path, work: Path, rounds: int, processes: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield what each kind of load took, one result for each round."""
    caches = [work / f"cache{number}" for number in range(rounds)]
    yield "onnxruntime alone", [result(start("plain", folder, work)) for _ in range(rounds)]
    yield "onnx, first load", [result(start("onnx", folder, cache)) for cache in caches]
    yield "onnx, later load", [result(start("onnx", folder, cache)) for cache in caches]
    together = work / "together"
    children = [start("onnx", folder, together) for _ in range(processes)]
    yield f"{processes} first loads at once", [result(child) for child in children]
    print(f"structures kept after {processes} loads at once: {len(list(together.glob('*.onnx')))}")
    kept = sum(file.stat().st_size for file in caches[0].rglob("*") if file.is_file())
    print(f"kept on disk: {kept / 2**20:.1f} MiB")


def main() -> None:
    """Write the graph, measure, and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=250_002, help="rows of the embedding table")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3, help="loads of each kind")
    parser.add_argument("--processes", type=int, default=4, help="first loads at once")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="load-memory-"))
    try:
        folder = work / "model"
        write_model(folder, words=options.words, layers=options.layers, hidden=options.hidden)
        size = (folder / "onnx" / "model.onnx").stat().st_size
        print(f"graph of {size / 1e9:.2f} GB, {options.rounds} rounds, medians")
        print(f"{'':24}{'peak MiB':>10}{'resident':>10}{'seconds':>9}{'of plain':>18}")
        plain: dict[str, float] = {}
        for name, found in measure(folder, work, options.rounds, options.processes):
            middle = {
                key: statistics.median(each[key] for each in found) for key in ("peak_mib", "resident_mib", "seconds")
            }
            plain = plain or middle
            ratios = f"{middle['peak_mib'] / plain['peak_mib']:.2f} / {middle['seconds'] / plain['seconds']:.2f}"
            print(
                f"{name:24}{middle['peak_mib']:10.0f}{middle['resident_mib']:10.0f}{middle['seconds']:9.1f}{ratios:>18}"
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
