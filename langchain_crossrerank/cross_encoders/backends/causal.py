"""LLM rerankers: a causal language model that answers "yes" or "no", in the shape of Qwen3-Reranker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_crossrerank.cross_encoders.base import DEFAULT_MAX_BATCH_TOKENS, CrossEncoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.precision import torch_dtype, torch_precision
from langchain_crossrerank.cross_encoders.scores import Activation, sigmoid
from langchain_crossrerank.cross_encoders.truncation import Spans
from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.files import hash_files

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction with which the Qwen3-Reranker models were published."""

# The wording is the models' input format: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

SANITY_PAIRS: tuple[TextPair, TextPair] = (
    ("What is the capital of France?", "Paris is the capital of France."),
    ("How do plants make food?", "Plants make food from light, water and air by photosynthesis."),
)
"""Two questions with their answers; a working reranker prefers each question's own answer to the other one."""

SANITY_MARGIN = 0.5
"""Log-odds by which it must prefer it."""


class CausalCrossEncoder(CrossEncoder):
    """A causal language model that ranks by the log-odds of its next token being "yes" and not "no".

    The prompt is prefix, instruction, query, passage, suffix. Only the passage is ever cut: the suffix, at whose end
    the answer is read, always stays whole. At load the model must rank two pairs right, so that a model whose head
    was never trained for this does not go unnoticed.

    Args:
        source: Where the model's files are; weights as safetensors.
        instruction: What relevant means, in a sentence; `None` for the published default.
        activation: `"sigmoid"` gives the probability of "yes", `"identity"` its log-odds.
        max_length: Tokens of the whole prompt that are read; `None` for what the model allows, at most 8192.
        max_batch_tokens: The most tokens, padding included, in one forward pass.
        precision: What to compute in; `None` for fp32 on a CPU and the type of the weights on a GPU.
        device: A torch device; `None` for CUDA where there is one, else the CPU.
        trust_remote_code: Run Python code from the model's repository.

    Raises:
        UnsupportedModelError: If it cannot be loaded, has no "yes" and "no" token, or fails the sanity check.
    """

    backend = "torch"
    _knows_tokens = True

    def __init__(
        self,
        source: ModelSource,
        *,
        instruction: str | None = None,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        precision: Literal["fp32", "bf16", "fp16", "auto"] | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.name = source.name
        self.instruction = instruction or DEFAULT_INSTRUCTION
        self.activation = activation or "sigmoid"
        self.max_batch_tokens = max_batch_tokens
        self._source = source
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._precision = precision
        self._load(trust_remote_code)
        allowed = int(getattr(self._model.config, "max_position_embeddings", None) or 8192)
        self.max_length = min(max_length or 8192, allowed)
        self._check_sanity()

    @property
    def fingerprint(self) -> str:
        """The weights' content hash, the prompt with its instruction, and the other settings."""
        weights = hash_files(sorted(self._source.folder.glob("*.safetensors")))
        settings = f"{self.activation}:{self.max_length}:{self.long_query}"
        return f"causal:{weights}:{_PREFIX}{self.instruction}{_SUFFIX}:{settings}"

    def _load(self, trust_remote_code: bool) -> None:
        folder = str(self._source.folder)
        on_gpu = self._device.type != "cpu"
        settled = torch_precision(self._precision or "fp32", on_gpu=on_gpu)
        dtype = "auto" if on_gpu and self._precision is None else torch_dtype(settled)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError) as err:
            reason = str(err).splitlines()[0] if str(err) else type(err).__name__
            raise UnsupportedModelError(
                f"{self.name!r} cannot be loaded as a causal language model: {reason}; its weights must be safetensors."
            ) from err
        self._model: Any = cast("Any", model).to(self._device).eval()
        unknown = self._tokenizer.unk_token_id
        self._yes, self._no = (self._tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        if None in (self._yes, self._no) or unknown in (self._yes, self._no):
            raise UnsupportedModelError(
                f'{self.name!r} has no single tokens "yes" and "no", by which an LLM reranker answers.'
            )

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        prefix, suffix = self._ids(_PREFIX), self._ids(_SUFFIX)
        room = self.max_length - len(prefix) - len(suffix)
        encoded = []
        for query, passage in text_pairs:
            # One text, since words are tokenised together with the space before them. The passage stands last.
            body = self._ids(self._question(query, passage))
            ids = prefix + body[:room] + suffix
            encoded.append(EncodedPair((query, passage), len(ids), truncated=len(body) > room, features=ids))
        return encoded

    @property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return len(self._ids(_PREFIX)) + len(self._ids(_SUFFIX)) + len(self._ids(self._question("", "")))

    def _query_spans(self, query: str) -> Spans:
        options = {"add_special_tokens": False, "verbose": False, "return_offsets_mapping": True}
        spans: Spans = self._tokenizer(query, **options)["offset_mapping"]
        return spans

    def _question(self, query: str, passage: str) -> str:
        return f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {passage}"

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        if os.getpid() != self._pid and self._device.type == "cpu":
            # As in the torch backend: a forked child has no thread pool.
            torch.set_num_threads(1)
        longest = max(item.tokens for item in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(batch):
            # Padding stands on the left, so that the last position is every prompt's end.
            ids[row, longest - item.tokens :] = torch.tensor(item.features)
            mask[row, longest - item.tokens :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with torch.inference_mode():
            output = self._model(**{name: value.to(self._device) for name, value in inputs.items()}, logits_to_keep=1)
        last = output.logits[:, -1, :].float().cpu()
        odds = [float(row[self._yes] - row[self._no]) for row in last]
        return [sigmoid(value) for value in odds] if self.activation == "sigmoid" else odds

    def _check_sanity(self) -> None:
        self._pid = os.getpid()
        queries, answers = zip(*SANITY_PAIRS, strict=True)
        crossed = list(zip(queries, answers[::-1], strict=True))
        encoded = self._encode([*SANITY_PAIRS, *crossed])
        activation, self.activation = self.activation, "identity"
        right_first, right_second, wrong_first, wrong_second = self._score_batch(encoded)
        self.activation = activation
        margin = min(right_first - wrong_first, right_second - wrong_second)
        if not margin >= SANITY_MARGIN:
            raise UnsupportedModelError(
                f"{self.name!r} prefers a question's own answer by only {margin:.3f} in log-odds (needed "
                f"{SANITY_MARGIN}), so its yes and no mean nothing here: its head is untrained, or it is no reranker "
                "of this kind."
            )
