"""Exports a torch model to a folder that needs no torch. Needs the `export` extra."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scores import check_num_labels, relevance_logits
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.packing import pack_weights
from langchain_crossrerank.onnx_graphs.quantising import quantise
from langchain_crossrerank.onnx_graphs.rewriting import rewrite_file
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import read_structure

PARITY_PAIRS: tuple[TextPair, ...] = (
    ("What is LoRA?", "LoRA trains two small matrices beside each frozen weight matrix."),
    ("What is LoRA?", "The ferry to the island leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 40),
    ("naïve café 東京", "Emoji 🙂 and right-to-left text: שלום."),
)
"""Pairs on which an exported graph must agree with torch."""

PARITY_TOLERANCE = 1e-4
"""Largest difference, in logits, that an export may show."""


ExportPrecision = Literal["fp32", "fp16", "int8"]
"""What an exported graph holds: fp32 weights; fp16 weights, computed in fp32; or matrix products in eight bits."""


@dataclass(frozen=True)
class ParityRow:
    """One pair scored by torch and by the exported graph, in logits."""

    text_pair: TextPair
    torch: float
    exported: float

    @property
    def difference(self) -> float:
        """How far apart the two are."""
        return abs(self.torch - self.exported)


def export_onnx(
    model: str,
    folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    precision: ExportPrecision = "fp32",
) -> list[ParityRow]:
    """Export a sequence-classification cross-encoder to a folder that needs no torch.

    The folder contains `model.onnx`, `config.json` and `tokenizer.json`, and appears only if the fp32 graph returns the
    same logits as torch.

    Args:
        model: A hub name or a folder; its weights must be safetensors.
        folder: Where to write; must not exist, or be empty.
        revision: Branch, tag or commit on the hub.
        precision: `"fp32"` is exact; `"fp16"` halves the file; `"int8"` is for processors with instructions for it.

    Returns:
        The scores of both on `PARITY_PAIRS`.

    Raises:
        InvalidInputError: If `folder` has files in it, or the precision is unknown.
        ModelNotFoundError: If there is no such model.
        UnsupportedModelError: If it has another head, no fast tokenizer, or the graph disagrees with torch.
    """
    if precision not in get_args(ExportPrecision):
        known = ", ".join(map(repr, get_args(ExportPrecision)))
        raise InvalidInputError(f"precision is {precision!r}; pass one of {known}.")
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
        rewrite_file(staging / "model.onnx")
        rows = _parity(network, tokenizer, ModelSource(model, staging))
        difference = max(row.difference for row in rows)
        if not difference <= PARITY_TOLERANCE:
            raise UnsupportedModelError(
                f"the graph exported from {model!r} differs from torch by {difference:.2g} in logits "
                f"(allowed {PARITY_TOLERANCE:g}), so nothing was written; run this model on the torch backend."
            )
        if precision != "fp32":
            _reduce(staging / "model.onnx", precision)
            rows = _parity(network, tokenizer, ModelSource(model, staging))
        staging.chmod(0o755)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return rows


def _reduce(graph: Path, precision: str) -> None:
    if precision == "fp16":
        pack_weights(graph, graph, matrix_bits=16, table_bits=16)
        return
    structure = read_structure(graph)
    graph.write_bytes(quantise(structure, WeightFiles(graph, structure.weights)))


def _load(model: str, revision: str | None) -> tuple[Any, Any]:
    find_source(model, revision=revision, weights=False).check_classifier()
    try:
        network, report = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=revision,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    except OSError as err:
        raise ModelNotFoundError(f"cannot load {model!r} to export it: {str(err).splitlines()[0]}") from err
    except ValueError as err:
        raise UnsupportedModelError(f"cannot export {model!r}: {str(err).splitlines()[0]}") from err
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{model!r} has no fast tokenizer (tokenizer.json); run it on the torch backend.")
    if report["missing_keys"]:
        raise UnsupportedModelError(
            f"the files of {model!r} do not have the weights {', '.join(sorted(report['missing_keys'])[:4])}, which "
            "would be random, and so would be the scores; it has no classification head. Export a cross-encoder."
        )
    if tokenizer.chat_template:
        raise UnsupportedModelError(
            f"{model!r} has a chat template, which an exported graph cannot apply; run it on the torch backend."
        )
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


def _parity(network: Any, tokenizer: Any, source: ModelSource) -> list[ParityRow]:
    exported = OnnxCrossEncoder(source, activation="identity")
    rows = []
    for pair in PARITY_PAIRS:
        features = tokenizer(*pair, truncation="only_second", max_length=exported.max_length, return_tensors="pt")
        with torch.inference_mode():
            logits = network(**features).logits.numpy()
            (expected,) = relevance_logits(logits, source.name, relevant=source.relevant_label)
        rows.append(ParityRow(pair, float(expected), exported.score([pair])[0]))
    return rows
