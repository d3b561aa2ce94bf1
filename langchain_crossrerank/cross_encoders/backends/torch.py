"""The torch backend: any cross-encoder that sentence-transformers loads, scored as it scores it."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch
from sentence_transformers import CrossEncoder as SentenceTransformer

from langchain_crossrerank._process import ProcessMark, QuietLock
from langchain_crossrerank.cross_encoders.backends.weights import load_modules
from langchain_crossrerank.cross_encoders.base import DEFAULT_MAX_BATCH_TOKENS, CrossEncoder
from langchain_crossrerank.cross_encoders.fingerprints import READ_SUFFIXES, ReadFiles, fingerprint
from langchain_crossrerank.cross_encoders.languages import LanguageCheck, TokenSpan, card_languages
from langchain_crossrerank.cross_encoders.model_files import MAX_DEFAULT_LENGTH, ModelSource
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.precision import torch_dtype, torch_precision
from langchain_crossrerank.cross_encoders.scores import (
    Activation,
    check_num_labels,
    relevance_logits,
    relevant_label,
    sigmoid,
)
from langchain_crossrerank.cross_encoders.truncation import Spans
from langchain_crossrerank.errors import InvalidInputError, ScoringError, UnsupportedModelError

_NO_LIMIT = 10**9
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")

_logger = logging.getLogger(__name__)

_Row = dict[str, list[int]]


class TorchCrossEncoder(CrossEncoder):
    """A cross-encoder computed by torch through sentence-transformers.

    sentence-transformers loads the modules, applies saved prompts and chat templates, tokenises, pads and computes.
    This class adds batching by tokens, the flag for truncated passages, precision, and the checks. Weights are read as
    safetensors only, and all of them must be in the model's files.

    Args:
        source: The model's folder.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Maximum number of tokens of a pair, template included; `None` for what the model allows, and for LLM
            rerankers no more than 8192.
        max_batch_tokens: Maximum number of tokens, padding included, in one forward pass.
        precision: `"fp32"` is exact; `"bf16"` and `"fp16"` change scores a little and are for GPUs and CPUs with
            instructions for them; `"auto"` is bf16 on a GPU that supports it, fp16 on another, fp32 on a CPU. `None` is
            `"fp32"`, and on a GPU the type of the weights for LLM rerankers.
        device: A torch device, for example `"cpu"` or `"cuda"`; `None` for CUDA, then MPS, then the CPU.
        instruction: What relevant means, in a sentence, for models whose chat template has a place for it; `None` for
            the model's default.
        trust_remote_code: Run Python code from the model's folder. Only for models that you trust.

    Raises:
        InvalidInputError: If the model has no place for an instruction.
        ModelNotFoundError: If files are missing.
        UnsupportedModelError: If sentence-transformers cannot load it, weights are missing, or the head has other than
            one or two outputs.
    """

    backend = "torch"
    _knows_tokens = True

    def __init__(
        self,
        source: ModelSource,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        precision: Literal["fp32", "bf16", "fp16", "auto"] | None = None,
        device: str | None = None,
        instruction: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.name = source.name
        self.max_batch_tokens = max_batch_tokens
        read: ReadFiles | str = ReadFiles.of_folder(source.folder, suffixes=READ_SUFFIXES - {".onnx", ".xml", ".bin"})
        on_gpu = torch.cuda.is_available() and device != "cpu"
        dtype: torch.dtype | str = torch_dtype(torch_precision(precision or "fp32", on_gpu=on_gpu))
        if precision is None and on_gpu and source.is_causal:
            dtype = "auto"
        model = self._load(source, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        self._adopt(model, read, activation=activation, instruction=instruction)
        self.max_length = self._usable_length(max_length)

    @classmethod
    def from_model(
        cls, model: SentenceTransformer, *, max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    ) -> TorchCrossEncoder:
        """Use a `CrossEncoder` of sentence-transformers that is already loaded.

        Args:
            model: The model; its activation, prompt, device and `max_seq_length` are used.
            max_batch_tokens: Maximum number of tokens, padding included, in one forward pass.

        Raises:
            UnsupportedModelError: If the head has other than one or two outputs, or the activation is unknown.
        """
        self = cls.__new__(cls)
        self.name = str(getattr(model.transformers_model, "name_or_path", None) or type(model).__name__)
        self.max_batch_tokens = max_batch_tokens
        # Its weights may have been changed since they were read, so each object is a model of its own.
        self._adopt(model.eval(), f"object-{uuid4().hex}")
        self.max_length = self._usable_length(None)
        return self

    def _load(
        self, source: ModelSource, *, device: str | None, dtype: torch.dtype | str, trust_remote_code: bool
    ) -> SentenceTransformer:
        """Load the model from its folder."""
        return load_modules(source, device=device, dtype=dtype, trust_remote_code=trust_remote_code)

    def _adopt(
        self,
        model: SentenceTransformer,
        read: ReadFiles | str,
        *,
        activation: Activation | None = None,
        instruction: str | None = None,
    ) -> None:
        self._model = model
        self._read = read
        self._mark = ProcessMark()
        # A tokenizer's truncation and padding are state that threads would change for each other, and it has locks of
        # its own that a fork must not find locked.
        self._tokenizing = QuietLock()
        # Texts are tokenised whole to see whether they are too long, which is no reason for a warning.
        model.tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        check_num_labels(int(model.num_labels or 1), self.name)
        self._relevant = relevant_label(getattr(model.config, "id2label", None))
        self.activation = activation or self._own_activation()
        transformer: Any = model[0]
        self._transformer = transformer
        self._has_template = "message" in transformer.modality_config
        # What `predict` does without a prompt.
        self._prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        folder = Path(str(getattr(model.transformers_model, "name_or_path", "")))
        # LLM rerankers read any language in pieces down to bytes.
        self._language_check = LanguageCheck(card_languages(folder), self._token_spans, reads_bytes=self._has_template)
        if instruction is not None:
            self._set_instruction(instruction)

    @property
    def precision(self) -> str:
        """What is computed in: `"fp32"`, `"bf16"` or `"fp16"`."""
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names.get(self._model.dtype or torch.float32, str(self._model.dtype))

    @property
    def fingerprint(self) -> str:
        """The content of the model's files with everything else that decides a score."""
        return fingerprint(
            "torch",
            self._read,
            activation=self.activation,
            max_length=self.max_length,
            precision=self.precision,
            prompt=self._prompt,
            long_query=self.long_query,
        )

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, precision={self.precision!r}, device={str(self._model.device)!r})"

    def _set_instruction(self, instruction: str) -> None:
        if not self._has_template:
            raise InvalidInputError(
                f"instruction is {instruction!r}, but {self.name!r} is not an LLM reranker and has no place for it; "
                "leave it out."
            )
        usual = self._rows([("query", "passage")], max_length=None)
        self._prompt = instruction
        if self._rows([("query", "passage")], max_length=None) == usual and instruction:
            raise InvalidInputError(
                f"instruction is {instruction!r}, but the chat template of {self.name!r} has no place for it, or it is "
                "the default; leave it out."
            )

    def _own_activation(self) -> Activation:
        kind = type(self._model.activation_fn).__name__
        if kind not in ("Sigmoid", "Identity"):
            raise UnsupportedModelError(
                f'{self.name!r} asks for the activation {kind}, which is not supported; pass activation="identity" or '
                'activation="sigmoid".'
            )
        return "sigmoid" if kind == "Sigmoid" else "identity"

    def _usable_length(self, asked: int | None) -> int:
        """Return `max_length`: what was asked for or is usual, as far as the model has positions."""
        positions = self._positions
        if asked is None:
            limits = [self._model.max_seq_length, positions, MAX_DEFAULT_LENGTH if self._has_template else None]
            # Tokenizers without a limit of their own say 1e30.
            return min((int(limit) for limit in limits if limit and limit < _NO_LIMIT), default=MAX_DEFAULT_LENGTH)
        if positions is not None and asked > positions:
            _logger.warning(
                "max_length=%d is above the %d positions of %r; %d tokens of a pair are read.",
                asked,
                positions,
                self.name,
                positions,
            )
            return positions
        return asked

    @cached_property
    def _positions(self) -> int | None:
        """The number of tokens that the model has positions for; `None` for models without a table of positions."""
        for name, table in self._model.named_modules():
            if isinstance(table, torch.nn.Embedding) and name.endswith(_POSITION_TABLES):
                # Tables with a padding row count from behind it, BART's from its offset.
                skipped = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1
                return table.num_embeddings - int(skipped)
        return None

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        rows = self._rows(text_pairs, max_length=None)
        long = [place for place, row in enumerate(rows) if len(row["input_ids"]) > self.max_length]
        for place, row in zip(long, self._cut_rows([text_pairs[place] for place in long]), strict=True):
            rows[place] = row
        return [
            EncodedPair(pair, len(row["input_ids"]), truncated=place in set(long), features=row)
            for place, (pair, row) in enumerate(zip(text_pairs, rows, strict=True))
        ]

    def _cut_rows(self, text_pairs: Sequence[TextPair]) -> list[_Row]:
        """Tokenise pairs whose passage is too long; only the passage is cut."""
        if not text_pairs or not self._has_template or self._passage_is_last:
            return self._rows(text_pairs, max_length=self.max_length) if text_pairs else []
        cut = []
        for query, passage in text_pairs:
            spans = self._spans(passage) or [(place, place + 1) for place in range(len(passage))]
            room = self.max_length - len(self._rows([(query, "")], max_length=None)[0]["input_ids"])
            kept = passage[: spans[min(room, len(spans)) - 1][1]] if room > 0 else ""
            cut += self._rows([(query, kept)], max_length=self.max_length)
        return cut

    @cached_property
    def _passage_is_last(self) -> bool:
        """Whether the template puts the passage behind the query, so that cutting the end only cuts the passage."""
        tokenizer = self._model.tokenizer
        text = tokenizer.decode(self._rows([("QUERYTEXT", "PASSAGETEXT")], max_length=None)[0]["input_ids"])
        return bool(text.rfind("QUERYTEXT") < text.find("PASSAGETEXT"))

    def _rows(self, text_pairs: Sequence[TextPair], *, max_length: int | None) -> list[_Row]:
        """Let sentence-transformers tokenise pairs.

        Args:
            text_pairs: The pairs.
            max_length: Cut to this number of tokens; the end of a template is kept. `None` for whole pairs.

        Returns:
            The features of each pair without padding.
        """
        options: dict[str, Any] = {"truncation": False}
        if max_length is not None:
            options = {"truncation": True if self._has_template else "only_second", "max_length": max_length}
        with self._tokenizing:
            batch = self._model.preprocess(
                [self._messages(pair) if self._has_template else list(pair) for pair in text_pairs],
                prompt=self._prompt,
                processing_kwargs={"text": options},
            )
        mask = batch["attention_mask"].bool()
        self._constants = {name: value for name, value in batch.items() if not _is_row_wise(value, mask)}
        by_row = {name: value for name, value in batch.items() if _is_row_wise(value, mask)}
        return [
            {name: value[place][mask[place]].tolist() for name, value in by_row.items()}
            for place in range(len(text_pairs))
        ]

    def _messages(self, pair: TextPair) -> list[dict[str, Any]]:
        """Return a pair as chat messages; in a plain pair, sentence-transformers may take a link for an image."""
        is_flat = self._transformer.input_formatter.message_format == "flat"
        return [
            {"role": role, "content": text if is_flat else [{"type": "text", "text": text}]}
            for role, text in zip(("query", "document"), pair, strict=True)
        ]

    def _query_spans(self, query: str) -> Spans:
        spans = self._spans(query)
        return list(_guessed_spans(query, self._model.tokenizer)) if spans is None else spans

    @cached_property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return len(self._rows([("", "")], max_length=None)[0]["input_ids"])

    def _spans(self, text: str) -> list[tuple[int, int]] | None:
        """Return the characters of each token of a text; `None` for tokenizers written in Python."""
        tokenizer = self._model.tokenizer
        if not tokenizer.is_fast:
            return None
        with self._tokenizing:
            encoded = tokenizer(text, add_special_tokens=False, truncation=False, return_offsets_mapping=True)
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]

    def _token_spans(self, text: str) -> list[TokenSpan]:
        tokenizer = self._model.tokenizer
        spans = self._query_spans(text)
        with self._tokenizing:
            ids = tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        if len(ids) != len(spans):
            return [TokenSpan(*span) for span in spans]
        unknown = tokenizer.unk_token_id
        return [TokenSpan(*span, is_unknown=number == unknown) for span, number in zip(spans, ids, strict=True)]

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        if not self._model.tokenizer.is_fast:
            return super()._encode_windows(text_pairs, overlap)
        divide = self._template_windows if self._has_template else self._windows
        return [item for pair in text_pairs for item in divide(pair, overlap)]

    def _windows(self, pair: TextPair, overlap: int) -> Iterator[EncodedPair]:
        """Let the tokenizer divide a pair's tokens."""
        query, passage = pair
        with self._tokenizing:
            # Lists, because an empty passage passed as a string would count as none.
            parts = self._model.tokenizer(
                [(self._prompt or "") + query],
                [passage],
                truncation="only_second",
                max_length=self.max_length,
                stride=overlap,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        parts.pop("overflow_to_sample_mapping", None)
        offsets = parts.pop("offset_mapping")
        for place, spans in enumerate(offsets):
            inside = [span for span, side in zip(spans, parts.sequence_ids(place), strict=True) if side == 1]
            window = (inside[0][0], inside[-1][1]) if len(offsets) > 1 and inside else None
            row = {name: values[place] for name, values in parts.items()}
            yield EncodedPair(pair, len(row["input_ids"]), window=window, features=row)

    def _template_windows(self, pair: TextPair, overlap: int) -> Iterator[EncodedPair]:
        """Divide the text of the passage, and put each part through the template."""
        (whole,) = self._encode([pair])
        if not whole.truncated:
            yield whole
            return
        query, passage = pair
        spans = self._spans(passage) or []
        size = self.max_length - len(self._rows([(query, "")], max_length=None)[0]["input_ids"])
        for first in range(0, max(1, len(spans) - overlap), size - overlap):
            last = min(first + size, len(spans))
            window = (spans[first][0], spans[last - 1][1])
            (row,) = self._rows([(query, passage[slice(*window)])], max_length=self.max_length)
            yield EncodedPair(pair, len(row["input_ids"]), window=window, features=row)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        device = self._model.device
        if not self._mark.is_current and device.type == "cpu":
            # A forked child has no thread pool, and a forward pass on several threads may never return.
            torch.set_num_threads(1)
        elif not self._mark.is_current:
            raise ScoringError(
                f"{self.name!r} was loaded on {device} before this process was forked, and a GPU does not survive a "
                "fork; load the model in the child, or start processes with the spawn method."
            )
        with self._tokenizing:
            features = dict(self._model.tokenizer.pad([item.features for item in batch], return_tensors="pt"))
        self._check_ids(features["input_ids"])
        moved = {name: value.to(device) for name, value in features.items()}
        with torch.inference_mode():
            scores = self._model({**moved, **self._constants})["scores"]
        logits = relevance_logits(scores.float().cpu().numpy(), self.name, relevant=self._relevant)
        return [sigmoid(logit) for logit in logits] if self.activation == "sigmoid" else logits

    def _check_ids(self, ids: torch.Tensor) -> None:
        """Raise if the tokenizer has ids that the model does not; on a GPU this would end the process's context."""
        rows = self._embedding_rows
        if rows and int(ids.max()) >= rows:
            raise UnsupportedModelError(
                f"the tokenizer of {self.name!r} has the token id {int(ids.max())}, but the model has {rows} "
                "embeddings: its tokenizer and weights do not belong together. Fetch or export the model again."
            )

    @cached_property
    def _embedding_rows(self) -> int:
        network = self._model.transformers_model
        table = network.get_input_embeddings() if network is not None else None
        return int(getattr(table, "num_embeddings", 0))


def _is_row_wise(value: Any, mask: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == mask.shape


def _guessed_spans(text: str, tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Divide each word evenly among its tokens, for tokenizers that do not say where their tokens are."""
    for word in re.finditer(r"\S+", text):
        tokens = max(1, len(tokenizer.tokenize(word[0])))
        ends = [word.start() + len(word[0]) * place // tokens for place in range(tokens + 1)]
        yield from itertools.pairwise(ends)
