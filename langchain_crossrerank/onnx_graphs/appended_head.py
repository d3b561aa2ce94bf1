"""Appends layers to a graph that ends with one vector for each token, so that it ends with outputs for each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs.head_layers import Layer, Normalise, Pool, Pooling

_LEAST_OPSET = 11
"""The least operator set in which the simplest layers can be written."""


def append_head(model: Any, layers: Sequence[Layer]) -> None:
    """Append layers to a graph in place; its output is then called `logits`.

    Args:
        model: An `onnx.ModelProto` with one output of shape (texts, tokens, size).
        layers: What follows, in order; the first one is a `Pool`.

    Raises:
        UnsupportedModelError: If the graph has no output for each token, or its operator set is too old.
    """
    (output,) = model.graph.output
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    least = max(map(_least_opset, layers))
    if len(output.type.tensor_type.shape.dim) != 3 or opset < least:
        raise UnsupportedModelError(
            f"a head cannot be appended to the graph's output {output.name!r}: it must have one vector for each token, "
            f"and operator set {least} or later (it has {opset}). Export the model again, or use torch."
        )
    name = output.name
    for number, layer in enumerate(layers):
        after = "logits" if number == len(layers) - 1 else f"head {number}"
        for op_type, inputs, result, attributes in _operations(layer, name, after):
            constants = {key: value for key, value in inputs.items() if value is not None}
            model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
            model.graph.node.append(helper.make_node(op_type, list(inputs), [result], **attributes))
        name = after
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["texts", None]))


def _least_opset(layer: Layer) -> int:
    if isinstance(layer, Normalise):
        return 17
    return 13 if isinstance(layer, Pool) and layer.mode == "mean" else _LEAST_OPSET


_Operation = tuple[str, dict[str, Any], str, dict[str, Any]]


def _operations(layer: Layer, before: str, after: str) -> Iterator[_Operation]:
    """Return the operations of a layer: kind, inputs with the values of constants, output, attributes."""
    if isinstance(layer, Pool):
        yield from _pool(layer.mode, before, after)
    elif isinstance(layer, Normalise):
        inputs = {before: None, f"{after} weight": _float(layer.weight), f"{after} bias": _float(layer.bias)}
        yield "LayerNormalization", inputs, after, {"axis": -1, "epsilon": layer.epsilon}
    else:
        linear = after if layer.activation == "Identity" else f"{after} linear"
        inputs = {before: None, f"{after} weight": _float(layer.weight)}
        if layer.bias is not None:
            inputs[f"{after} bias"] = _float(layer.bias)
        yield "Gemm", inputs, linear, {"transB": 1}
        yield from _activation(layer.activation, linear, after)


def _pool(mode: Pooling, before: str, after: str) -> Iterator[_Operation]:
    if mode == "cls":
        yield "Gather", {before: None, f"{after} first": np.array(0)}, after, {"axis": 1}
        return
    yield "Cast", {"attention_mask": None}, f"{after} mask", {"to": 1}
    yield "Unsqueeze", {f"{after} mask": None, f"{after} one": np.array([1])}, f"{after} row", {}
    yield "MatMul", {f"{after} row": None, before: None}, f"{after} sums", {}
    yield "Squeeze", {f"{after} sums": None, f"{after} axis": np.array([1])}, f"{after} sum", {}
    yield "ReduceSum", {f"{after} mask": None, f"{after} tokens": np.array([1])}, f"{after} count", {"keepdims": 1}
    yield "Div", {f"{after} sum": None, f"{after} count": None}, after, {}


def _activation(kind: str, before: str, after: str) -> Iterator[_Operation]:
    if kind == "GELU":
        yield "Div", {before: None, f"{after} root": _float(np.sqrt(2.0))}, f"{after} scaled", {}
        yield "Erf", {f"{after} scaled": None}, f"{after} erf", {}
        yield "Add", {f"{after} erf": None, f"{after} one": _float(1.0)}, f"{after} gate", {}
        yield "Mul", {before: None, f"{after} gate": None}, f"{after} double", {}
        yield "Mul", {f"{after} double": None, f"{after} half": _float(0.5)}, after, {}
    elif kind == "SiLU":
        yield "Sigmoid", {before: None}, f"{after} gate", {}
        yield "Mul", {before: None, f"{after} gate": None}, after, {}
    elif kind != "Identity":
        yield {"ReLU": "Relu"}.get(kind, kind), {before: None}, after, {}


def _float(value: Any) -> Any:
    return np.asarray(value, dtype=np.float32)
