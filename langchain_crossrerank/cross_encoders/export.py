"""Exports a torch model to a folder that needs no torch. Needs the `export` extra."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.finding import find_source
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scores import check_num_labels, relevance_logits, relevant_label
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


class ExportedGraph(OnnxCrossEncoder):
    """A graph to compare with torch on `PARITY_PAIRS`; that some of these are cut is nothing to warn of."""

    _warned_truncated = _warned_query_truncated = True


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
    """Export a cross-encoder to a folder that needs no torch: a sequence classifier, or one with modules as its head.

    The folder contains `model.onnx`, `config.json` and `tokenizer.json`, and the modules if there are any. It appears
    only if the fp32 graph returns the same logits as torch.

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
    loaded = _load(model, revision)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        loaded.save(staging)
        _trace(loaded, staging / "model.onnx")
        if loaded.output == "logits":
            rewrite_file(staging / "model.onnx")
        rows = _parity(loaded, ModelSource(model, staging))
        difference = max(row.difference for row in rows)
        if not difference <= PARITY_TOLERANCE:
            raise UnsupportedModelError(
                f"the graph exported from {model!r} differs from torch by {difference:.2g} in logits "
                f"(allowed {PARITY_TOLERANCE:g}), so nothing was written; run this model on the torch backend."
            )
        if precision != "fp32":
            _reduce(staging / "model.onnx", precision)
            rows = _parity(loaded, ModelSource(model, staging))
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


class _Classifier:
    """A sequence classifier, whose graph returns logits.

    Args:
        model: A hub name or a folder.
        revision: Branch, tag or commit on the hub.

    Attributes:
        network: What is traced.
        output: Which of its outputs the graph returns.
        tokenizer: Its tokenizer.
    """

    output = "logits"

    def __init__(self, model: str, revision: str | None) -> None:
        self._name = model
        try:
            network, report = AutoModelForSequenceClassification.from_pretrained(
                model,
                revision=revision,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision)
        except OSError as err:
            raise ModelNotFoundError(f"cannot load {model!r} to export it: {str(err).splitlines()[0]}") from err
        except ValueError as err:
            raise UnsupportedModelError(f"cannot export {model!r}: {str(err).splitlines()[0]}") from err
        if report["missing_keys"]:
            raise UnsupportedModelError(
                f"the files of {model!r} do not have the weights {', '.join(sorted(report['missing_keys'])[:4])}, "
                "which would be random, and so would be the scores; it has no classification head. Export a "
                "cross-encoder."
            )
        self.network: Any = network.eval()
        check_num_labels(self.network.config.num_labels, model)

    def save(self, folder: Path) -> None:
        """Write everything but the graph."""
        self.network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def logit(self, text_pair: TextPair, max_length: int) -> float:
        """Score a pair with torch."""
        features = self.tokenizer(*text_pair, truncation="only_second", max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            logits = self.network(**features).logits.numpy()
        relevant = relevant_label(self.network.config.id2label)
        return relevance_logits(logits, self._name, relevant=relevant)[0]


class _Modular:
    """A transformer whose head is modules of sentence-transformers; its graph returns the vectors of tokens.

    Args:
        source: The model's folder, with its weights.

    Attributes:
        network: As of `_Classifier`.
        output: As of `_Classifier`.
        tokenizer: As of `_Classifier`.
    """

    output = "last_hidden_state"

    def __init__(self, source: ModelSource) -> None:
        from langchain_crossrerank.cross_encoders.backends.weights import load_modules

        self._folder = source.folder
        self._files = source.description_files
        self._model = load_modules(source, device="cpu")
        self.network = cast("Any", self._model.transformers_model)
        self.network.set_attn_implementation("eager")
        self.tokenizer: Any = self._model.tokenizer

    def save(self, folder: Path) -> None:
        """Write everything but the graph."""
        for file in filter(Path.is_file, self._files):
            copy = folder / file.relative_to(self._folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)

    def logit(self, text_pair: TextPair, max_length: int) -> float:
        """Score a pair with torch."""
        self._model.max_seq_length = max_length
        logit = self._model.predict([text_pair], activation_fn=torch.nn.Identity(), show_progress_bar=False)[0]
        return float(logit)


def _load(model: str, revision: str | None) -> _Classifier | _Modular:
    source = find_source(model, revision=revision, weights=False)
    loaded: _Classifier | _Modular
    if source.head:
        loaded = _Modular(find_source(model, revision=source.commit or revision, safetensors=True))
    else:
        source.check_classifier()
        loaded = _Classifier(model, source.commit or revision)
    if not loaded.tokenizer.is_fast:
        raise UnsupportedModelError(f"{model!r} has no fast tokenizer (tokenizer.json); run it on the torch backend.")
    if loaded.tokenizer.chat_template:
        raise UnsupportedModelError(
            f"{model!r} has a chat template, which an exported graph cannot apply; run it on the torch backend."
        )
    return loaded


def _trace(loaded: _Classifier | _Modular, path: Path) -> None:
    tokenizer = loaded.tokenizer
    names = [name for name in tokenizer.model_input_names if name in ("input_ids", "attention_mask", "token_type_ids")]
    example = tokenizer([pair[0] for pair in PARITY_PAIRS[:2]], ["a b c", "a"], padding=True, return_tensors="pt")

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = loaded.network

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.network(**dict(zip(names, tensors, strict=True)))[loaded.output]
            return found

    axes = {name: {0: "batch", 1: "tokens"} for name in names} | {loaded.output: {0: "batch"}}
    if loaded.output != "logits":
        axes[loaded.output][1] = "tokens"
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Traced().eval(),
            tuple(example[name] for name in names),
            str(path),
            input_names=names,
            output_names=[loaded.output],
            dynamic_axes=axes,
            opset_version=17,
            # The tracing exporter keeps batch and length free for every encoder and needs no onnxscript.
            dynamo=False,
        )


def _parity(loaded: _Classifier | _Modular, source: ModelSource) -> list[ParityRow]:
    exported = ExportedGraph(source, activation="identity")
    return [
        ParityRow(pair, loaded.logit(pair, exported.max_length), exported.score([pair])[0]) for pair in PARITY_PAIRS
    ]
