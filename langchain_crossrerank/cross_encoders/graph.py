"""Makes ONNX graphs: exports a torch model, and stores weights in fewer bits. Needs the `export` extra."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from langchain_crossrerank.cross_encoders.base import TextPair
from langchain_crossrerank.cross_encoders.heads import check_num_labels, relevance_logits
from langchain_crossrerank.cross_encoders.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.source import ModelSource, find_source
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError

PARITY_PAIRS: tuple[TextPair, ...] = (
    ("What is LoRA?", "LoRA trains two small matrices beside each frozen weight matrix."),
    ("What is LoRA?", "The ferry to the island leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 40),
    ("naïve café 東京", "Emoji 🙂 and right-to-left text: שלום."),
)
"""Pairs on which an exported graph must agree with torch."""

PARITY_TOLERANCE = 1e-4
"""Largest difference, in logits, that an export may show."""

_BLOCK = 32


def export_onnx(model: str, folder: str | os.PathLike[str], *, revision: str | None = None) -> float:
    """Export a sequence-classification cross-encoder to a folder that needs no torch.

    The folder gets `model.onnx`, `config.json` and `tokenizer.json`, and appears only when the graph gives the same
    logits as torch.

    Args:
        model: A hub name or a folder; its weights must be safetensors.
        folder: Where to write; must not exist, or be empty.
        revision: Branch, tag or commit on the hub.

    Returns:
        The largest difference in logits between torch and the graph on `PARITY_PAIRS`.

    Raises:
        InvalidInputError: If `folder` has files in it.
        ModelNotFoundError: If there is no such model.
        UnsupportedModelError: If it has another head, no fast tokenizer, or the graph disagrees with torch.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(f"{str(target)!r} exists and is not an empty folder; name a new folder to export into.")
    network, tokenizer = _load(model, revision)
    check_num_labels(network.config.num_labels, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        network.config.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        _trace(network, tokenizer, staging / "model.onnx")
        difference = _parity(network, tokenizer, ModelSource(model, staging))
        if difference > PARITY_TOLERANCE:
            raise UnsupportedModelError(
                f"the graph exported from {model!r} differs from torch by {difference:.2g} in logits "
                f"(allowed {PARITY_TOLERANCE:g}), so nothing was written; run this model on the torch backend."
            )
        staging.chmod(0o755)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return difference


def pack_weights(
    graph_file: str | os.PathLike[str], packed_file: str | os.PathLike[str], *, matrix_bits: Literal[8, 16] = 16
) -> None:
    """Store a graph's weights in fewer bits; they are computed in fp32 all the same.

    Embedding tables are stored in eight bits: each run of 32 weights of a row shares one fp16 scale, and only the
    rows looked up are unpacked. Matrices are stored in sixteen bits, or in eight the same way along their input
    dimension, and are unpacked once, at load, by constant folding.

    Args:
        graph_file: An ONNX graph with fp32 or fp16 weights.
        packed_file: Where to write the packed graph.
        matrix_bits: Bits of a matrix weight; an embedding weight takes eight.

    Raises:
        InvalidInputError: If `matrix_bits` is neither 8 nor 16.
    """
    if matrix_bits not in (8, 16):
        raise InvalidInputError(f"matrix_bits is {matrix_bits!r}; pass 8 or 16.")
    model = onnx.load(str(graph_file))
    graph = model.graph
    weights = _matrices(graph)
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"} & set(weights)
    packed: dict[str, Any] = {}
    nodes: list[Any] = []
    for name in sorted(set(weights) - tables):
        unpack = _unpack_half if matrix_bits == 16 else _unpack_matrix
        nodes += unpack(packed, name, weights[name])
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            nodes += _unpack_rows(packed, node, weights[node.input[0]])
        elif node.output[0] not in weights:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used - set(packed) - set(weights)]
    tensors += [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in packed.items()]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(packed_file))


def _load(model: str, revision: str | None) -> tuple[Any, Any]:
    find_source(model, revision=revision, weights=False).check_classifier()
    try:
        network = AutoModelForSequenceClassification.from_pretrained(
            model, revision=revision, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
        )
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except OSError as err:
        raise ModelNotFoundError(f"cannot load {model!r} to export it: {str(err).splitlines()[0]}") from err
    except ValueError as err:
        raise UnsupportedModelError(f"cannot export {model!r}: {str(err).splitlines()[0]}") from err
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{model!r} has no fast tokenizer (tokenizer.json); run it on the torch backend.")
    return network.eval(), tokenizer


def _trace(network: Any, tokenizer: Any, path: Path) -> None:
    names = [name for name in tokenizer.model_input_names if name in ("input_ids", "attention_mask", "token_type_ids")]
    example = tokenizer([pair[0] for pair in PARITY_PAIRS[:2]], ["a b c", "a"], padding=True, return_tensors="pt")

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(**dict(zip(names, tensors, strict=True))).logits
            return logits

    axes = {name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits().eval(),
            tuple(example[name] for name in names),
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            # The tracing exporter keeps batch and length free for every encoder and needs no onnxscript.
            dynamo=False,
        )


def _parity(network: Any, tokenizer: Any, source: ModelSource) -> float:
    exported = OnnxCrossEncoder(source, activation="identity")
    differences = []
    for pair in PARITY_PAIRS:
        features = tokenizer(*pair, truncation="only_second", max_length=exported.max_length, return_tensors="pt")
        with torch.inference_mode():
            (expected,) = relevance_logits(network(**features).logits.numpy(), source.name)
        differences.append(abs(expected - exported.score([pair])[0]))
    return max(differences)


def _matrices(graph: Any) -> dict[str, Any]:
    """Weight matrices by the name under which nodes use them: stored as fp32, or as fp16 behind a Cast."""
    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 2}
    casts = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in stored}
    return {
        casts.get(name, name): numpy_helper.to_array(tensor).astype(np.float32)
        for name, tensor in stored.items()
        if name in casts or tensor.data_type == TensorProto.FLOAT
    }


def _quantise(blocks: Any, axis: int) -> tuple[Any, Any]:
    scale = (np.abs(blocks).max(axis=axis, keepdims=True) / 127).astype(np.float16)
    scale[scale == 0] = 1
    return np.clip(np.rint(blocks / scale.astype(np.float32)), -127, 127).astype(np.int8), scale


def _unpack_half(packed: dict[str, Any], name: str, array: Any) -> Iterator[Any]:
    packed[f"{name}_f16"] = array.astype(np.float16)
    yield helper.make_node("Cast", [f"{name}_f16"], [name], to=TensorProto.FLOAT)


def _unpack_matrix(packed: dict[str, Any], name: str, array: Any) -> Iterator[Any]:
    rows, columns = array.shape
    block = _BLOCK if rows % _BLOCK == 0 else rows
    values, scale = _quantise(array.reshape(rows // block, block, columns), axis=1)
    packed |= {f"{name}_q8": values, f"{name}_scale": scale, f"{name}_shape": np.array(array.shape)}
    yield helper.make_node("Cast", [f"{name}_q8"], [f"{name}_f32"], to=TensorProto.FLOAT)
    yield helper.make_node("Cast", [f"{name}_scale"], [f"{name}_scale_f32"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{name}_f32", f"{name}_scale_f32"], [f"{name}_blocks"])
    yield helper.make_node("Reshape", [f"{name}_blocks", f"{name}_shape"], [name])


def _unpack_rows(packed: dict[str, Any], gather: Any, array: Any) -> Iterator[Any]:
    rows, columns = array.shape
    block = _BLOCK if columns % _BLOCK == 0 else columns
    values, scale = _quantise(array.reshape(rows, columns // block, block), axis=2)
    name, output = gather.input[0], gather.output[0]
    packed |= {f"{name}_q8": values, f"{name}_scale": scale, f"{name}_merge": np.array([0, 0, columns])}
    yield helper.make_node("Gather", [f"{name}_q8", gather.input[1]], [f"{output}_q8"])
    yield helper.make_node("Gather", [f"{name}_scale", gather.input[1]], [f"{output}_s16"])
    yield helper.make_node("Cast", [f"{output}_q8"], [f"{output}_f32"], to=TensorProto.FLOAT)
    yield helper.make_node("Cast", [f"{output}_s16"], [f"{output}_s32"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{output}_f32", f"{output}_s32"], [f"{output}_blocks"])
    yield helper.make_node("Reshape", [f"{output}_blocks", f"{name}_merge"], [output])
