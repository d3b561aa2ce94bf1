"""The default backend: onnxruntime and tokenizers, nothing else."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from langchain_crossrerank._machine import machine_key, usable_cores
from langchain_crossrerank.cross_encoders.base import CrossEncoder, LongQuery
from langchain_crossrerank.cross_encoders.calibration import (
    DEFAULT_BATCH_TOKENS,
    WORTH_CALIBRATING,
    faster_precision,
    known_batch_tokens,
    measure_batch_tokens,
)
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pair_encoder import PairEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair, plan_batches
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.cross_encoders.scores import Activation, check_num_labels, relevance_logits, sigmoid
from langchain_crossrerank.cross_encoders.truncation import Spans
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.files import hash_files
from langchain_crossrerank.onnx_graphs.cache import GraphPrecision, PreparedGraph, prepare_graph
from langchain_crossrerank.onnx_graphs.external_data import check_external_data, external_locations
from langchain_crossrerank.onnx_graphs.provenance import unpack_at_load

_TEST_PAIR = ("which precision is faster here?", "a passage of the usual length " * 20)

_logger = logging.getLogger(__name__)


class ProcessSession:
    """A session that belongs to this process: a forked child opens its own, because threads are not inherited.

    Callers take turns, each with all threads; together they would only get in each other's way.

    Args:
        open_session: Opens an onnxruntime session, or what behaves like one.
    """

    def __init__(self, open_session: Callable[[], Any]) -> None:
        self._open_session = open_session
        self._open()

    def _open(self) -> None:
        self._session = self._open_session()
        self._names = [entry.name for entry in self._session.get_inputs()]
        self._turn = threading.Lock()
        self._pid = os.getpid()

    def run(self, features: Mapping[str, Any]) -> Any:
        """Give the graph's first output for the inputs that it has.

        Raises:
            UnsupportedModelError: If it has an input that `features` has not.
        """
        unknown = [name for name in self._names if name not in features]
        if unknown:
            raise UnsupportedModelError(
                f"the graph asks for the input {unknown[0]!r}, which no pair encoder has; "
                "its inputs must be among input_ids, attention_mask and token_type_ids."
            )
        if os.getpid() != self._pid:
            # The inherited one is kept: taking it down would wait for threads that are not there.
            self._inherited = self._session
            self._open()
        with self._turn:
            return self._session.run([self._session.get_outputs()[0].name], {n: features[n] for n in self._names})[0]


class OnnxCrossEncoder(CrossEncoder):
    """A cross-encoder computed by onnxruntime on the CPU.

    The graph is rewritten to compute the last layer for its first token alone, where only that is read; the scores stay
    the same (see `graph`). Both texts of a pair are tokenised once, and passages are remembered.

    Args:
        source: Where the model's files are.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Tokens of a pair that are read, at most what the model allows; `None` for that most.
        max_batch_tokens: The most tokens, padding included, in one forward pass; `None` for what was measured to be
            fastest on this machine, or 512 before anything was measured.
        num_threads: Threads of one forward pass; `None` for the physical cores that this process may use.
        precision: `"fp32"` is exact. `"int8"` multiplies matrices in eight bits, which moves scores a little and is
            fast where the processor has instructions for it; `"auto"` uses it if a short test here shows it faster.
        device: `"cpu"`, or `"cuda"` where onnxruntime-gpu is installed.

    Raises:
        InvalidInputError: If this onnxruntime cannot use the device.
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded or its head is not one or two logits.
    """

    backend = "onnx"
    _knows_tokens = True

    def __init__(
        self,
        source: ModelSource,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
        precision: Literal["fp32", "int8", "auto"] = "fp32",
        device: str = "cpu",
    ) -> None:
        self.name = source.name
        self.activation = activation or source.activation
        self.max_length = min(max_length or source.max_length, source.max_length)
        self._asked: dict[str, Any] = {
            "max_batch_tokens": max_batch_tokens,
            "num_threads": num_threads,
            "precision": precision,
            "device": device,
        }
        self._providers = _providers(device)
        self._num_threads = num_threads or usable_cores()
        self._source = source
        self._pairs = PairEncoder(self._load_tokenizer(), self.max_length)
        self._window_tokenizers: dict[int, Tokenizer] = {}
        check_external_data(self.onnx_file)
        self._graph = self._prepare_graph(precision)
        self._session = ProcessSession(self._checked_session)
        # Quantised activations share one scale in a batch, so the company that a pair is scored in moves its score.
        self.scores_pairs_alone = self.precision != "int8"
        settled = max_batch_tokens or known_batch_tokens(self._machine_key)
        self.max_batch_tokens = settled or DEFAULT_BATCH_TOKENS
        self._may_calibrate = settled is None

    @property
    def precision(self) -> GraphPrecision:
        """What the graph computes in; another than was asked for where that could not be had."""
        return self._graph.precision

    @property
    def fingerprint(self) -> str:
        """The weights' content hash with everything else that decides a score."""
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        return f"onnx:{self._weights_hash}:{self.activation}:{self.max_length}{precision}:{self.long_query}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled copy loads the files again where it is unpickled; a session cannot travel.
        return _rebuild, (
            type(self),
            self._source,
            {"activation": self.activation, "max_length": self.max_length, **self._asked},
            self.long_query,
        )

    def __repr__(self) -> str:
        place = "" if str(self._source.folder) == self.name else f", folder={str(self._source.folder)!r}"
        return f"{super().__repr__()[:-1]}, precision={self.precision!r}, num_threads={self._num_threads}{place})"

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Two workers, so that one call is tokenised while another one's forward pass has its turn."""
        return StepScheduler(name=self.name, workers=2)

    @cached_property
    def _weights_hash(self) -> str:
        beside = [self.onnx_file.parent / location for location in sorted(external_locations(self.onnx_file))]
        return hash_files([self.onnx_file, *beside, self._source.tokenizer_file])

    @cached_property
    def onnx_file(self) -> Path:
        """The model's own graph."""
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
        return tokenizer

    def _prepare_graph(self, precision: str) -> PreparedGraph:
        if precision != "auto":
            return prepare_graph(self.onnx_file, "int8" if precision == "int8" else "fp32")
        candidates = [prepare_graph(self.onnx_file, kind) for kind in ("fp32", "int8")]
        features = self.features(self._encode([_TEST_PAIR]) * 4)
        runs: dict[GraphPrecision, Callable[[], object]] = {}
        for graph in candidates:
            try:
                runs[graph.precision] = partial(ProcessSession(partial(self.open_graph, graph.model)).run, features)
            except Exception as err:  # noqa: BLE001 - onnxruntime's errors have no common public class
                _logger.warning("The prepared graph %s cannot be loaded (%s), so it is not tried.", graph, err)
        if "fp32" not in runs:
            return candidates[0]
        chosen = faster_precision(runs, self._machine_key)
        return next(graph for graph in candidates if graph.precision == chosen)

    @property
    def _machine_key(self) -> str:
        size = self.onnx_file.stat().st_size
        settings = (self._asked.get(name) for name in ("device", "precision"))
        return machine_key(self.backend, self.name, size, self._num_threads, *settings)

    def open_graph(self, model: Path | bytes) -> Any:
        """Open a graph with this model's threads and device."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        # A pattern is kept for every shape of batch, and there are many.
        options.enable_mem_pattern = False
        unpack_at_load(options, model)
        content = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(content, options, providers=self._providers)

    def _checked_session(self) -> Any:
        try:
            session = self.open_graph(self._graph.model)
        except Exception as err:  # onnxruntime's errors have no common public class
            if not self._graph.rewritten:
                raise UnsupportedModelError(f"onnxruntime cannot load {self.onnx_file}: {err}") from err
            _logger.warning(
                "The prepared graph %s cannot be loaded (%s); the model's own is used. Delete the file to have it made "
                "anew.",
                self._graph,
                err,
            )
            precision: GraphPrecision = "bf16" if self._graph.precision == "bf16" else "fp32"
            self._graph = PreparedGraph(self.onnx_file, precision, rewritten=False)
            return self._checked_session()
        output = session.get_outputs()[0]
        width = output.shape[-1] if len(output.shape) == 2 else 1
        check_num_labels(width if isinstance(width, int) else self._source.num_labels, self.name)
        return session

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return [
            EncodedPair(pair, len(made.ids), truncated=made.truncated, features=(made.ids, made.type_ids))
            for pair, made in zip(text_pairs, self._pairs.encode(text_pairs), strict=True)
        ]

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        encoded = []
        encodings = self._window_tokenizer(overlap).encode_batch(list(text_pairs))
        for pair, first in zip(text_pairs, encodings, strict=True):
            for part in [first, *first.overflowing]:
                window = _passage_span(part) if first.overflowing else None
                encoded.append(EncodedPair(pair, len(part.ids), window=window, features=_compact(part)))
        return encoded

    def _window_tokenizer(self, overlap: int) -> Tokenizer:
        # A tokenizer's truncation is state of its own, so every overlap has its own tokenizer.
        if overlap not in self._window_tokenizers:
            tokenizer = self._load_tokenizer()
            tokenizer.enable_truncation(self.max_length, stride=overlap, strategy="only_second")
            self._window_tokenizers[overlap] = tokenizer
        return self._window_tokenizers[overlap]

    @property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return self._pairs.frame_tokens

    def _query_spans(self, query: str) -> Spans:
        return self._pairs.query_spans(query)

    def _plan(self, encoded: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        if self._may_calibrate and sum(item.tokens for item in encoded) >= WORTH_CALIBRATING:
            self._may_calibrate = False
            typical = sorted(encoded, key=lambda item: item.tokens)[len(encoded) // 2]
            try:
                self.max_batch_tokens = measure_batch_tokens(
                    lambda pairs: self._score_batch([typical] * pairs), typical.tokens, self._machine_key
                )
            except Exception as err:  # noqa: BLE001 - if the model fails, scoring itself says so and on which pairs
                _logger.info("The fastest batch size could not be measured (%s: %s).", type(err).__name__, err)
        return plan_batches(encoded, self.max_batch_tokens)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        output = self._session.run(self.features(batch))
        logits = relevance_logits(np.asarray(output, dtype=np.float32), self.name)
        return [sigmoid(logit) for logit in logits] if self.activation == "sigmoid" else logits

    def features(self, batch: Sequence[EncodedPair]) -> dict[str, Any]:
        """Give a batch as a model reads it: ids, segments and mask of shape (pairs, tokens), int64."""
        shape = len(batch), max(item.tokens for item in batch)
        ids = np.full(shape, self._source.config.get("pad_token_id") or 0, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, item in enumerate(batch):
            ids[row, : item.tokens], types[row, : item.tokens] = item.features
            mask[row, : item.tokens] = 1
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def _providers(device: str) -> list[str]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    if not device.startswith("cuda") or "CUDAExecutionProvider" not in available:
        raise InvalidInputError(
            f"device is {device!r}, which this onnxruntime cannot use (it has {', '.join(available)}); "
            'use "cpu", install onnxruntime-gpu, or use backend="torch".'
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _rebuild(
    kind: type[OnnxCrossEncoder], source: ModelSource, settings: dict[str, Any], long_query: LongQuery
) -> OnnxCrossEncoder:
    model = kind(source, **settings)
    model.long_query = long_query
    return model


def _compact(encoding: Encoding) -> tuple[Any, Any]:
    # An Encoding holds every token's text and offsets; thousands of them would take far more than the ids.
    return np.array(encoding.ids, dtype=np.int32), np.array(encoding.type_ids, dtype=np.int8)


def _passage_span(encoding: Encoding) -> tuple[int, int]:
    spans = [span for span, part in zip(encoding.offsets, encoding.sequence_ids, strict=True) if part == 1]
    return (spans[0][0], spans[-1][1]) if spans else (0, 0)
