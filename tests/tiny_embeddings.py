"""Tiny random bi-encoders of several families, saved by sentence-transformers, with graphs like those on the hub."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from tests.tiny_models import MAX_LENGTH, bytes_tokenizer, unigram_tokenizer, wordpiece_tokenizer

SIZE = 32
"""Numbers of a token's vector."""

_SIZES: dict[str, Any] = {
    "hidden_size": SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH + 2,
    # Large enough for vectors that differ.
    "initializer_range": 0.15,
}
_SHIFTED = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


@dataclass(frozen=True)
class Kind:
    """A kind of bi-encoder.

    Attributes:
        name: What it is.
        encoder: The class of the encoder in transformers, without its endings.
        pooling: How one vector is made of those of the tokens.
        rest: Makes the modules behind that.
        settings: Further settings of the encoder's config.
        prompts: The saved prompts.
        include_prompt: Whether the prompt's tokens count.
        files: Settings to write into files of the folder afterwards, by file.
    """

    name: str
    encoder: str = "Bert"
    pooling: str | Sequence[str] = "mean"
    rest: Callable[[], list[Any]] = list
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


KINDS = (
    Kind(
        "like all-MiniLM-L6-v2", rest=lambda: [Normalize()], files={"sentence_bert_config.json": {"max_seq_length": 24}}
    ),
    Kind("like bge-small-en", pooling="cls", rest=lambda: [Normalize()], prompts={"query": "what is "}),
    Kind(
        "like multilingual-e5",
        "XLMRoberta",
        rest=lambda: [Normalize()],
        settings=_SHIFTED,
        prompts={"query": "query: ", "document": "passage: "},
    ),
    Kind("like all-mpnet-base", "MPNet", settings=_SHIFTED),
    Kind("like gte-modernbert", "ModernBert", "cls"),
    Kind("like distiluse", rest=lambda: [Dense(SIZE, 16, activation_function=torch.nn.Tanh())]),
    Kind(
        "with a GELU", rest=lambda: [LayerNorm(SIZE), Dense(SIZE, 16, bias=False, activation_function=torch.nn.GELU())]
    ),
    Kind(
        "like instructor",
        rest=lambda: [Normalize()],
        prompts={"query": "given a web search query "},
        include_prompt=False,
    ),
    Kind("first token behind a prompt", pooling="cls", prompts={"document": "the document "}, include_prompt=False),
    Kind("last token", pooling="lasttoken"),
    Kind("largest", pooling="max"),
    Kind("several", pooling=("mean", "cls", "max")),
    Kind("weighted", pooling="weightedmean", rest=lambda: [Normalize()]),
    Kind("by the root of the length", pooling="mean_sqrt_len_tokens"),
    Kind("cut to its first numbers", files={"config_sentence_transformers.json": {"truncate_dim": 8}}),
    Kind(
        "with a default prompt",
        prompts={"retrieval": "given a web search query "},
        files={"config_sentence_transformers.json": {"default_prompt_name": "retrieval"}},
    ),
    Kind("lower-cased", "MPNet", settings=_SHIFTED, files={"sentence_bert_config.json": {"do_lower_case": True}}),
)


def save(folder: Path, kind: Kind) -> Path:
    """Save a bi-encoder with its graph as `onnx/model.onnx`, as published repositories have it."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(kind.encoder)
    config = getattr(transformers, f"{kind.encoder}Config")(
        **{**_SIZES, "vocab_size": len(tokenizer), **_special_tokens(kind.encoder, tokenizer), **kind.settings}
    )
    encoder = getattr(transformers, f"{kind.encoder}Model")(config).eval()
    body = folder.with_name(f"{folder.name}-body")
    encoder.save_pretrained(body)
    tokenizer.save_pretrained(body)
    pooling = Pooling(SIZE, pooling_mode=kind.pooling, include_prompt=kind.include_prompt)
    model = SentenceTransformer(
        modules=[Transformer(str(body)), pooling, *kind.rest()], device="cpu", prompts=dict(kind.prompts)
    )
    model.save_pretrained(str(folder), create_model_card=False)
    for name, values in kind.files.items():
        file = folder / name
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        file.write_text(json.dumps({**known, **values}), encoding="utf-8")
    export(encoder, folder / "onnx" / "model.onnx")
    return folder


def _tokenizer(encoder: str) -> Any:
    if encoder == "Bert":
        return wordpiece_tokenizer()
    return bytes_tokenizer("bert") if encoder == "ModernBert" else unigram_tokenizer("roberta")


def _special_tokens(encoder: str, tokenizer: Any) -> dict[str, Any]:
    if encoder != "ModernBert":
        return {}
    names = {"pad": "pad", "cls": "cls", "sep": "sep", "bos": "cls", "eos": "sep"}
    return {f"{name}_token_id": getattr(tokenizer, f"{other}_token_id") for name, other in names.items()}


def export(encoder: Any, file: Path, *, opset: int = 17, pooled: bool = False) -> Path:
    """Export an encoder, with an output for each token or, if `pooled`, with the first token's for each text."""
    output = "sentence_embedding" if pooled else "last_hidden_state"

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any, mask: Any) -> Any:
            vectors = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            return vectors[:, 0] if pooled else vectors

    file.parent.mkdir(parents=True, exist_ok=True)
    mask = torch.ones(2, 9).long()
    mask[1, 6:] = 0
    axes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", output)}
    axes[output] = {0: "batch"} if pooled else axes[output]
    with torch.inference_mode(), warnings.catch_warnings():
        # The tracing exporter warns that it is the older one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Encoder().eval(),
            (torch.randint(5, 90, (2, 9)), mask),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=[output],
            dynamic_axes=axes,
            opset_version=opset,
            dynamo=False,
        )
    return file
