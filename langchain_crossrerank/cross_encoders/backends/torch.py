"""The torch backend: any cross-encoder that sentence-transformers loads."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder

from langchain_crossrerank.cross_encoders.base import DEFAULT_MAX_BATCH_TOKENS, CrossEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.precision import torch_dtype, torch_precision
from langchain_crossrerank.cross_encoders.scores import Activation, check_num_labels, relevance_logits, sigmoid
from langchain_crossrerank.cross_encoders.truncation import Spans
from langchain_crossrerank.errors import (
    ModelNotFoundError,
    ScoringError,
    UnsupportedModelError,
)
from langchain_crossrerank.files import hash_files


class TorchCrossEncoder(CrossEncoder):
    """A cross-encoder computed by torch through sentence-transformers.

    Weights are read as safetensors only, and computed in `precision` whatever the file stores.

    Args:
        model: A hub name or a folder.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Tokens of a pair that are read, at most what the model allows; `None` for that most.
        max_batch_tokens: The most tokens, padding included, in one forward pass.
        precision: `"fp32"` is exact; `"bf16"` and `"fp16"` move scores a little and are for GPUs and CPUs with
            instructions for them; `"auto"` is bf16 on a GPU that has it, fp16 on another, fp32 on a CPU.
        device: A torch device, for example `"cpu"` or `"cuda"`; `None` lets sentence-transformers choose.
        revision: Branch, tag or commit on the hub.
        local_files_only: Use the hub's local cache and no network.
        trust_remote_code: Run Python code from the model's repository. Only for repositories you trust.

    Raises:
        ModelNotFoundError: If there is no such model or it cannot be reached.
        UnsupportedModelError: If its head is not one or two logits, or it cannot be loaded.
    """

    backend = "torch"
    _knows_tokens = True

    def __init__(
        self,
        model: str,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32",
        device: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self.name = model
        self._revision = revision
        # A fast tokenizer keeps its truncation as state, which threads would change under each other.
        self._tokenizing = threading.Lock()
        self.max_batch_tokens = max_batch_tokens
        on_gpu = torch.cuda.is_available() and device != "cpu"
        self.precision = torch_precision(precision, on_gpu=on_gpu)
        model_kwargs: dict[str, Any] = {"use_safetensors": True, "dtype": torch_dtype(self.precision)}
        try:
            self._model = SentenceTransformersCrossEncoder(
                model,
                device=device,
                revision=revision,
                local_files_only=local_files_only,
                trust_remote_code=trust_remote_code,
                model_kwargs=model_kwargs,
            )
        except OSError as err:
            raise ModelNotFoundError(
                f"sentence-transformers cannot load {model!r}: {_first_line(err)}; check the name, that the weights "
                'are safetensors, and the network, or use "bundled" for the model inside this package.'
            ) from err
        except Exception as err:
            raise UnsupportedModelError(f"sentence-transformers cannot load {model!r}: {_first_line(err)}") from err
        check_num_labels(int(self._model.num_labels or 1), model)
        self.activation = activation or self._own_activation()
        allowed = int(self._model.max_seq_length or 512)
        self.max_length = min(max_length or allowed, allowed)
        self._pid = os.getpid()

    @property
    def fingerprint(self) -> str:
        """The weights' commit on the hub, or their content hash, with everything else that decides a score."""
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        return f"torch:{self._weights_identity}:{self.activation}:{self.max_length}{precision}:{self.long_query}"

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, precision={self.precision!r})"

    @cached_property
    def _weights_identity(self) -> str:
        folder = Path(self.name)
        if folder.is_dir():
            return hash_files(sorted(folder.rglob("*.safetensors")) + sorted(folder.rglob("tokenizer*")))
        commit = getattr(getattr(self._model, "config", None), "_commit_hash", None)
        return f"{self.name}@{commit or self._revision}"

    def _own_activation(self) -> Activation:
        kind = type(self._model.activation_fn).__name__
        if kind not in ("Sigmoid", "Identity"):
            raise UnsupportedModelError(
                f"{self.name!r} asks for the activation {kind}, which is not known here; "
                'pass activation="identity" or activation="sigmoid".'
            )
        return "sigmoid" if kind == "Sigmoid" else "identity"

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        encoded = []
        for pair in text_pairs:
            parts = self._parts(pair, overlap=0)
            features = {name: values[0] for name, values in parts.items()}
            tokens, truncated = len(features["input_ids"]), len(parts["input_ids"]) > 1
            encoded.append(EncodedPair(pair, tokens, truncated=truncated, features=features))
        return encoded

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        encoded = []
        for pair in text_pairs:
            parts = self._parts(pair, overlap=overlap, return_offsets_mapping=True)
            offsets = parts.pop("offset_mapping")
            for part, spans in enumerate(offsets):
                inside = [span for span, side in zip(spans, parts.sequence_ids(part), strict=True) if side == 1]
                window = (inside[0][0], inside[-1][1]) if len(offsets) > 1 and inside else None
                features = {name: values[part] for name, values in parts.items()}
                encoded.append(EncodedPair(pair, len(features["input_ids"]), window=window, features=features))
        return encoded

    def _parts(self, pair: TextPair, *, overlap: int, **options: Any) -> Any:
        """Encode a pair; a passage that does not fit gives further parts, of which the first is the pair cut."""
        # Lists, because an empty passage given as a string would count as none.
        with self._tokenizing:
            parts = self._model.tokenizer(
                [pair[0]],
                [pair[1]],
                truncation="only_second",
                max_length=self.max_length,
                stride=overlap,
                return_overflowing_tokens=True,
                **options,
            )
        parts.pop("overflow_to_sample_mapping", None)
        return parts

    @property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return int(self._model.tokenizer.num_special_tokens_to_add(pair=True))

    def _query_spans(self, query: str) -> Spans:
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        with self._tokenizing:
            encoded = self._model.tokenizer(query, **options, return_offsets_mapping=True)
        spans: Spans = encoded["offset_mapping"]
        return spans

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if os.getpid() != self._pid and self._model.device.type == "cpu":
            # After a fork torch's thread pool is gone and a forward pass on several threads may never return.
            torch.set_num_threads(1)
        elif os.getpid() != self._pid:
            raise ScoringError(
                f"{self.name!r} was loaded on {self._model.device} before this process was forked, and CUDA does not "
                "survive a fork; load the model in the child, or start processes with the spawn method."
            )
        features = self._model.tokenizer.pad([item.features for item in batch], return_tensors="pt")
        with torch.inference_mode():
            output = self._model({name: value.to(self._model.device) for name, value in features.items()})
        logits = relevance_logits(output["scores"].float().cpu().numpy(), self.name)
        return [sigmoid(logit) for logit in logits] if self.activation == "sigmoid" else logits


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
