"""The default backend: onnxruntime and tokenizers, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from langchain_crossrerank.cross_encoders.base import (
    DEFAULT_MAX_BATCH_TOKENS,
    Activation,
    CrossEncoder,
    EncodedPair,
    TextPair,
    check_query_room,
    sigmoid,
)
from langchain_crossrerank.cross_encoders.external_data import check_external_data, external_locations
from langchain_crossrerank.cross_encoders.heads import check_num_labels, relevance_logits
from langchain_crossrerank.cross_encoders.source import ModelSource, hash_files
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError


class OnnxCrossEncoder(CrossEncoder):
    """A cross-encoder computed by onnxruntime on the CPU, in the precision of its graph.

    Args:
        source: Where the model's files are.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Tokens of a pair that are read, at most what the model allows; `None` for that most.
        max_batch_tokens: The most tokens, padding included, in one forward pass.
        num_threads: Threads of one forward pass; `None` leaves the choice to onnxruntime (physical cores).

    Raises:
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded or its head is not one or two logits.
    """

    backend = "onnx"

    def __init__(
        self,
        source: ModelSource,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS,
        num_threads: int | None = None,
    ) -> None:
        self.name = source.name
        self.activation = activation or source.activation
        self.max_length = min(max_length or source.max_length, source.max_length)
        self.max_batch_tokens = max_batch_tokens
        self._num_threads = num_threads
        self._source = source
        self._tokenizer = self._load_tokenizer()
        self._window_tokenizers: dict[int, Tokenizer] = {}
        self._load_session()

    @property
    def fingerprint(self) -> str:
        """The weights' content hash with everything else that decides a score."""
        return f"onnx:{self._weights_hash}:{self.activation}:{self.max_length}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled copy loads the files again where it is unpickled; a session cannot travel.
        return _rebuild, (self._source, self.activation, self.max_length, self.max_batch_tokens, self._num_threads)

    def __repr__(self) -> str:
        place = "" if str(self._source.folder) == self.name else f", folder={str(self._source.folder)!r}"
        return f"{super().__repr__()[:-1]}{place})"

    @cached_property
    def _weights_hash(self) -> str:
        beside = [self._onnx_file.parent / location for location in sorted(external_locations(self._onnx_file))]
        return hash_files([self._onnx_file, *beside, self._source.tokenizer_file])

    @cached_property
    def _onnx_file(self) -> Any:
        path = self._source.onnx_file
        if path is None:
            raise ModelNotFoundError(
                f"the model {self.name!r} has no ONNX graph (model.onnx or onnx/model.onnx in "
                f'{self._source.folder}). Either run it on torch: `pip install "langchain-crossrerank[torch]"` and '
                'backend="torch"; or export it once: `pip install "langchain-crossrerank[export]"` and '
                f"`crossrerank export {self.name} FOLDER`, then load FOLDER."
            )
        return path

    def _load_tokenizer(self) -> Tokenizer:
        path = self._source.tokenizer_file
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as err:  # tokenizers raises plain Exception
            raise UnsupportedModelError(f"{path} cannot be read as a fast tokenizer: {err}") from err
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length, strategy="only_second")
        return tokenizer

    def _load_session(self) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        # A pattern is kept for every shape of batch, and there are many.
        options.enable_mem_pattern = False
        path = self._onnx_file
        check_external_data(path)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as err:  # onnxruntime's errors have no common public class
            raise UnsupportedModelError(f"onnxruntime cannot load {path}: {err}") from err
        output = session.get_outputs()[0]
        width = output.shape[-1] if len(output.shape) == 2 else 1
        check_num_labels(width if isinstance(width, int) else self._source.num_labels, self.name)
        self._session = session
        self._inputs = [entry.name for entry in session.get_inputs()]
        self._output = output.name
        self._pid = os.getpid()

    def _own_session(self) -> Any:
        # A forked child has the session's memory but not its threads: it loads its own.
        if os.getpid() != self._pid:
            # The inherited one is kept: taking it down would wait for threads that are not there.
            self._inherited = self._session
            self._load_session()
        return self._session

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return [
            EncodedPair(pair, len(first.ids), truncated=bool(first.overflowing), features=_compact(first))
            for pair, first in self._encodings(self._tokenizer, text_pairs, room=1)
        ]

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        encoded = []
        for pair, first in self._encodings(self._window_tokenizer(overlap), text_pairs, room=overlap + 1):
            for part in [first, *first.overflowing]:
                window = _passage_span(part) if first.overflowing else None
                encoded.append(EncodedPair(pair, len(part.ids), window=window, features=_compact(part)))
        return encoded

    def _encodings(
        self, tokenizer: Tokenizer, text_pairs: Sequence[TextPair], *, room: int
    ) -> Iterator[tuple[TextPair, Encoding]]:
        for query in dict.fromkeys(query for query, _ in text_pairs):
            self._check_room(query, room)
        return zip(text_pairs, tokenizer.encode_batch(list(text_pairs)), strict=True)

    def _window_tokenizer(self, overlap: int) -> Tokenizer:
        # A tokenizer's truncation is state of its own, so every overlap has its own tokenizer.
        if overlap not in self._window_tokenizers:
            tokenizer = self._load_tokenizer()
            tokenizer.enable_truncation(self.max_length, stride=overlap, strategy="only_second")
            self._window_tokenizers[overlap] = tokenizer
        return self._window_tokenizers[overlap]

    def _check_room(self, query: str, room: int) -> None:
        try:
            tokens = len(self._tokenizer.encode(query, add_special_tokens=False).ids)
        except Exception:  # noqa: BLE001 - tokenizers raises plain Exception where it may not cut what is too long
            tokens = self.max_length
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        check_query_room(query, self.max_length - special - tokens, room, self)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        shape = (len(batch), max(item.tokens for item in batch))
        feed = {name: np.zeros(shape, dtype=np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
        pad_id = self._source.config.get("pad_token_id") or 0
        feed["input_ids"].fill(pad_id)
        for row, item in enumerate(batch):
            ids, type_ids = item.features
            feed["input_ids"][row, : item.tokens] = ids
            feed["token_type_ids"][row, : item.tokens] = type_ids
            feed["attention_mask"][row, : item.tokens] = 1
        try:
            inputs = {name: feed[name] for name in self._inputs}
        except KeyError as err:
            raise UnsupportedModelError(
                f"{self._onnx_file} asks for the input {err}, which no pair encoder has; "
                "its inputs must be among input_ids, attention_mask and token_type_ids."
            ) from err
        (output,) = self._own_session().run([self._output], inputs)
        logits = relevance_logits(np.asarray(output, dtype=np.float32), self.name)
        return [sigmoid(logit) for logit in logits] if self.activation == "sigmoid" else logits


def _rebuild(
    source: ModelSource, activation: Activation, max_length: int, max_batch_tokens: int, num_threads: int | None
) -> OnnxCrossEncoder:
    return OnnxCrossEncoder(
        source,
        activation=activation,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        num_threads=num_threads,
    )


def _compact(encoding: Encoding) -> tuple[Any, Any]:
    # An Encoding holds every token's text and offsets; thousands of them would take far more than the ids.
    return np.array(encoding.ids, dtype=np.int32), np.array(encoding.type_ids, dtype=np.int8)


def _passage_span(encoding: Encoding) -> tuple[int, int]:
    spans = [span for span, part in zip(encoding.offsets, encoding.sequence_ids, strict=True) if part == 1]
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)
