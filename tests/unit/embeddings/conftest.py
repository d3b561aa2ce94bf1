"""A folder with the simplest of bi-encoders: the vector of a token is a row of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "ferry", "leaves", "at", "nine", "query:", "passage:")
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32)
"""The vector of each word."""

MakeEmbeddings = Callable[..., Path]


@pytest.fixture
def make_embeddings(tmp_path: Path) -> MakeEmbeddings:
    """A function that writes a folder of embeddings that read 16 tokens.

    Args:
        modules: Class of each module behind the transformer and its settings; the default is the mean of the tokens.
        opset: Operator set of the graph.
        pooled: Whether the graph returns the first token's vector for each text, and not one for each token.
        shape: Axes of the inputs.
        table: The vectors of the words.
        **settings: Content of `config_sentence_transformers.json`.
    """

    def make_embeddings(
        modules: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        opset: int = 17,
        pooled: bool = False,
        shape: tuple[Any, Any] = ("texts", "tokens"),
        table: Any = TABLE,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / f"embeddings-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        _write_tokenizer(folder)
        _write(folder / "config.json", {"model_type": "bert", "vocab_size": len(WORDS), "max_position_embeddings": 16})
        _write(folder / "config_sentence_transformers.json", settings)
        listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        for number, (kind, said) in enumerate((modules or {"Pooling": {}}).items(), 1):
            place = f"{number}_{kind}"
            listed.append({"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.{kind}"})
            _write(folder / place / "config.json", said)
        _write(folder / "modules.json", listed)
        onnx.save(_graph(opset, pooled, shape, table), str(folder / "model.onnx"))
        return folder

    return make_embeddings


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def _graph(opset: int, pooled: bool, shape: tuple[Any, Any], table: Any) -> onnx.ModelProto:
    output = "sentence_embedding" if pooled else "last_hidden_state"
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["unused"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table", "input_ids"], ["looked up"]),
        helper.make_node("Gather", ["looked up", "first"], [output], axis=1)
        if pooled
        else helper.make_node("Identity", ["looked up"], [output]),
    ]
    tensors = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(0), "first")]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    axes = [shape[0], table.shape[1]] if pooled else [*shape, table.shape[1]]
    results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)]
    graph = helper.make_graph(nodes, "table", inputs, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
