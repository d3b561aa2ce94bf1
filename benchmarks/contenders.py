"""What `speed.py` compares: each contender is loaded by a function of its own and reranks documents.

FlashRank and fastembed read the exported graph in the layouts that they expect. Import paths are inside the functions,
because a contender may not be installed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document

STOCK = "stock LangChain"
REFERENCE = "sentence-transformers"
OURS = {
    "ours, exact": {"backend": "onnx"},
    "ours, int8": {"backend": "onnx", "precision": "int8"},
    "ours, openvino": {"backend": "openvino"},
    "ours, openvino bf16": {"backend": "openvino", "precision": "bf16"},
}
CASCADE = "ours, cascade of int8, keep"

Rerank = Callable[[str, list[Document]], list[float]]
"""Returns the logit of each document, in the documents' order."""


@dataclass(frozen=True)
class Weights:
    """The same weights in every layout.

    Attributes:
        torch: Folder with safetensors.
        onnx: Folder exported by this package.
    """

    torch: Path
    onnx: Path

    @property
    def plain(self) -> Path:
        """Folder with the graph as torch traced it, for the other libraries."""
        return self.onnx.parent / "plain"


def load_stock(weights: Weights) -> Rerank:
    """LangChain's own reranker over its own Hugging Face cross-encoder."""
    import torch
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder

    kept: dict[int, float] = {}

    class Remembering(HuggingFaceCrossEncoder):
        """Keeps the scores, which the stock reranker throws away."""

        def score(self, text_pairs: Any) -> Any:
            found = super().score(text_pairs)
            kept.update(enumerate(map(float, found)))
            return found

    scorer = HuggingFaceCrossEncoder(
        model_name=str(weights.torch), model_kwargs={"device": "cpu", "activation_fn": torch.nn.Identity()}
    )
    stock = CrossEncoderReranker(model=Remembering.model_construct(**scorer.__dict__), top_n=100_000)

    def rerank(query: str, documents: list[Document]) -> list[float]:
        stock.compress_documents(documents, query)
        return [kept[place] for place in range(len(documents))]

    return rerank


def load_sentence_transformers(weights: Weights) -> Rerank:
    """The library's own `CrossEncoder`."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(weights.torch), device="cpu", activation_fn=torch.nn.Identity())

    def rerank(query: str, documents: list[Document]) -> list[float]:
        pairs = [(query, document.page_content) for document in documents]
        return [float(score) for score in model.predict(pairs, show_progress_bar=False)]

    return rerank


def load_rerankers(weights: Weights) -> Rerank:
    """The `rerankers` package's cross-encoder."""
    from rerankers import Reranker

    ranker = Reranker(str(weights.torch), model_type="cross-encoder", device="cpu", verbose=0)

    def rerank(query: str, documents: list[Document]) -> list[float]:
        texts = [document.page_content for document in documents]
        found = ranker.rank(query, texts, doc_ids=list(range(len(documents))))
        scores = {result.document.doc_id: float(result.score) for result in found.results}
        return [scores[place] for place in range(len(documents))]

    return rerank


def load_flashrank(weights: Weights) -> Rerank:
    """FlashRank on the plain graph."""
    from flashrank import Ranker, RerankRequest

    # Its models are listed by name; this one exists already, so nothing is fetched.
    sys.modules[Ranker.__module__].model_file_map["plain"] = "model.onnx"
    ranker = Ranker(model_name="plain", cache_dir=str(weights.onnx.parent), max_length=512, log_level="ERROR")

    def rerank(query: str, documents: list[Document]) -> list[float]:
        passages = [{"id": place, "text": document.page_content} for place, document in enumerate(documents)]
        found = {entry["id"]: float(entry["score"]) for entry in ranker.rerank(RerankRequest(query, passages))}
        # Its scores are probabilities.
        return [float(np.log(found[i] / (1 - found[i]))) for i in range(len(documents))]

    return rerank


def load_fastembed(weights: Weights) -> Rerank:
    """Fastembed on the plain graph."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(model="local/plain", model_file="model.onnx", sources=ModelSource(hf="local"))
    model = TextCrossEncoder("local/plain", specific_model_path=str(weights.plain))
    return lambda query, documents: [float(s) for s in model.rerank(query, [d.page_content for d in documents])]


def load_ours(name: str, weights: Weights) -> Rerank:
    """This package, in the setting that the name says."""
    from langchain_crossrerank import CascadeCrossEncoder, CrossEncoderReranker, load_cross_encoder

    model: Any
    if name.startswith(CASCADE):
        cheap = load_cross_encoder(weights.onnx, activation="identity", precision="int8")
        full = load_cross_encoder(weights.onnx, activation="identity")
        model = CascadeCrossEncoder(cheap, full, keep=int(name.removeprefix(CASCADE)))
    else:
        model = load_cross_encoder(weights.onnx, activation="identity", **OURS[name])  # type: ignore[arg-type]
    reranker = CrossEncoderReranker(model=model, top_n=None)

    def rerank(query: str, documents: list[Document]) -> list[float]:
        found = {d.id: d.metadata["relevance_score"] for d in reranker.compress_documents(documents, query)}
        return [found[document.id] for document in documents]

    return rerank


PEERS: dict[str, Callable[[Weights], Rerank]] = {
    STOCK: load_stock,
    REFERENCE: load_sentence_transformers,
    "rerankers": load_rerankers,
    "FlashRank": load_flashrank,
    "fastembed": load_fastembed,
}


def load_contender(name: str, weights: Weights) -> Rerank:
    """Load a contender by its name."""
    return PEERS[name](weights) if name in PEERS else load_ours(name, weights)


def export_weights(weights: Weights) -> None:
    """Export for this package, and next to it the plain graph for the other libraries."""
    from langchain_crossrerank.cross_encoders import export

    export.export_onnx(str(weights.torch), weights.onnx)
    shutil.copytree(weights.onnx, weights.plain)
    loaded = export._load(str(weights.torch), None)
    export._trace(loaded, weights.plain / "model.onnx")
    # fastembed cuts at the tokenizer's max_length; all read the same 512 tokens here.
    described = json.loads((weights.plain / "tokenizer_config.json").read_text(encoding="utf-8"))
    (weights.plain / "tokenizer_config.json").write_text(json.dumps({**described, "max_length": 512}))
    # FlashRank reads this file, which transformers no longer writes.
    special = json.dumps(loaded.tokenizer.special_tokens_map)
    (weights.plain / "special_tokens_map.json").write_text(special, encoding="utf-8")
