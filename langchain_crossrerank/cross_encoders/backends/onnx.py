"""The default backend: onnxruntime and tokenizers, without torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from langchain_crossrerank._machine import machine_key, usable_cores
from langchain_crossrerank.cross_encoders.backends.onnx_devices import choose_device, providers
from langchain_crossrerank.cross_encoders.backends.onnx_inputs import pad_rows
from langchain_crossrerank.cross_encoders.backends.onnx_passages import PassageSession
from langchain_crossrerank.cross_encoders.backends.onnx_session import ProcessSession
from langchain_crossrerank.cross_encoders.base import CrossEncoder, LongQuery
from langchain_crossrerank.cross_encoders.calibration import (
    DEFAULT_BATCH_TOKENS,
    WORTH_CALIBRATING,
    faster_precision,
    known_batch_tokens,
    measure_batch_tokens,
)
from langchain_crossrerank.cross_encoders.fingerprints import ReadFiles, fingerprint
from langchain_crossrerank.cross_encoders.languages import LanguageCheck
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pair_encoder import PairEncoder
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.pickles import refuse_pickles
from langchain_crossrerank.cross_encoders.precision import Precision
from langchain_crossrerank.cross_encoders.scheduling import StepScheduler
from langchain_crossrerank.cross_encoders.scores import Activation, check_num_labels, relevance_logits, sigmoid
from langchain_crossrerank.cross_encoders.tokenizer_files import load_tokenizer
from langchain_crossrerank.cross_encoders.truncation import Spans
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.cache import (
    GraphPrecision,
    PreparedGraph,
    own_graph,
    prepare_graph,
    split_graph,
    trusted_graph,
)
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session

ATTENTION_BYTES = 2**30
"""Memory, in bytes, that the attention of one pair may take at the default length: two numbers for each pair of tokens
and each head of one layer. A forward pass peaks at about twice as much."""

_USUAL_HEADS = 12
_SAME_SCORE = 1e-3
_TEST_PAIR = ("which precision is faster here?", "a passage of the usual length " * 20)
_logger = logging.getLogger(__name__)


class OnnxCrossEncoder(CrossEncoder):
    """A cross-encoder computed by onnxruntime on the CPU.

    The graph is rewritten to compute the last layer for its first token alone, if only that is read; the scores stay
    the same (see `onnx_graphs.rewriting`). Each text is tokenised once, and its tokens are remembered.

    Args:
        source: Where the model's files are.
        activation: The unit of the scores; `None` follows the model's config.
        max_length: Tokens of a pair that are read, as far as the model has positions; `None` for what the model allows
            and `ATTENTION_BYTES` has memory for.
        max_batch_tokens: The most tokens, padding included, in one forward pass; `None` for what was measured to be
            fastest on this machine, or 512 before anything was measured.
        num_threads: Threads of one forward pass; `None` for the physical cores that this process may use.
        precision: `"fp32"` is exact. `"int8"` multiplies matrices in eight bits, which moves scores a little and is
            fast where the processor has instructions for it; `"auto"` uses it if a short test here shows it faster.
        device: `"cpu"`, or `"cuda"` if onnxruntime-gpu is installed; `None` for a GPU if it can be used.
        passage_cache: Bytes in which the states of texts are kept; see `onnx_passages`. `None` for none.

    Raises:
        InvalidInputError: If this onnxruntime cannot use the device, or the model cannot keep passages.
        ModelNotFoundError: If the ONNX graph, the config or the tokenizer is missing.
        UnsupportedModelError: If the graph cannot be loaded or its head is not one or two logits.
    """

    backend = "onnx"
    _knows_tokens = True
    _pads_left = False

    def __init__(
        self,
        source: ModelSource,
        *,
        activation: Activation | None = None,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        num_threads: int | None = None,
        precision: Precision = "fp32",
        device: str | None = None,
        passage_cache: int | None = None,
    ) -> None:
        self.name = source.name
        self.activation = activation or source.activation
        self.max_length = source.usable_length(max_length) if max_length else _default_length(source)
        self._settings: dict[str, Any] = {
            "max_batch_tokens": max_batch_tokens,
            "num_threads": num_threads,
            "precision": precision,
            "device": device,
            "passage_cache": passage_cache,
        }
        self._device = self._choose_device(device)
        self._num_threads = num_threads or usable_cores()
        self._source = source
        self._prompt = source.default_prompt
        if source.has_chat_template:
            raise UnsupportedModelError(
                f"{source.name!r} has a chat template, which the {self.backend} backend cannot apply, so its scores "
                'would be wrong; load it with backend="torch".'
            )
        own_files = [self.onnx_file] if source.is_bundled else []
        self._files = ReadFiles(source.folder, [*source.description_files, *own_files])
        self._graph = self._prepare_graph("fp32" if precision == "auto" else precision)
        with ThreadPoolExecutor(1) as pool:
            # onnxruntime opens a graph outside the interpreter, which reads the tokenizer in the meantime.
            tokenizer = pool.submit(load_tokenizer, source)
            self._session: ProcessSession | PassageSession = (
                ProcessSession(self._checked_session) if passage_cache is None else self._keep_passages(passage_cache)
            )
        self._fixed_batch, self._fixed_tokens = self._session.inputs["input_ids"].shape
        self.max_length = min(self.max_length, self._fixed_tokens or self.max_length)
        self.max_batch_pairs = self._fixed_batch
        truncation_side = source.tokenizer_settings.truncation_side
        self._reads_whole_passages = truncation_side == "left"
        self._pairs = PairEncoder(tokenizer.result(), self.max_length, truncation_side)
        self._language_check = LanguageCheck(source.languages, self._pairs.token_spans)
        self._window_tokenizers: dict[int, Tokenizer] = {}
        if source.tokenizer_settings.padding_side == "left":
            self._pads_left = self._is_padded_on_the_left()
        if precision == "auto":
            self._choose_precision()
        # Quantised activations share one scale in a batch, so a pair's score depends on the others in its batch.
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
        """A text that differs whenever the same pair could get a different score; see `fingerprints`."""
        return fingerprint(
            self.backend,
            f"{self._files.digest}-{self._graph.content_hash}",
            activation=self.activation,
            max_length=self.max_length,
            precision=self.precision,
            long_query=self.long_query,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled copy loads the files again where it is unpickled; a session cannot travel.
        settings = {"activation": self.activation, "max_length": self.max_length, **self._settings}
        return _rebuild, (type(self), self._source, settings, self.long_query)

    def __repr__(self) -> str:
        place = "" if str(self._source.folder) == self.name else f", folder={str(self._source.folder)!r}"
        kept = self._settings["passage_cache"]
        cache = "" if kept is None else f", passage_cache={kept}"
        return (
            f"{super().__repr__()[:-1]}, graph={self._source.relative(self.onnx_file)!r}, "
            f"precision={self.precision!r}, device={self._device!r}, num_threads={self._num_threads}{cache}{place})"
        )

    @cached_property
    def scheduler(self) -> StepScheduler:
        """Two workers, so that one call is tokenised while another one's forward pass has its turn."""
        return StepScheduler(name=self.name, workers=2)

    @cached_property
    def onnx_file(self) -> Path:
        """The model's own graph."""
        path = self._source.onnx_file
        if path is None:
            refuse_pickles(self.name, self._source.folder)
            raise ModelNotFoundError(
                f"the model {self.name!r} has no ONNX graph (model.onnx or onnx/model.onnx in "
                f'{self._source.folder}). Either run it on torch: `pip install "langchain-crossrerank[torch]"` and '
                'backend="torch"; or export it once: `pip install "langchain-crossrerank[export]"` and '
                f"`crossrerank export {self.name} FOLDER`, then load FOLDER."
            )
        self._source.warn_if_rough(path)
        return path

    def _choose_device(self, device: str | None) -> str:
        """Return where the graph runs."""
        return choose_device(device)

    def _prepare_graph(self, precision: str) -> PreparedGraph:
        if precision == "fp32" and self._source.is_bundled:
            return trusted_graph(self.onnx_file)
        return prepare_graph(self.onnx_file, "int8" if precision == "int8" else "fp32", self._source.head)

    def _choose_precision(self) -> None:
        """Run the graph in eight bits if that is clearly faster on this machine."""
        quantised = prepare_graph(self.onnx_file, "int8", self._source.head)
        if quantised.precision != "int8":
            return
        try:
            session = ProcessSession(partial(self.open_graph, quantised.graph))
        except Exception as err:  # noqa: BLE001 - onnxruntime's errors have no common public class
            _logger.warning("The quantised graph of %s cannot be opened (%s), so it is not tried.", self.name, err)
            return
        features = self.features(self._encode([_TEST_PAIR] * (self._fixed_batch or 4)))
        runs: dict[GraphPrecision, Callable[[], object]] = {
            "fp32": partial(self._session.run, features),
            "int8": partial(session.run, features),
        }
        if faster_precision(runs, self._machine_key) == "int8":
            self._graph = quantised
            self._session = ProcessSession(self._checked_session)

    def _keep_passages(self, max_bytes: int) -> PassageSession:
        if self._settings["precision"] != "fp32":
            raise InvalidInputError(
                f"passage_cache needs precision='fp32', and it is {self._settings['precision']!r}; leave one of them "
                "out."
            )
        split = split_graph(self.onnx_file)
        if split is None:
            raise InvalidInputError(
                f"what {self.name!r} reads of a passage cannot be kept: its graph reads query and passage together "
                "from its first layer on, or is a sparse branch alone; load it without passage_cache, or load the "
                "bundled model whole."
            )
        return PassageSession(
            # Threads that spin in wait for more texts would take their cores from the scoring that follows.
            partial(self.open_graph, split.reading, spin=False),
            partial(self.open_graph, split.scoring),
            open_terms=None if split.terms is None else partial(self.open_graph, split.terms, spin=False),
            states=split.states,
            source=self._source,
            max_bytes=max_bytes,
        )

    @property
    def passage_counts(self) -> tuple[int, int]:
        """How many passages were found in the passage cache, and how many had to be read."""
        kept = self._session
        return (kept.found, kept.read) if isinstance(kept, PassageSession) else (0, 0)

    @property
    def _machine_key(self) -> str:
        size = self.onnx_file.stat().st_size
        settings = (self._settings.get(name) for name in ("device", "precision"))
        return machine_key(self.backend, self.name, size, self._num_threads, *settings)

    def open_graph(self, graph: Graph, *, spin: bool = True) -> Any:
        """Open a graph with this model's threads and device; they spin for a moment in wait for the next run."""
        options = onnxruntime.SessionOptions()
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        # A pattern is kept for every shape of batch, and there are many.
        options.enable_mem_pattern = False
        return open_session(graph, options, providers=providers(self._device))

    def _checked_session(self) -> Any:
        try:
            session = self.open_graph(self._graph.graph)
        except Exception as err:  # onnxruntime's errors have no common public class
            if not self._graph.rewritten:
                raise UnsupportedModelError(f"{self.backend} cannot load {self.onnx_file}: {err}") from err
            _logger.warning(
                "The prepared graph of %s cannot be opened (%s: %s); the model's own graph is used.",
                self.onnx_file,
                type(err).__name__,
                err,
            )
            precision: GraphPrecision = "bf16" if self._graph.precision == "bf16" else "fp32"
            self._graph = replace(own_graph(self.onnx_file, self._source.head), precision=precision)
            return self._checked_session()
        output = session.get_outputs()[0]
        width = output.shape[-1] if len(output.shape) == 2 else 1
        check_num_labels(width if isinstance(width, int) else self._source.num_labels, self.name)
        return session

    def _encode(self, text_pairs: Sequence[TextPair]) -> list[EncodedPair]:
        return [
            EncodedPair(pair, len(made.ids), truncated=made.truncated, features=(made.ids, made.type_ids))
            for pair, made in zip(text_pairs, self._pairs.encode(self._prompted(text_pairs)), strict=True)
        ]

    def _prompted(self, text_pairs: Sequence[TextPair]) -> Sequence[TextPair]:
        """Put the model's default prompt before each query."""
        return [(self._prompt + query, passage) for query, passage in text_pairs] if self._prompt else text_pairs

    def _encode_windows(self, text_pairs: Sequence[TextPair], overlap: int) -> list[EncodedPair]:
        encoded = []
        encodings = self._window_tokenizer(overlap).encode_batch(list(self._prompted(text_pairs)))
        for pair, first in zip(text_pairs, encodings, strict=True):
            for part in [first, *first.overflowing]:
                window = _passage_span(part) if first.overflowing else None
                encoded.append(EncodedPair(pair, len(part.ids), window=window, features=_compact(part)))
        return encoded

    def _window_tokenizer(self, overlap: int) -> Tokenizer:
        # A tokenizer's truncation is state of its own, so every overlap has its own tokenizer.
        if overlap not in self._window_tokenizers:
            tokenizer = load_tokenizer(self._source)
            tokenizer.enable_truncation(self.max_length, stride=overlap, strategy="only_second")
            self._window_tokenizers[overlap] = tokenizer
        return self._window_tokenizers[overlap]

    @property
    def _frame_tokens(self) -> int:  # type: ignore[override]
        return self._pairs.frame_tokens + (len(self._pairs.query_spans(self._prompt)) if self._prompt else 0)

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
        return super()._plan(encoded)

    def _score_batch(self, batch: Sequence[EncodedPair]) -> Sequence[float]:
        output = np.asarray(self._session.run(self.features(batch)), dtype=np.float32)[: len(batch)]
        if output.shape[1:] == (1, 1):
            output = output[:, :, 0]
        logits = relevance_logits(output, self.name, relevant=self._source.relevant_label)
        return [sigmoid(logit) for logit in logits] if self.activation == "sigmoid" else logits

    def features(self, batch: Sequence[EncodedPair]) -> dict[str, Any]:
        """Return a batch as the graph reads it; see `pad_rows`."""
        shape = self._fixed_batch, self._fixed_tokens
        return pad_rows([item.features for item in batch], self._source, shape, pads_left=self._pads_left)

    def _is_padded_on_the_left(self) -> bool:
        """Return whether a padded pair scores as it does alone with the padding on the left.

        The tokenizer says left. Models that read their last token need that; one that reads its first token, and only
        says so, would read padding.
        """
        if self._fixed_tokens:
            # Nothing runs without padding, so there is nothing to compare with.
            return True
        short, long = self._encode([("a", "b"), _TEST_PAIR])
        (alone,) = self._score_batch([short])
        self._pads_left = True
        padded = self._score_batch([short, long])[0] if self._fixed_batch != 1 else alone
        return abs(padded - alone) < _SAME_SCORE


def _default_length(source: ModelSource) -> int:
    """Return the tokens of a pair that are read by default: what the model allows, as far as memory does."""
    heads = source.settings.num_attention_heads or _USUAL_HEADS
    affordable = math.isqrt(ATTENTION_BYTES // (2 * 4 * heads))
    length = source.max_length
    if length <= affordable:
        return length
    _logger.warning(
        "%r can read %d tokens of a pair, whose attention would take %.1f GB of memory; %d are read. Pass "
        "max_length=%d to read all of them, or another max_length to silence this warning.",
        source.name,
        length,
        2 * 4 * heads * length**2 / 1e9,
        affordable,
        length,
    )
    return affordable


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
