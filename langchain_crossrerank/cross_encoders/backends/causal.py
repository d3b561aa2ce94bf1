"""LLM rerankers saved as plain causal language models, which answer "yes" or "no" in the form of Qwen3-Reranker."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import CrossEncoder as SentenceTransformer
from sentence_transformers.cross_encoder.modules import LogitScore

from langchain_crossrerank.cross_encoders.backends.torch import TorchCrossEncoder
from langchain_crossrerank.cross_encoders.backends.weights import (
    ReportedTransformer,
    check_complete,
    first_line,
    is_saved_cross_encoder,
)
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.pickles import refuse_pickles
from langchain_crossrerank.errors import UnsupportedModelError

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction with which the Qwen3-Reranker models were published."""

# The wording is the input format of the models: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
_TEMPLATE = (
    "{%- set ns = namespace(instruction='" + DEFAULT_INSTRUCTION + "', query='', document='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{%- set ns.instruction = message.content -%}"
    "{%- elif message.role == 'query' -%}{%- set ns.query = message.content -%}"
    "{%- elif message.role == 'document' -%}{%- set ns.document = message.content -%}{%- endif -%}"
    "{%- endfor -%}"
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {{ ns.instruction }}\n<Query>: {{ ns.query }}\n<Document>: {{ ns.document }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\\n\\n' }}"
)

SANITY_PAIRS: tuple[TextPair, TextPair] = (
    ("What is the capital of France?", "Paris is the capital of France."),
    ("How do plants make food?", "Plants make food from light, water and air by photosynthesis."),
)
"""Two questions with their answers; a working reranker prefers the answer to each question over the other one."""

SANITY_MARGIN = 0.5
"""Minimum difference, in log-odds, by which it must prefer it."""


def load_causal(source: ModelSource, **settings: Any) -> TorchCrossEncoder:
    """Load an LLM reranker: with its own modules if sentence-transformers saved it, or in the form of Qwen3-Reranker.

    Args:
        source: The model's folder.
        **settings: Arguments of `TorchCrossEncoder`.
    """
    return (TorchCrossEncoder if is_saved_cross_encoder(source) else CausalCrossEncoder)(source, **settings)


class CausalCrossEncoder(TorchCrossEncoder):
    """A causal language model whose score is the log-odds of the next token being "yes" and not "no".

    For models without `modules.json`; one that has it says itself which tokens and which template it uses, and is
    loaded by `TorchCrossEncoder`. Only the passage is ever cut: the end of the prompt, where the answer is read, is
    kept. At load, the model must rank two pairs correctly with the published instruction, so that a model that was
    never trained for this is not used by mistake.

    Args and errors are those of `TorchCrossEncoder`.

    Raises:
        UnsupportedModelError: Also if there are no single tokens "yes" and "no", or the model fails the check.
    """

    def __init__(self, source: ModelSource, **settings: Any) -> None:
        instruction = settings.pop("instruction", None)
        super().__init__(source, **settings)
        self._check_sanity()
        if instruction not in (None, DEFAULT_INSTRUCTION):
            self._set_instruction(instruction)

    def _load(
        self, source: ModelSource, *, device: str | None, dtype: torch.dtype | str, trust_remote_code: bool
    ) -> SentenceTransformer:
        refuse_pickles(source.name, source.folder)
        try:
            transformer = ReportedTransformer(
                str(source.folder),
                transformer_task="text-generation",
                model_kwargs={"use_safetensors": True, "dtype": dtype, "trust_remote_code": trust_remote_code},
                processor_kwargs={"chat_template": _TEMPLATE, "trust_remote_code": trust_remote_code},
                config_kwargs={"trust_remote_code": trust_remote_code},
            )
        except Exception as err:
            raise UnsupportedModelError(
                f"cannot load {source.name!r} as a causal language model: {first_line(err)}; its weights must be "
                "safetensors."
            ) from err
        tokenizer = transformer.tokenizer
        yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        if None in (yes, no) or tokenizer.unk_token_id in (yes, no):
            raise UnsupportedModelError(
                f'{source.name!r} has no single tokens "yes" and "no", with which an LLM reranker answers; pass a '
                "model with modules.json, which names its tokens."
            )
        model: SentenceTransformer = SentenceTransformer(
            modules=[transformer, LogitScore(true_token_id=yes, false_token_id=no)], device=device
        )
        check_complete(model, source.name)
        model.eval()
        return model

    def _check_sanity(self) -> None:
        (first, first_answer), (second, second_answer) = SANITY_PAIRS
        pairs = [*SANITY_PAIRS, (first, second_answer), (second, first_answer)]
        # Whole, however short the caller's max_length is.
        rows = self._rows(pairs, max_length=None)
        encoded = [
            EncodedPair(pair, len(row["input_ids"]), features=row) for pair, row in zip(pairs, rows, strict=True)
        ]
        activation, self.activation = self.activation, "identity"
        right_first, right_second, wrong_first, wrong_second = self._score_batch(encoded)
        self.activation = activation
        margin = min(right_first - wrong_first, right_second - wrong_second)
        if not margin >= SANITY_MARGIN:
            raise UnsupportedModelError(
                f"{self.name!r} prefers the answer to a question by only {margin:.3f} in log-odds (at least "
                f"{SANITY_MARGIN} is needed), so its yes and no mean nothing: its head is not trained, or it is not a "
                "reranker of this kind."
            )
